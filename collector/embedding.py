"""How near two texts are in meaning: the cosine of their MiniLM vectors, for the score `embedding`.

    similarity(a, b) = max(0, cos(v_a, v_b))

Unrelated texts have cosines about 0, and a negative one means no more than that: both are 0. A text longer than the
model's 256 tokens is read in windows, up to MOST_WINDOWS; its vector is their mean, weighted by their tokens, on the
unit sphere again. Source: Reimers & Gurevych 2019; the model is all-MiniLM-L6-v2.

The graph (pooling and norm in it) is written by exporters.models.encoder_onnx into STATE/models/minilm.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from collector.errors import CollectorError, Overloaded

Vectors = NDArray[np.float32]

MANIFEST = "encoder.json"
BATCH = 16  # windows a pass
MOST_WINDOWS = 16
MOST_WAITING = 512  # texts
MOST_REMEMBERED = 2000
FIT_REMEDY = "start with `retort up`, which makes it, or run `python -m exporters.models.encoder_onnx {folder}`"


class _Manifest(msgspec.Struct, frozen=True):
    """What the collector needs of it."""

    files: dict[str, str]
    dimensions: int
    most_tokens: int


def encoder_folder(state: str | Path) -> Path:
    """Where a state folder keeps the encoder."""
    return Path(state) / "models" / "minilm"


class Encoder:
    """The model on ONNX Runtime, one thread. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        """Load it. Raises CollectorError where it is missing, or is not what was written."""
        import onnxruntime as ort  # noqa: PLC0415 - heavy: only routes that compare meanings pay for it
        from tokenizers import Tokenizer  # noqa: PLC0415 - heavy

        manifest = _checked(folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(manifest.most_tokens)
        self._tokenizer.no_padding()
        self._dimensions = manifest.dimensions

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, (n, 384). A text without any word has one too."""
        windows = [(n, window.ids) for n, text in enumerate(texts) for window in self._windows(text)]
        windows.sort(key=lambda w: len(w[1]))  # alike in length, so that little is padded
        sums = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for start in range(0, len(windows), BATCH):
            batch = windows[start : start + BATCH]
            for (n, ids), vector in zip(batch, self._run([ids for _, ids in batch]), strict=True):
                sums[n] += len(ids) * vector
        return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), dtype=np.float32)

    def _windows(self, text: str) -> list[Any]:
        first = self._tokenizer.encode(text[: MOST_WINDOWS * 4096])
        return [first, *first.overflowing][:MOST_WINDOWS]

    def _run(self, rows: Sequence[Sequence[int]]) -> Vectors:
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = row
            mask[n, : len(row)] = 1
        return np.asarray(self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0])


def _checked(folder: Path) -> _Manifest:
    remedy = FIT_REMEDY.format(folder=folder)
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=_Manifest)
    except FileNotFoundError:
        raise CollectorError(f"a route's score is embedding, and {folder} holds no encoder; {remedy}") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise CollectorError(f"{folder / MANIFEST} can't be read ({error}); remove {folder} and {remedy}") from error
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file() or _digest(file) != expected:
            raise CollectorError(f"{file} is missing or has changed; remove {folder} and {remedy}")
    return manifest


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def nearness(a: Vectors, b: Vectors) -> float:
    """max(0, cosine) of two unit vectors."""
    return float(min(max(np.dot(a, b), 0.0), 1.0))


class Similarities:
    """A similarity for callers that may wait, in the order of their calls; remembers the newest vectors."""

    def __init__(self, encode: Callable[[Sequence[str]], Vectors]) -> None:
        self._encode = encode
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()

    def __call__(self, a: str, b: str) -> float:
        """Of two texts, in [0, 1]."""
        return nearness(self._vector(a), self._vector(b))

    def _vector(self, text: str) -> Vectors:
        known = self._vectors.get(text)
        if known is None:
            known = np.asarray(self._encode([text])[0], dtype=np.float32)
            self._vectors[text] = known
            if len(self._vectors) > MOST_REMEMBERED:
                self._vectors.popitem(last=False)
        return known


class Embedder:
    """Encodes in one thread of its own; what comes meanwhile is encoded together, in the next pass."""

    def __init__(self, encode: Callable[[Sequence[str]], Vectors], *, most_waiting: int = MOST_WAITING) -> None:
        self._encode = encode
        self._most_waiting = most_waiting
        self._waiting: list[tuple[Sequence[str], asyncio.Future[Vectors]]] = []
        self._texts = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._turn: asyncio.Task[None] | None = None

    async def vectors(self, texts: Sequence[str]) -> Vectors:
        """(n, 384). Raises Overloaded where too many texts wait already, CollectorError where the model fails."""
        if self._texts + len(texts) > self._most_waiting:
            raise Overloaded(f"{self._texts} texts wait to be encoded")
        asked: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._texts += len(texts)
        self._waiting.append((texts, asked))
        if self._turn is None:
            self._turn = asyncio.create_task(self._work())
        try:
            return await asked
        finally:
            self._texts -= len(texts)

    def close(self) -> None:
        """Let go of the thread."""
        if self._turn is not None:
            self._turn.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                texts = [text for asked, _ in batch for text in asked]
                try:
                    found = await loop.run_in_executor(self._thread, self._encode, texts)
                except Exception as error:
                    # The edge of the model: its message may quote the text.
                    failed = CollectorError(f"the encoder failed: {type(error).__name__}")
                    _answer(batch, failed)
                    continue
                _answer(batch, found)
        finally:
            self._turn = None


def _answer(batch: Sequence[tuple[Sequence[str], "asyncio.Future[Vectors]"]], found: Vectors | CollectorError) -> None:
    at = 0
    for texts, asked in batch:
        if not asked.done():
            if isinstance(found, CollectorError):
                asked.set_exception(found)
            else:
                asked.set_result(found[at : at + len(texts)])
        at += len(texts)
