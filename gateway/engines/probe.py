"""Is a loaded version what its manifest says? Real generations, before any request reaches it."""

import math
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import numpy as np

from exporters.models import Manifest
from gateway.engines.child import Child
from gateway.engines.errors import EngineError, NotReady
from gateway.engines.protocol import Options, Piece


async def probe(child: Child, manifest: Manifest) -> None:
    """Ask for every golden answer, and at least for one answer at all. Raises NotReady, WorkerGone.

    Vectors and scores may differ by what their golden entries allow. A golden answer must come in the way that requests
    are decoded, or else stepwise, as it was recorded: the two run different kernels, which may break a near tie
    differently. Wrong weights fail both.
    """
    if child.loaded.does != "generate":
        await _probe_encoder(child, manifest)
        return
    if not manifest.golden:
        await _ask(child, {"messages": [{"role": "user", "content": "Are you ready?"}]}, stepwise=False, most=4)
    for number, golden in enumerate(manifest.golden):
        most = int(golden["max_tokens"])
        got = await _ask(child, golden, stepwise=False, most=most)
        if got != golden["answer"]:
            got = await _ask(child, golden, stepwise=True, most=most)
        if got != golden["answer"]:
            pairs = zip(got, golden["answer"], strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got), len(golden["answer"])))
            raise NotReady(  # without the texts: this reason goes into the log that holds none
                f"golden answer {number} of {manifest.id} comes out different from character {same} on; "
                "the artefact, or the runtime that loaded it, is not the one that was exported"
            )


async def _probe_encoder(child: Child, manifest: Manifest) -> None:
    default = {"input": "ready?"} if child.loaded.does == "embed" else {"query": "ready?", "documents": ["Yes."]}
    for number, golden in enumerate(manifest.golden or [default]):
        try:
            near = await (_vector(child, golden) if child.loaded.does == "embed" else _scores(child, golden))
        except (KeyError, TypeError, ValueError) as error:
            raise NotReady(f"golden entry {number} of {manifest.id} can't be read: {error!r}") from error
        except EngineError as error:
            if error.retryable:
                raise
            raise NotReady(f"a probe failed: {error}") from error
        if not near:
            raise NotReady(
                f"golden entry {number} of {manifest.id} comes out too different; "
                "the artefact, or the runtime that loaded it, is not the one that was exported"
            )


async def _vector(child: Child, golden: Mapping[str, Any]) -> bool:
    got = await child.embed([str(golden["input"])], truncate=True)
    found = np.frombuffer(got.vectors, dtype="<f4").astype(np.float64)
    if "vector" not in golden:
        return bool(np.isfinite(found).all())
    wanted = np.array(golden["vector"], dtype=np.float64)
    if found.shape != wanted.shape:
        return False
    cosine = float(found @ wanted) / max(float(np.linalg.norm(found) * np.linalg.norm(wanted)), 1e-12)
    return cosine >= float(golden["cosine"])


async def _scores(child: Child, golden: Mapping[str, Any]) -> bool:
    got = await child.rank(str(golden["query"]), [str(d) for d in golden["documents"]], truncate=True)
    if "scores" not in golden:
        return all(map(math.isfinite, got.scores))
    return all(
        abs(found - float(wanted)) <= float(golden["tolerance"])
        for found, wanted in zip(got.scores, golden["scores"], strict=True)
    )


async def _ask(child: Child, golden: Mapping[str, Any], *, stepwise: bool, most: int) -> str:
    options = Options(max_tokens=most, temperature=0.0, stepwise=stepwise)
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in golden["messages"]]
    try:
        async with aclosing(child.generate(messages, options)) as events:
            return "".join([event.text async for event in events if isinstance(event, Piece)])
    except EngineError as error:
        if error.retryable:
            raise
        raise NotReady(f"a probe failed: {error}") from error
