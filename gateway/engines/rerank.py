"""Reranking in the shape that Cohere's and Jina's APIs share: a request, checked, and the answer."""

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.engines import fields
from gateway.engines.fields import bad
from gateway.engines.protocol import Scores

MOST_DOCUMENTS = 2048


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`most`: how many results; None for all. `told`: whether a result has its document."""

    query: str
    documents: list[str]
    most: int | None
    told: bool
    truncate: bool


def read(body: bytes) -> RerankRequest:
    """Read a request body. A document that is too long loses its end, as those APIs have it, unless `truncate` is
    "NONE". Unknown fields are passed over. Raises InvalidRequest."""
    data = fields.body(body, holds="a query and documents")
    for name in ("max_tokens_per_doc", "max_chunks_per_doc"):
        if data.get(name) is not None:
            raise bad(name, "is not supported by this model: a document is read as far as the model reads")
    if data.get("rank_fields") not in (None, ["text"]):
        raise bad("rank_fields", "is not supported by this model: of a document its text alone is read")
    query = data.get("query")
    if not isinstance(query, str) or not query:
        raise bad("query", "must be a text that isn't empty")
    return RerankRequest(
        query=query,
        documents=_documents(data.get("documents")),
        most=fields.integer(data, "top_n", least=1),
        told=fields.boolean(data, "return_documents"),
        truncate=fields.truncates(data, default="END"),
    )


def answer(asked: RerankRequest, found: Scores, *, model: str) -> bytes:
    """The whole answer, as JSON: the best first, of equal ones the earlier."""
    ranked = sorted(enumerate(found.scores), key=lambda one: -one[1])[: asked.most]
    results: list[Mapping[str, Any]] = [
        {
            "index": n,
            "relevance_score": score,
            **({"document": {"text": asked.documents[n]}} if asked.told else {}),
        }
        for n, score in ranked
    ]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    told = {"id": f"rerank-{uuid.uuid4().hex}", "object": "list", "model": model, "results": results, "usage": usage}
    return msgspec.json.encode(told)


def _documents(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise bad("documents", "must be a list of at least one document")
    if len(value) > MOST_DOCUMENTS:
        raise bad("documents", f"holds {len(value)} documents; at most {MOST_DOCUMENTS} in one request")
    texts: list[str] = []
    for at, one in enumerate(value):
        text = one.get("text") if isinstance(one, dict) else one
        if not isinstance(text, str):
            raise bad(f"documents[{at}]", "must be a text, or an object with a text")
        texts.append(text)
    return texts
