"""What must lie in the state folder before a process starts: for now, the encoder that the score `embedding` needs."""

import sys
from collections.abc import Sequence

from collector.embedding import encoder_folder
from exporters.models import ExportFailed
from exporters.models.apart import run_apart
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
    try:
        run_apart([*exporter, str(folder)], log=log, name="its exporter", timeout=TIMEOUT_SECONDS)
        if not folder.exists():
            raise ExportFailed(f"its exporter made nothing; see {log}:\n{log.read_text(errors='replace')[-600:]}")
    except ExportFailed as error:
        raise StartError(
            f"the encoder for the score `embedding` could not be made: {str(error).rstrip()}\n"
            "it needs `pip install 'retort-gateway[retrainer]'`; or choose another quality.score"
        ) from error
    log.unlink()
