"""Golden answers: what other kernels may change, and what only other weights do."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from exporters.models import GENAI, Manifest
from gateway.engines.errors import DecodeFailed, EngineError, InvalidRequest, NotReady
from gateway.engines.probe import TOLERANCE, probe
from gateway.engines.protocol import Alternative, Done, Event, Options, Piece, Started, Token

Step = tuple[str, float, dict[str, float]]  # a token, its log probability, its alternatives


class Scripted:
    """Answers every prompt by the same tokens."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.asked: list[Options] = []

    async def generate(self, messages: Sequence[dict[str, str]], options: Options) -> AsyncGenerator[Event, None]:
        self.asked.append(options)
        yield Started(id=1, prompt_tokens=1, queue_seconds=0.0)
        for text, logprob, top in self.steps:
            alternatives = tuple(Alternative(t, t.encode(), p) for t, p in {text: logprob, **top}.items())
            told = (Token(0, text, text.encode(), logprob, alternatives),) if options.top_logprobs else ()
            yield Piece(id=1, text=text, tokens=told)
        yield Done(id=1, finish_reason="stop", completion_tokens=len(self.steps) + 1, confidence=1.0)


RED: tuple[Step, ...] = (("re", -0.1, {"gr": -2.5}), ("d", -0.02, {"al": -4.0}))
RECORDED = [-0.1, -0.02, -0.01]


def golden(answer: str = "red", logprobs: list[float] | None = None, base: str | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}], "answer": answer, "max_tokens": 8}
    return entry | ({} if logprobs is None else {"logprobs": logprobs}) | {"base_answer": base}


async def proven(child: Scripted, *entries: dict[str, Any]) -> str:
    """ "" where the probe is passed, else why not."""
    manifest = Manifest(
        id="v1",
        route="support",
        kind="chat",
        runtime=GENAI,
        base="tiny",
        base_revision="0",
        quantization="int8",
        created_at=1.0,
        files={},
        golden=list(entries),
    )
    try:
        await probe(child, manifest)  # type: ignore[arg-type]
    except NotReady as error:
        return str(error)
    return ""


class Refusing(Scripted):
    """Answers nothing."""

    def __init__(self, error: EngineError) -> None:
        super().__init__(())
        self.error = error

    async def generate(self, messages: Sequence[dict[str, str]], options: Options) -> AsyncGenerator[Event, None]:
        raise self.error
        yield


async def test_a_question_that_is_refused_is_the_versions_fault_and_a_pass_that_breaks_off_may_not_be() -> None:
    assert "a probe failed: its template" in await proven(Refusing(InvalidRequest("its template")), golden())
    with pytest.raises(DecodeFailed, match="a probe failed: The runtime failed"):
        await proven(Refusing(DecodeFailed()), golden())


async def test_without_log_probabilities_the_text_must_be_the_same() -> None:
    assert not await proven(Scripted(RED), golden())
    assert "comes out different from character 0 on" in await proven(Scripted(RED), golden("green"))
    assert "comes out different from character 3 on" in await proven(Scripted(RED), golden("reds"))


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        (RED, ""),
        ((("re", -0.3, {}), ("d", -0.2, {})), ""),
        ((("re", -0.5, {}), ("d", -0.02, {})), "has token 0 with a log probability of -0.50, recorded was -0.10"),
        ((("re", -0.1, {}), ("d", -0.5, {})), "has token 1 with a log probability of -0.50"),
        ((("gr", -0.1, {"re": -2.5}), ("een", -0.1, {})), "has token 0 with a log probability of -2.50"),
        ((("gr", -0.1, {}), ("een", -0.1, {})), "has token 0 with a log probability of -inf"),
        ((("re", -0.1, {}),), "ends before token 1"),
        ((*RED, ("dish", -0.1, {}), ("!", -0.1, {})), "has token 2 with a log probability of -inf"),
        ((*RED, ("dish", -0.1, {"<end>": -2.0})), "has token 2 with a log probability of"),
    ],
)
async def test_recorded_log_probabilities_must_come_within_the_tolerance(steps: Sequence[Step], wrong: str) -> None:
    found = await proven(Scripted(steps), golden(logprobs=RECORDED))
    assert wrong in found if wrong else not found
    assert "red" not in found, "the text is not told"


async def test_a_near_tie_may_break_the_other_way_and_the_rest_is_another_answer() -> None:
    recorded = [-0.65, -0.02, -0.01]
    near: tuple[Step, ...] = (("gr", -0.6, {"re": -0.8}), ("een", -0.1, {}))
    assert not await proven(Scripted(near), golden(logprobs=recorded))
    far: tuple[Step, ...] = (("gr", -0.45, {"re": -0.98}), ("een", -0.1, {}))
    assert f"has another token 0, by {0.53:.2f}" in await proven(Scripted(far), golden(logprobs=recorded))
    assert TOLERANCE < 0.53
    other: tuple[Step, ...] = (("gr", -0.6, {"bl": -0.8}), ("een", -0.1, {}))
    assert "goes on behind token 1" in await proven(Scripted(RED), golden("re", logprobs=[-0.1]))
    assert "-inf" in await proven(Scripted(other), golden(logprobs=recorded)), "the recorded one is not among the ties"


async def test_characters_may_span_tokens_and_be_cut_off() -> None:
    class Bytes(Scripted):
        async def generate(self, messages: Sequence[dict[str, str]], options: Options) -> AsyncGenerator[Event, None]:
            tokens = tuple(Token(0, "?", data, -0.1) for data in (b"\xc3", b"\xa9", b"\xff", b"x", b"\xc3"))
            yield Piece(id=1, text="é\ufffdx\ufffd", tokens=tokens)
            yield Done(id=1, finish_reason="length", completion_tokens=5, confidence=1.0)

    entry = golden("é\ufffdx\ufffd", logprobs=[-0.1] * 5)
    assert not await proven(Bytes(RED), entry)
    assert "has token 1" in await proven(Bytes(RED), entry | {"answer": "èx"})


async def test_where_the_student_differs_from_its_base_the_bases_answer_fails() -> None:
    """An adapter that isn't applied: also where the two are a near tie apart."""
    near: tuple[Step, ...] = (("gr", -0.6, {"re": -0.8}), ("een", -0.1, {}))
    entry = golden(logprobs=[-0.65, -0.02, -0.01], base="green")
    assert "is the one of the student's base" in await proven(Scripted(near), entry)
    assert not await proven(Scripted(RED), golden(logprobs=RECORDED, base="red")), "there they say the same"


async def test_every_entry_counts_and_without_any_one_answer_is_asked_for() -> None:
    assert "golden answer 1 of v1" in await proven(Scripted(RED), golden(), golden("green"))
    child = Scripted(RED)
    assert not await proven(child)
    assert len(child.asked) == 1
