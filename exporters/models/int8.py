"""An ONNX graph's weights as int8; activations are scaled as they come, each token by its own largest value.

    x W  ~  s_x s_w (q_x q_w),    q_x = round(x / s_x),  s_x = max|x| / 127 of a token,
                                  q_w = round(w / s_w),  s_w = max|w| / 63 of a column

ONNX Runtime's own dynamic quantization scales a whole batch at once: one token's outlier costs all the others digits,
and a text's vector depends on the texts beside it (MiniLM: cosine .989 between the same text alone and among others).
By token it doesn't, and it is nearer to fp32 (worst cosine of 128 descriptions .995 against .988), for about a sixth of
the speed. Weights have 7 bits: without VNNI sums of two products of 8 bits overflow, and an artefact may move.
"""

from pathlib import Path
from typing import Any

import numpy as np

from exporters.models.errors import ExportFailed

WEIGHT, ACTIVATION = 63.0, 127.0  # the largest whole numbers
_DOMAIN = "com.microsoft"  # ONNX Runtime's own operators


def quantize(source: Path, out: Path) -> None:
    """Of every MatMul by a matrix of weights, and of embedding tables (Gather; 8 bits, a scale for each row). Raises
    ExportFailed."""
    import onnx  # noqa: PLC0415 - heavy: only an export pays

    try:
        model = onnx.load(source)
        if not _Rewriting(model.graph).done:
            raise ExportFailed(f"{source} can't be quantized: it multiplies by no matrix of weights")
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
        onnx.save(model, out)
    except (ValueError, RuntimeError, OSError) as error:
        raise ExportFailed(f"{source} can't be quantized: {error}") from error


class _Rewriting:
    """Of a graph, in place. `done`: how many multiplications."""

    def __init__(self, graph: Any) -> None:
        from onnx import helper  # noqa: PLC0415 - see above

        self._make = helper.make_node
        self._known = {i.name: i for i in graph.initializer}
        self._nodes: list[Any] = []
        self._added: dict[str, Any] = {}
        self._tokens: dict[str, tuple[str, str]] = {}
        self.done = 0
        for node in graph.node:
            if node.op_type == "MatMul" and self._weights(node.input[1]):
                self._multiply(node)
                self.done += 1
            elif node.op_type == "Gather" and self._weights(node.input[0]) and not _axis(node):
                self._look_up(node)
            else:
                self._nodes.append(node)
        used = {name for node in self._nodes for name in node.input} | {o.name for o in graph.output}
        kept = [i for i in graph.initializer if i.name in used]
        for part, new in ((graph.node, self._nodes), (graph.initializer, [*kept, *self._added.values()])):
            del part[:]
            part.extend(new)

    def _weights(self, name: str) -> bool:
        from onnx import TensorProto  # noqa: PLC0415 - see above

        known = self._known.get(name)
        return known is not None and len(known.dims) == 2 and known.data_type == TensorProto.FLOAT

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper  # noqa: PLC0415 - see above

        if name not in self._added:
            self._added[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _table(self, name: str, *, axis: int, most: float) -> tuple[str, str]:
        """The weights as int8, and what they are to be multiplied by: a number for each row or column."""
        from onnx import numpy_helper  # noqa: PLC0415 - see above

        whole, scale = f"{name}_int8_{axis}", f"{name}_scale_{axis}"
        if whole not in self._added:
            weights = numpy_helper.to_array(self._known[name])
            scales = np.maximum(np.abs(weights).max(axis=axis, keepdims=True), 1e-12) / most
            self._constant(whole, np.round(weights / scales).astype(np.int8))
            self._constant(scale, (scales if axis else scales[0]).astype(np.float32))
        return whole, scale

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(self._make(kind, inputs, [output], **attributes))
        return output

    def _by_token(self, name: str) -> tuple[str, str]:
        """Activations [..., width] as whole numbers around 128, and each token's scale [..., 1]; once, however many
        matrices read them."""
        from onnx import TensorProto  # noqa: PLC0415 - see above

        if name not in self._tokens:
            most = self._constant("int8_most", np.float32(ACTIVATION))
            size = self._add("Abs", [name], f"{name}_size")
            axis = self._constant("int8_axis", np.array([-1], dtype=np.int64))
            found = self._add("ReduceMax", [size, axis], f"{name}_found", keepdims=1)
            largest = self._add("Max", [found, self._constant("int8_least", np.float32(1e-12))], f"{name}_largest")
            scaled = self._add("Mul", [name, self._add("Div", [most, largest], f"{name}_steps")], f"{name}_scaled")
            moved = self._add("Add", [scaled, self._constant("int8_half", np.float32(128.5))], f"{name}_moved")
            whole = self._add("Cast", [moved], f"{name}_whole", to=TensorProto.UINT8)  # cuts off: 128.5 rounds
            self._tokens[name] = whole, self._add("Div", [largest, most], f"{name}_scale")
        return self._tokens[name]

    def _multiply(self, node: Any) -> None:
        whole, scale = self._by_token(node.input[0])
        weights, columns = self._table(node.input[1], axis=0, most=WEIGHT)
        one, zero = self._constant("int8_one", np.float32(1.0)), self._constant("int8_zero", np.uint8(128))
        found = f"{node.output[0]}_found"
        self._add("MatMulIntegerToFloat", [whole, weights, one, columns, zero], found, domain=_DOMAIN)
        self._add("Mul", [found, scale], node.output[0])

    def _look_up(self, node: Any) -> None:
        from onnx import TensorProto  # noqa: PLC0415 - see above

        table, rows = self._table(node.input[0], axis=1, most=ACTIVATION)
        name = node.output[0]
        found = self._add("Gather", [table, node.input[1]], f"{name}_found")
        scale = self._add("Gather", [rows, node.input[1]], f"{name}_row")
        self._add("Mul", [self._add("Cast", [found], f"{name}_float", to=TensorProto.FLOAT), scale], name)


def _axis(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
