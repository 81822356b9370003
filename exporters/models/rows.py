"""Sequences that are decoded together: ONNX Runtime over the graph that onnxruntime-genai's builder writes.

Each sequence is a row of one cache. A prompt is read into its row by itself (`read`); a step gives the first rows one
token each, in one pass (`step`). Rows join and leave between passes, which onnxruntime-genai's own batches don't let
them, and a prompt takes the beginning that it shares with another row from there.

Measured on CPUs (int8, int4): a step's logits are the same bits however many rows take part, from two on, and a
prompt's however it is cut, as long as no piece is one token: a pass over one token adds in another order, and its
logits differ in the first digit after the point. So a prompt is never cut so, what steps have appended is never shared,
and where one row alone would come out otherwise (int4), it gets an idle one for company. So an answer does not depend
on who else asks, nor on what the cache happened to hold.

A row that nobody needs keeps what it holds until another needs the memory (`room`).
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.models.errors import ExportFailed
from exporters.models.kv_cache import KvCache

Logits = npt.NDArray[np.float32]

COUNT = 16
_LEAST = 16  # tokens
CACHE_GB = 1.0
# In any other the builder writes an attention for CPUs that can't append to a cache in place.
_KINDS: dict[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32)}


class Rows:
    """A loaded artefact folder with `count` rows. `threads`: of ONNX Runtime. `cache_gb`: what keys and values should
    take at most, which is `most` tokens over all rows.

    `context_length`: the most tokens of a row; `size`: of the vocabulary. Raises ExportFailed.
    """

    def __init__(self, folder: Path, *, threads: int, count: int = COUNT, cache_gb: float = CACHE_GB) -> None:
        import onnxruntime as ort  # noqa: PLC0415 - heavy: only exports and engines pay for it

        self._ort = ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # A thread that spins for work costs its neighbours more than it gains (beside a gateway that took 80% of one of
        # two cores, 5.4 requests a second without and 3.7 with); one that sleeps between two operators of a pass loses
        # a third of its time. 20 us bridge those, and no pause between passes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
        try:
            settings = json.loads((folder / "genai_config.json").read_text("utf-8"))["model"]
            decoder = settings["decoder"]
            file = str(folder / decoder["filename"])
            self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            context = int(settings["context_length"])
            self.size = int(settings["vocab_size"])
            self._names = _Names(decoder, {i.name: i.type for i in self._session.get_inputs()})
            shape = (int(decoder["num_key_value_heads"]), context, int(decoder["head_size"]))
        except Exception as error:  # the runtime raises its own kinds, some of them plain Exception
            raise ExportFailed(f"ONNX Runtime can't load {folder}: {error}") from error
        self.count = count
        self._cache = KvCache(
            layers=len(self._names.layers), rows=count, shape=shape, kind=self._names.kind, most_bytes=cache_gb * 1e9
        )
        self.most = self._cache.most
        if self.most < _LEAST:
            raise ExportFailed(
                f"{cache_gb:g} GB hold {self.most} tokens' keys and values of {folder}: too few to serve"
            )
        self.context_length = min(context, self.most)
        self._bindings: dict[tuple[int, int], Any] = {}
        self._tokens: list[list[int]] = [[] for _ in range(count)]
        self._read = [0] * count  # how many of them were read as (part of) a prompt
        self._idle = [True] * count
        self._wide: bool | None = None  # whether a pass gives the logits of all its tokens, not of the last alone
        self._accompanied = False  # whether one row alone needs company
        try:
            ready = np.isfinite(self.read(0, [0, 0])).all()
            alone = self.step([0])[0].tobytes()
            self._tokens[0].pop()
            together = self.step([0] * min(2, count))[0].tobytes()
        except RuntimeError as error:
            raise ExportFailed(f"ONNX Runtime can't run {folder}: {error}") from error
        if not ready:
            raise ExportFailed(f"{folder} computes values that are not finite")
        self._accompanied = alone != together
        self._tokens, self._read, self._idle = [[] for _ in range(count)], [0] * count, [True] * count

    def length(self, row: int) -> int:
        """How many tokens a row holds."""
        return len(self._tokens[row])

    def share(self, row: int, line: Sequence[int]) -> int:
        """Begin a row with what any row holds of the prompt `line`; returns how many tokens that is. At least two (or
        the only one) are left to be read."""
        most = max(len(line) - 2, 0)
        lengths = [_common(tokens[: self._read[i]], line, most) for i, tokens in enumerate(self._tokens)]
        best = max(range(self.count), key=lambda i: (lengths[i], i == row))
        length = lengths[best]
        if best != row:
            self._cache.copy(best, row, length)
        self._idle[row] = False
        self._tokens[row] = list(line[:length])
        self._read[row] = length
        return length

    def read(self, row: int, tokens: Sequence[int]) -> Logits:
        """Append a prompt, or a piece of one; the logits after its last token, [size]. Raises RuntimeError."""
        self._idle[row] = False
        logits = self._pass(row, np.asarray([tokens], dtype=np.int64))
        self._tokens[row] += tokens
        if self._read[row] == len(self._tokens[row]) - len(tokens) and len(tokens) > 1:
            self._read[row] = len(self._tokens[row])
        last: Logits = logits[0]
        return last

    def step(self, tokens: Sequence[int]) -> list[Logits]:
        """Append one token to each of the first rows; of each the logits after it, [size]. Raises RuntimeError."""
        company = [0] if self._accompanied and len(tokens) == 1 and self._companion() else []
        logits = self._pass(0, np.asarray([*tokens, *company], dtype=np.int64)[:, None])
        for row, token in enumerate(tokens):
            self._tokens[row].append(token)
        return list(logits[: len(tokens)])

    def swap(self, one: int, other: int) -> None:
        """Let two rows change places."""
        if one == other:
            return
        self._cache.swap(one, other, (self.length(one), self.length(other)))
        self._tokens[one], self._tokens[other] = self._tokens[other], self._tokens[one]
        self._read[one], self._read[other] = self._read[other], self._read[one]
        self._idle[one], self._idle[other] = self._idle[other], self._idle[one]

    def clear(self, row: int) -> None:
        """Nobody needs a row's answer any more. What it holds of a prompt may still be shared."""
        self._idle[row] = True
        self._keep(row, self._read[row])

    def room(self, tokens: int) -> bool:
        """Whether so many more tokens fit; idle rows are emptied as far as they must be."""
        needed = [0 if idle else len(held) for idle, held in zip(self._idle, self._tokens, strict=True)]
        fits = self._cache.room(tokens, needed)
        for row in range(self.count):
            self._keep(row, self._cache.taken[row])
        return fits

    def _keep(self, row: int, length: int) -> None:
        del self._tokens[row][length:]
        self._read[row] = min(self._read[row], length)

    def _companion(self) -> bool:
        """Whether row 1 may go along with row 0. An idle one does so empty: what it holds would take time."""
        if self.count == 1:
            return False
        if self._idle[1]:
            self.swap(1, min((row for row in range(1, self.count) if self._idle[row]), key=self.length))
            self._keep(1, 0)
        return self.length(1) < self.context_length

    def _pass(self, first: int, ids: npt.NDArray[np.int64]) -> Logits:
        """`ids` [n, t]: the next t tokens of n rows from `first` on. The logits after the last, [n, size]."""
        n, width = ids.shape
        ends = np.asarray([self.length(first + i) + width for i in range(n)])
        if ends.max() > self.context_length:
            raise RuntimeError(f"{ends.max()} tokens are more than this model's context of {self.context_length}")
        for row, end in enumerate(ends, start=first):
            self._cache.take(row, int(end))
        binding = self._bindings.get((first, n))
        if binding is None:
            binding = self._bindings[first, n] = self._bound(first, n)
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", (np.arange(ends.max()) < ends[:, None]).astype(np.int64))
        if self._names.positions:
            binding.bind_cpu_input("position_ids", ends[:, None] - width + np.arange(width))
        logits: npt.NDArray[Any] = np.empty((n, width if self._wide else 1, self.size), self._names.kind)
        if self._wide is None:
            binding.bind_output("logits")
        else:
            binding.bind_output("logits", "cpu", 0, logits.dtype, logits.shape, logits.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # the runtime's own kinds
            raise RuntimeError(f"ONNX Runtime: {error}") from error
        if self._wide is None:
            logits = binding.get_outputs()[-1].numpy()
            self._wide = logits.shape[1] == width
            self._bindings.clear()
        found: Logits = logits[:, -1].astype(np.float32, copy=False)
        return found

    def _bound(self, first: int, n: int) -> Any:
        """Keys and values stay where they are: a pass appends to them in place."""
        binding = self._session.io_binding()
        values = iter(self._cache.arrays)
        for past_present in self._names.layers:
            for past, present in past_present:
                rows = self._ort.OrtValue.ortvalue_from_numpy(next(values)[first : first + n])
                binding.bind_ortvalue_input(past, rows)
                binding.bind_ortvalue_output(present, rows)
        return binding


def whole_cache(folder: Path, count: int = COUNT) -> float:
    """Bytes of the cache of an artefact's rows where each holds its whole context. Raises ExportFailed."""
    try:
        model = json.loads((folder / "genai_config.json").read_text("utf-8"))["model"]
        decoder = model["decoder"]
        heads, width = int(decoder["num_key_value_heads"]), int(decoder["head_size"])
        token = 2 * int(decoder["num_hidden_layers"]) * heads * width * np.dtype(np.float32).itemsize
        return float(count * int(model["context_length"]) * token)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportFailed(f"{folder}/genai_config.json can't be read: {error}") from error


def pieces(tokens: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """A prompt cut into pieces of at most `most` tokens (3 or more); none is a single one, unless it is all."""
    at = 0
    while at < len(tokens):
        until = at + most
        if until == len(tokens) - 1:
            until -= 1
        yield tokens[at:until]
        at = until


class _Names:
    """A graph's inputs and outputs. `layers`: of each, (past, present) of its keys and of its values. Raises ValueError
    where the graph asks for more than is known."""

    def __init__(self, decoder: dict[str, Any], inputs: dict[str, str]) -> None:
        ins, outs = decoder["inputs"], decoder["outputs"]
        self.layers = [
            [
                (ins[f"past_{what}_names"] % layer, outs[f"present_{what}_names"] % layer)
                for what in ("key", "value")
            ]
            for layer in range(int(decoder["num_hidden_layers"]))
        ]  # fmt: skip
        pasts = [past for layer in self.layers for past, _ in layer]
        self.positions = "position_ids" in inputs
        unknown = set(inputs) - {"input_ids", "attention_mask", "position_ids", *pasts}
        missing = {"input_ids", "attention_mask", *pasts} - set(inputs)
        if unknown or missing:
            raise ValueError(f"the graph's inputs are not those of a decoder: {', '.join(sorted(unknown | missing))}")
        kinds = {inputs[past] for past in pasts}
        if len(kinds) != 1 or not kinds <= set(_KINDS):
            raise ValueError(f"the cache is of {', '.join(sorted(kinds))}; {' or '.join(_KINDS)} is known")
        self.kind = _KINDS[kinds.pop()]


def _common(held: Sequence[int], line: Sequence[int], most: int) -> int:
    most = min(len(held), most)
    return next((i for i in range(most) if held[i] != line[i]), most)
