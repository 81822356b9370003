"""What is read from outside: the configuration file and the environment. Nothing else in Retort reads either."""

import logging
import os
from pathlib import Path

from retort.errors import StartError
from router import Config, ConfigError, parse, private_folder

DEFAULT_CONFIG = "retort.yaml"


def load(path: str, *, unset: bool = False) -> Config:
    """The configuration at `path`. `unset`: what it takes from the environment may be missing there. Raises StartError
    with a line for each thing that is wrong."""
    try:
        text = Path(path).read_text("utf-8")
    except FileNotFoundError as error:
        raise StartError(
            f"{path}: no such file; write one (examples/quickstart/retort.yaml is a start) or name it with --config"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{path}: can't be read: {error}") from error
    try:
        return parse(text, os.environ, unset=unset)
    except ConfigError as error:
        raise StartError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def share_metrics(state: str) -> None:
    """Let all processes of a state folder count into one /metrics page.

    Must run before prometheus_client is imported: it chooses its value class then.
    """
    folder = Path(state) / "run" / "metrics"
    private_folder(folder)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def be_offline() -> None:
    """Keep the model libraries from asking a hub, since Retort's models are local files, and from drawing bars."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of kernels that a CPU does without
