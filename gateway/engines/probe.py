"""Is a loaded version what its manifest says? Real generations, before any request reaches it.

A golden entry that holds the log probabilities of its answer's tokens (natural, greedy, temperature 1) allows for other
kernels than those that recorded it: each token may be less or more likely by TOLERANCE, and where another token was
within TOLERANCE of the recorded one, either may come; from there on answers go separate ways, and the rest is not
compared. Wrong weights are off by more, at once or soon. Of SmolLM2's answers (152 tokens) bfloat16 moved half by less
than 0.02 and none by more than 0.12. A student that thinks, or that chooses, must give its answer letter by letter: no
tokens of a thinking, or of a choice, are told.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from exporters.models import CLOSED, Manifest
from gateway.engines.child import Child
from gateway.engines.errors import DecodeFailed, InvalidRequest, NotReady
from gateway.engines.instance import Instance
from gateway.engines.probe_encoder import probe_encoder
from gateway.engines.protocol import Options, Piece, Token
from gateway.engines.text import Characters

TOLERANCE = 0.35  # nats
_ALTERNATIVES = 20


async def probe(child: Instance, manifest: Manifest) -> None:
    """Ask for every golden answer, and at least for one answer at all. Raises NotReady, DecodeFailed, WorkerGone.

    An answer where the student differs from its base must not be the base's.
    """
    if isinstance(child, Child) and child.loaded.does != "generate":
        await probe_encoder(child, manifest)
        return
    if not manifest.golden:
        anything = {"messages": [{"role": "user", "content": "Are you ready?"}], "max_tokens": 4}
        await _ask(child, anything)
    for number, golden in enumerate(manifest.golden):
        told = manifest.runtime != CLOSED and bool(golden.get("logprobs"))
        got = await _ask(child, golden, top=_ALTERNATIVES if told else None)
        wrong = _wrong(got, golden)
        base = golden.get("base_answer")
        if wrong is None and base not in (None, golden["answer"]) and got.text == base:
            wrong = "is the one of the student's base"
        if wrong is not None:
            raise NotReady(  # without the texts: this reason goes into the log that holds none
                f"golden answer {number} of {manifest.id} {wrong}; "
                "the artefact, or the runtime that loaded it, is not the one that was exported"
            )


class _Got(msgspec.Struct):
    text: str = ""
    tokens: list[Token] = []
    thought: bool = False


async def _ask(child: Instance, golden: Mapping[str, Any], *, top: int | None = None) -> _Got:
    options = Options(max_tokens=int(golden["max_tokens"]), temperature=0.0, top_logprobs=top)
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in golden["messages"]]
    got = _Got()
    try:
        async with aclosing(child.generate(messages, options)) as events:
            async for event in events:
                if isinstance(event, Piece):
                    got.text += event.text
                    got.tokens += event.tokens
                    got.thought = got.thought or bool(event.reasoning)
    except DecodeFailed as error:
        raise DecodeFailed(f"a probe failed: {error}") from error
    except InvalidRequest as error:
        raise NotReady(f"a probe failed: {error}") from error
    return got


def _wrong(got: _Got, golden: Mapping[str, Any]) -> str | None:
    """What is wrong with an answer, in words; None where it is the golden one."""
    answer, recorded = str(golden["answer"]), [float(p) for p in golden.get("logprobs") or ()]
    same = got.text == answer
    if not got.tokens or got.thought:
        at = next((i for i, (a, b) in enumerate(zip(got.text, answer, strict=False)) if a != b), None)
        shorter = min(len(got.text), len(answer))
        return None if same else f"comes out different from character {shorter if at is None else at} on"
    if not same:
        return _unlikely(got.tokens, answer, recorded)
    for at, (token, expected) in enumerate(zip(got.tokens, recorded, strict=False)):
        if abs(token.logprob - expected) > TOLERANCE:
            return _off(at, token.logprob, expected)
    return None


def _unlikely(tokens: Sequence[Token], answer: str, recorded: Sequence[float]) -> str | None:
    """Compare the tokens of another answer with the recorded ones, up to where it leaves them."""
    said = b""

    def goes_on(data: bytes) -> bool:  # a part of a character may be that of any
        return bool(data) and answer.startswith(Characters().feed(said + data))

    for at, (token, expected) in enumerate(zip(tokens, recorded, strict=False)):
        ended = len(Characters().feed(said)) == len(answer)
        if goes_on(token.bytes) and not ended:
            if abs(token.logprob - expected) > TOLERANCE:
                return _off(at, token.logprob, expected)
            said += token.bytes
            continue
        # Another token than the recorded one, which is among the likeliest then; an end has no text to know it by.
        others = [one for one in token.top if one.bytes != token.bytes]
        known = [one.logprob for one in others if ended or goes_on(one.bytes)]
        near = min(known, key=lambda logprob: abs(logprob - expected), default=-math.inf)
        if abs(near - expected) > TOLERANCE:
            return _off(at, near, expected)
        return f"has another token {at}, by {token.logprob - near:.2f}" if token.logprob - near > TOLERANCE else None
    if len(tokens) > len(recorded):
        return f"goes on behind token {len(recorded)}"
    short = len(Characters().feed(said)) < len(answer) and len(tokens) < len(recorded)
    if short and recorded[len(tokens)] > math.log(0.5) + TOLERANCE:
        return f"ends before token {len(tokens)}"  # which was likelier by more than the tolerance
    return None


def _off(at: int, found: float, expected: float) -> str:
    return f"has token {at} with a log probability of {found:.2f}, recorded was {expected:.2f}"
