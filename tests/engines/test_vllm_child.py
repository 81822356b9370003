"""A version behind a vLLM server, which is played: what is asked, what is told, and how each failure looks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from engine_fakes import until
from fake_vllm import FakeVllm, write_tokenizer

from exporters.models import Confidence
from exporters.models.vocabulary import Vocabulary
from gateway.engines.errors import ContextTooLong, DecodeFailed, EngineError, InvalidRequest, QueueFull, WorkerGone
from gateway.engines.protocol import Assessed, Done, Event, Options, Piece, Started
from gateway.engines.vllm_child import Model, VllmChild
from gateway.engines.vllm_server import Server

MESSAGES = [{"role": "user", "content": "what colour?"}]


@pytest.fixture
async def fake() -> AsyncIterator[FakeVllm]:
    async with FakeVllm().running() as made:
        yield made


@pytest.fixture
async def child(fake: FakeVllm, tmp_path: Path) -> AsyncIterator[VllmChild]:
    write_tokenizer(tmp_path)
    server = await Server.find(fake.url)
    vocabulary = Vocabulary.load(tmp_path, lambda _: "")
    model = Model(name="v1", vocabulary=vocabulary, confidence=Confidence(), context_length=64)
    made = VllmChild(server, model, server.close)
    yield made
    await made.close()


async def ask(child: VllmChild, **options: Any) -> list[Event]:
    async with aclosing(child.generate(MESSAGES, Options(**options))) as events:
        return [event async for event in events]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


async def test_what_a_server_refuses_to_tell_is_told_with_its_reason_and_worth_another_try(
    child: VllmChild, fake: FakeVllm
) -> None:
    fake.tells = False
    server = await Server.find(fake.url)
    with pytest.raises(WorkerGone, match="/v1/models answered 500: it broke"):
        await server.models()
    await server.close()
    fake.refusal = 401, {"message": "not you"}
    with pytest.raises(WorkerGone, match="the server of this version answered 401"):
        await ask(child)
    fake.refusal = 429, {"message": "not now"}
    with pytest.raises(QueueFull):
        await ask(child)


async def test_an_answer_comes_as_from_any_other_runtime(child: VllmChild) -> None:
    events = await ask(child)
    assert events[0] == Started(id=1, prompt_tokens=3, queue_seconds=None)
    assert text(events) == "red as a rose"
    done = events[-1]
    assert isinstance(done, Done)
    assert (done.finish_reason, done.completion_tokens) == ("stop", 14)
    assert done.confidence == pytest.approx(0.7788, abs=1e-4), "exp(-0.25), the end token's among them"


async def test_what_a_request_asks_for_is_passed_on_in_vllms_words(child: VllmChild, fake: FakeVllm) -> None:
    await ask(child, max_tokens=5, temperature=0.7, top_p=0.9, seed=-4, stop=("rose", "x"), top_logprobs=2)
    await ask(child, max_tokens=500, temperature=1e-5, top_p=0.0)
    full, least = fake.bodies
    expected = {"max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "seed": -4, "stop": ["rose", "x"], "top_logprobs": 3}
    assert {name: full[name] for name in expected} == expected
    assert (least["temperature"], least["max_tokens"], "seed" in least, "stop" in least) == (0.0, 63, False, False)
    assert 0.0 < least["top_p"] < 1e-6, "vLLM refuses 0"
    assert (least["top_logprobs"], least["stream"], least["return_tokens_as_token_ids"]) == (0, True, True)


async def test_a_stop_string_ends_the_answer_and_what_vllm_would_say_behind_it_is_not_waited_for(
    child: VllmChild, fake: FakeVllm
) -> None:
    fake.pause = 0.05
    events = await ask(child, stop=("as",))
    assert text(events) == "red "
    assert isinstance(events[-1], Done)
    assert (events[-1].finish_reason, events[-1].completion_tokens) == ("stop", 6)
    await until(lambda: fake.left == 1, seconds=5)


async def test_reported_tokens_have_their_bytes_and_the_likeliest_alternatives(
    child: VllmChild, fake: FakeVllm
) -> None:
    fake.answer, fake.alternatives = "é".encode(), [(ord("e"), -0.1), (ord("x"), -3.0)]
    events = await ask(child, top_logprobs=2)
    assert text(events) == "é"
    [*tokens] = [token for event in events if isinstance(event, Piece) for token in event.tokens]
    assert [token.bytes for token in tokens] == [b"\xc3", b"\xa9"], "exactly, also of a part of a character"
    assert [(a.text, a.logprob) for a in tokens[0].top] == [("e", -0.1), ("�", -0.25)], "the chosen one was told first"


async def test_a_stream_is_assessed_before_its_first_byte(child: VllmChild, fake: FakeVllm) -> None:
    kinds = [type(event) for event in await ask(child, assess=True)]
    assert kinds[:3] == [Started, Assessed, Piece]


async def test_a_forced_answers_confidence_is_of_the_free_model(child: VllmChild, fake: FakeVllm) -> None:
    """vLLM tells the log probability of a token among those that the schema left: here -0.25, and freely -2."""
    events = await ask(child, schema='{"type": "object"}', top_logprobs=1)
    form = fake.bodies[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"]["type"] == "object"
    assert text(events) == "red as a rose"
    done = events[-1]
    assert isinstance(done, Done)
    assert done.confidence == pytest.approx(0.1353, abs=1e-4)
    first = next(event for event in events if isinstance(event, Piece)).tokens[0]
    assert (first.text, first.logprob, first.top[0].text) == ("r", -2.0, "!")


async def test_an_answer_that_was_cut_off_says_so(child: VllmChild) -> None:
    events = await ask(child, max_tokens=3)
    assert text(events) == "red"
    assert isinstance(events[-1], Done)
    assert events[-1].finish_reason == "length"


@pytest.mark.parametrize(
    ("refusal", "kind", "says"),
    [
        ((400, {"message": "maximum context length is 64", "param": "input_tokens"}), ContextTooLong, "is 64"),
        ((400, {"message": "top_k must be positive", "param": "top_k"}), InvalidRequest, "top_k must"),
        ((404, {"message": "The model `v1` does not exist."}), WorkerGone, "doesn't know it any more"),
        ((500, {"message": "EngineCore encountered an issue."}), WorkerGone, "has ended"),
        ((500, {"message": "a prompt: secret"}), DecodeFailed, "failed on this request"),
    ],
)
async def test_a_refusal_is_one_of_the_engines_own_errors(
    child: VllmChild, fake: FakeVllm, refusal: tuple[int, dict[str, Any]], kind: type[EngineError], says: str
) -> None:
    fake.refusal = refusal
    with pytest.raises(kind, match=says) as error:
        await ask(child)
    assert "secret" not in str(error.value)
    assert len(fake.bodies) == 1, "it was heard"


async def test_a_schema_that_cant_be_enforced_is_named(child: VllmChild, fake: FakeVllm) -> None:
    fake.refusal = (400, {"message": 'Grammar error: Unimplemented keys: ["not"]', "param": None})
    with pytest.raises(InvalidRequest, match="can't be enforced: Unimplemented keys") as error:
        await ask(child, schema='{"not": {}}')
    assert error.value.param == "response_format"


async def test_an_error_in_the_stream_is_told_without_what_vllm_says(child: VllmChild, fake: FakeVllm) -> None:
    fake.mode = "breaks"
    async with aclosing(child.generate(MESSAGES, Options())) as events:
        told = [await anext(events) for _ in range(4)]
        with pytest.raises(DecodeFailed) as error:
            await anext(events)
    assert text(told) == "red"
    assert "secret" not in str(error.value)


async def test_a_server_that_is_gone_in_the_middle_is_an_honest_error(child: VllmChild, fake: FakeVllm) -> None:
    fake.mode = "dies"
    with pytest.raises(WorkerGone):
        await ask(child)


async def test_a_client_that_leaves_ends_the_request_in_vllm(child: VllmChild, fake: FakeVllm) -> None:
    fake.pause = 0.1
    async with aclosing(child.generate(MESSAGES, Options())) as events:
        async for event in events:
            if isinstance(event, Piece):
                break
    await until(lambda: fake.left == 1, seconds=5)
    assert child.silent == 0.0, "nothing is due any more"


async def test_a_server_that_is_well_and_answers_nothing_is_silent(child: VllmChild, fake: FakeVllm) -> None:
    fake.mode = "hangs"
    asked = asyncio.create_task(ask(child))
    await until(lambda: child.silent > 0.3, seconds=5)
    assert not child.gone.is_set(), "its health is good"
    child.kill()
    await asyncio.wait_for(child.gone.wait(), 5)
    assert child.ending == "it answered nothing"
    with pytest.raises(WorkerGone):
        await asyncio.wait_for(asked, 5)
    with pytest.raises(WorkerGone):
        await ask(child)


async def test_a_server_that_hangs_is_silent_also_where_everybody_gives_up_soon(
    child: VllmChild, fake: FakeVllm
) -> None:
    fake.mode = "hangs"
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(child), 0.2)
    assert child.silent > 0.3, "since the first gave up"
    assert len(fake.bodies) == 4, "three, and one that waits"
    child.kill()
    await asyncio.wait_for(child.gone.wait(), 5)


async def test_a_server_whose_answer_nobody_reads_is_not_silent(child: VllmChild) -> None:
    async with aclosing(child.generate(MESSAGES, Options())) as events:
        await anext(events)
        assert child.silent == 0.0


async def test_a_server_that_has_forgotten_the_version_is_gone_for_it(child: VllmChild, fake: FakeVllm) -> None:
    fake.refusal = (404, {"message": "The model `v1` does not exist."})
    with pytest.raises(WorkerGone):
        await ask(child)
    assert child.gone.is_set(), "its health is good, and it is loaded anew"


async def test_a_server_that_was_given_up_too_soon_is_well(child: VllmChild, fake: FakeVllm) -> None:
    fake.wait = 0.3
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(child), 0.1)
    assert child.silent > 0.0
    await until(lambda: child.silent == 0.0, seconds=5)
    assert fake.bodies[-1]["max_tokens"] == 1
    assert text(await ask(child)) == "red as a rose"


async def test_a_found_server_that_is_no_longer_well_is_gone(child: VllmChild, fake: FakeVllm) -> None:
    fake.health = 503
    await asyncio.wait_for(child.gone.wait(), 10)
    assert child.ending == "it was no longer well"


async def test_closing_cuts_what_is_still_asked(child: VllmChild, fake: FakeVllm) -> None:
    fake.mode = "hangs"
    asked = asyncio.create_task(ask(child))
    await until(lambda: len(fake.bodies) == 1, seconds=5)
    await child.close()
    with pytest.raises(WorkerGone):
        await asyncio.wait_for(asked, 5)
    assert child.gone.is_set()
