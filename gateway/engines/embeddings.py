"""Embeddings in OpenAI's shape: a request, checked, and the answer."""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from gateway.engines import fields
from gateway.engines.fields import bad
from gateway.engines.protocol import Loaded, Vectors

MOST_TEXTS = 2048


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`dimensions`: None for all. `base64`: whether a vector is told as its bytes (float32, little-endian)."""

    texts: list[str]
    dimensions: int | None
    base64: bool
    truncate: bool


def read(body: bytes, *, dimensions: Sequence[int]) -> EmbeddingsRequest:
    """Read a request body. `dimensions`: that the version's vectors may have, all of them first. A text that is too
    long is refused by the worker unless `truncate` is "END". Unknown fields are passed over. Raises InvalidRequest."""
    data = fields.body(body, holds="an input")
    form = data.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise bad("encoding_format", "must be float or base64")
    wanted = fields.integer(data, "dimensions", least=1)
    if wanted is not None and wanted not in dimensions:
        known = ", ".join(map(str, sorted(dimensions)))
        raise bad("dimensions", f"can't be {wanted}: this model's vectors were trained for {known}")
    return EmbeddingsRequest(
        texts=_texts(data.get("input")),
        dimensions=None if wanted == dimensions[0] else wanted,
        base64=form == "base64",
        truncate=fields.truncates(data, default="NONE"),
    )


def answer(asked: EmbeddingsRequest, found: Vectors, loaded: Loaded, *, model: str) -> bytes:
    """The whole answer, as JSON."""
    vectors = np.frombuffer(found.vectors, dtype="<f4").reshape(len(asked.texts), loaded.dimensions[0])
    if asked.dimensions is not None:
        vectors = vectors[:, : asked.dimensions]
        if loaded.unit:  # of unit length again, as OpenAI's are
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    told = [base64.b64encode(row.tobytes()).decode() for row in rows] if asked.base64 else rows.tolist()
    data = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(told)]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise bad("input", "must be a text, or a list of at least one text")
    if len(texts) > MOST_TEXTS:
        raise bad("input", f"holds {len(texts)} texts; at most {MOST_TEXTS} in one request")
    for at, text in enumerate(texts):
        if isinstance(text, int | list):
            raise bad("input", "holds token ids, of another model's tokenizer perhaps; send the texts themselves")
        if not isinstance(text, str) or not text:
            raise bad(f"input[{at}]" if isinstance(value, list) else "input", "must be a text that isn't empty")
    return texts
