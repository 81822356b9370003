"""Is a loaded version what its manifest says? Real generations, before any request reaches it."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from exporters.models import Manifest
from gateway.engines.child import Child
from gateway.engines.errors import EngineError, NotReady
from gateway.engines.protocol import Options, Piece


async def probe(child: Child, manifest: Manifest) -> None:
    """Ask for every golden answer, and at least for one answer at all. Raises NotReady, WorkerGone."""
    if not manifest.golden:
        await _ask(child, {"messages": [{"role": "user", "content": "Are you ready?"}]}, most=4)
    for number, golden in enumerate(manifest.golden):
        most = int(golden["max_tokens"])
        got = await _ask(child, golden, most=most)
        if got != golden["answer"]:
            pairs = zip(got, golden["answer"], strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got), len(golden["answer"])))
            raise NotReady(  # without the texts: this reason goes into the log that holds none
                f"golden answer {number} of {manifest.id} comes out different from character {same} on; "
                "the artefact, or the runtime that loaded it, is not the one that was exported"
            )


async def _ask(child: Child, golden: Mapping[str, Any], *, most: int) -> str:
    options = Options(max_tokens=most, temperature=0.0)
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in golden["messages"]]
    try:
        async with aclosing(child.generate(messages, options)) as events:
            return "".join([event.text async for event in events if isinstance(event, Piece)])
    except EngineError as error:
        if error.retryable:
            raise
        raise NotReady(f"a probe failed: {error}") from error
