"""What must lie in the state folder before a process starts: for now, the encoder that the score `embedding` needs."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from collector.embedding import encoder_folder
from exporters.child import ending_with
from retort.errors import StartError
from router import Config, needs_similarity

EXPORTER = (sys.executable, "-W", "ignore", "-m", "exporters.models.encoder_onnx")
TIMEOUT_SECONDS = 900.0


def prepare(config: Config, *, exporter: Sequence[str] = EXPORTER) -> None:
    """Make what is missing; nothing where nothing is. The encoder takes about 20 s, once a state folder; it is made in
    a process of its own, so that a gigabyte of torch goes when it ends. Raises StartError."""
    names = [name for name, policy in config.routes.items() if needs_similarity(policy.quality.score)]
    folder = encoder_folder(config.state)
    if not names or folder.exists():
        return
    print(f"retort: making the encoder for the score `embedding` of {', '.join(names)}, once", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / "minilm.log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"}
    with log.open("wb") as output:
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter, arguments as a list
                [*exporter, str(folder)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=TIMEOUT_SECONDS,
                check=False,
                preexec_fn=ending_with(os.getpid()),
            )
        except subprocess.TimeoutExpired as error:
            raise StartError(f"the encoder was not made within {TIMEOUT_SECONDS:.0f} s; see {log}") from error
    if done.returncode != 0 or not folder.exists():
        raise StartError(
            f"the encoder for the score `embedding` could not be made; see {log}:\n{_last_line(log)}\n"
            "it needs `pip install 'retort-gateway[retrainer]'`; or choose another quality.score"
        )
    log.unlink()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
