"""What answers as an artefact will be served, by its runtime."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from exporters.models import CLOSED, GENAI, VLLM, ExportFailed, GenAIGenerator, dequantize, merge
from exporters.models.hf_folder import read_config
from exporters.models.parity import Read, hf_reader
from retrainer.recipes.recipe import Exported

_ADAPTER = "adapter_config.json"


def _closed(artefact: Path) -> Exported:
    from exporters.models.closed import ClosedModel  # noqa: PLC0415 - numpy: only a cycle pays for it

    return ClosedModel.load(artefact)


def _vllm(artefact: Path) -> Exported:
    """The very weights that vLLM will load, computed in float32 by transformers: vLLM is in an environment of its own,
    and its kernels differ from machine to machine."""
    from retrainer.evaluation.generate import TorchGenerator  # noqa: PLC0415 - heavy: torch

    with _dense(artefact) as folder:
        return TorchGenerator(folder)


# Each loads an artefact's folder. Raises ArtefactError.
SERVED: dict[str, Callable[[Path], Exported]] = {GENAI: GenAIGenerator, CLOSED: _closed, VLLM: _vllm}


def reader(runtime: str, artefact: Path) -> Read:
    """Reads the logits of an artefact of a model that writes; see `exporters.models.parity`. Raises ArtefactError."""
    if runtime == GENAI:
        return GenAIGenerator(artefact).logits
    with _dense(artefact) as folder:
        return hf_reader(folder)


@contextmanager
def _dense(artefact: Path) -> Iterator[Path]:
    """An artefact for vLLM as a dense Hugging Face folder, for as long as it takes to load it."""
    with tempfile.TemporaryDirectory() as folder:
        dense = Path(folder) / "dense"
        if (artefact / _ADAPTER).is_file():
            base = Path(json.loads((artefact / _ADAPTER).read_text())["base_model_name_or_path"])
            if not base.is_dir():
                raise ExportFailed(f"{artefact} is an adapter on {base}, which is not on this machine")
            merge(base, artefact, dense, probe=[0, 1])
            yield dense
        elif "quantization_config" in read_config(artefact):
            dequantize(artefact, dense)
            yield dense
        else:
            yield artefact
