"""An ONNX graph's weights as int8, a scale for each column; activations are scaled as they come (dynamically)."""

import logging
from pathlib import Path

from exporters.models.errors import ExportFailed


def quantize(source: Path, out: Path) -> None:
    """Of MatMul and Gather (embeddings). Without VNNI weights get 7 bits, or sums of products would overflow. Raises
    ExportFailed."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - heavy: only an export pays

    cpu = Path("/proc/cpuinfo")
    narrow = not (cpu.exists() and "vnni" in cpu.read_text())
    logging.disable(logging.WARNING)  # it asks for a preparation that changes nothing here
    try:
        quantize_dynamic(
            source,
            out,
            per_channel=True,
            reduce_range=narrow,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gather"],
        )
    except (ValueError, RuntimeError) as error:
        raise ExportFailed(f"{source} can't be quantized: {error}") from error
    finally:
        logging.disable(logging.NOTSET)
