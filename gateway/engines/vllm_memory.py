"""What the processes of a vLLM server will take of the machine's memory, told before it is launched."""

import math
from pathlib import Path

from exporters.models.tensors import header
from gateway.engines.vllm_command import dtype
from gateway.engines.vllm_environment import Environment
from router.config_engines import EngineSettings

AROUND = 1.5e9  # bytes beside weights and cache: libraries, the API server, the engine's core
_WIDTHS = {"float": 4, "float32": 4, "half": 2, "float16": 2, "bfloat16": 2}  # bytes of a weight
_FLOATS = ("F64", "F32", "F16", "BF16")
_PACKED, _ROUNDED = ".qweight", (".qweight", ".qzeros", ".scales", ".g_idx")  # AWQ's and GPTQ's
_A_WORD = 8  # weights of 4 bits


def server(folder: Path, settings: EngineSettings, environment: Environment) -> float:
    """Bytes of one that serves the Hugging Face folder. Raises CorruptArtefact."""
    width = _WIDTHS.get(dtype(settings, environment))
    cache = settings.kv_cache_gb * 2**30 * settings.vllm.tensor_parallel if environment.on_cpu else 0.0
    return AROUND + cache + weights(folder, width=width, packed=environment.four_bits)


def weights(folder: Path, *, width: int | None, packed: bool) -> float:
    """Bytes of the weights in memory: `width` for each, None as the files have them. `packed`: those in 4 bits stay
    so."""
    total = float(sum(file.stat().st_size for file in folder.glob("*.bin")))
    for file in folder.glob("*.safetensors"):
        for name, tensor in header(file).items():
            begin, end = tensor["data_offsets"]
            if name.endswith(_ROUNDED) and not packed:
                total += math.prod(tensor["shape"]) * _A_WORD * (width or 4) if name.endswith(_PACKED) else 0
            elif width is not None and tensor["dtype"] in _FLOATS and not name.endswith(_ROUNDED):
                total += math.prod(tensor["shape"]) * width
            else:
                total += end - begin
    return total
