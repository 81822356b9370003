"""The judge: both orders, no default, bounded."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import pytest
from collector_fakes import answer, call, exchange, question, sealing

from collector import Exchange, JudgeFailed, Overloaded
from collector.assemble import Assembler
from collector.judge import GatewayClient, Judge, Verdict, gateway_url, verdict
from collector.pairs import pairs
from collector.parse import completion
from collector.quality import Quality
from router import Arm, Asked, Config, Events, JudgePolicy, Observation, decode_evidence, parse

POLICY = JudgePolicy(route="judge", concurrency=2)
CONFIG = parse(
    """
    upstreams: {openai: {base_url: "http://x", api_key: sk-judge, distillation_allowed: true}}
    engines: {local: {}}
    routes:
      support:
        teachers: [openai/gpt-4o]
        student: {}
        capture: {rate: 1.0}
        quality: {score: exact, reference: judge, judge: {route: judge}}
      judge: {teachers: [openai/gpt-4o], capture: {rate: 0}}
    """,
    {},
)


def text(value: str) -> dict[str, Any]:
    return {"role": "assistant", "content": value}


class Asked2:
    """Replies by what is A and what is B."""

    def __init__(self, reply: Callable[[Any, Any], str]) -> None:
        self.reply = reply
        self.seen: list[dict[str, Any]] = []
        self.routes: list[str] = []
        self.now = self.most = 0
        self.let = asyncio.Event()
        self.let.set()

    async def __call__(self, route: str, messages: Sequence[Mapping[str, str]]) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.let.wait()
            material = json.loads(messages[-1]["content"])
            self.seen.append(material)
            self.routes.append(route)
            return self.reply(material["A"], material["B"])
        finally:
            self.now -= 1


def prefers(better: str) -> Callable[[Any, Any], str]:
    return lambda a, b: json.dumps({"verdict": "A" if a == better else "B" if b == better else "tie"})


async def judged(judge: Judge, student: str, teacher: str, **request: Any) -> float:
    return await judge.value(
        "support", POLICY, request={"messages": ["q"], **request}, student=text(student), teacher=text(teacher)
    )


async def test_a_win_counts_where_both_orders_agree() -> None:
    ask = Asked2(prefers("good"))
    assert await judged(Judge(ask), "good", "bad") == 1.0
    assert await judged(Judge(ask), "bad", "good") == 0.0
    assert [(m["A"], m["B"]) for m in ask.seen[:2]] == [("good", "bad"), ("bad", "good")]
    assert set(ask.routes) == {"judge"}


@pytest.mark.parametrize("reply", ['{"verdict": "A"}', '{"verdict": "B"}', '{"verdict": "tie"}'])
async def test_a_judge_that_goes_by_the_order_alone_makes_ties(reply: str) -> None:
    assert await judged(Judge(Asked2(lambda a, b: reply)), "one", "other") == 0.5


async def test_a_win_and_a_tie_are_a_tie() -> None:
    ask = Asked2(lambda a, b: '{"verdict": "A"}' if a == "mine" else '{"verdict": "tie"}')
    assert await judged(Judge(ask), "mine", "yours") == 0.5


async def test_equal_answers_are_a_tie_unasked_and_a_pair_is_asked_once() -> None:
    ask = Asked2(prefers("good"))
    judge = Judge(ask)
    assert await judged(judge, "same ", "same") == 0.5
    assert ask.seen == []
    for _ in range(3):
        assert await judged(judge, "good", "bad") == 1.0
    assert len(ask.seen) == 2
    await judged(judge, "good", "bad", tools=[{"type": "function"}])  # another request
    await judged(judge, "bad", "good")  # other answers
    assert len(ask.seen) == 6


async def test_a_reply_without_a_verdict_is_no_verdict_and_is_not_remembered() -> None:
    replies = iter(["I can't say", '{"verdict": "A"}', '{"verdict": "A"}', '{"verdict": "B"}'])
    judge = Judge(Asked2(lambda a, b: next(replies)))
    with pytest.raises(JudgeFailed) as failed:
        await judged(judge, "one", "other")
    assert failed.value.reason == "unparsed"
    assert await judged(judge, "one", "other") == 1.0


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"verdict": "A"}', Verdict.A),
        ('thinking {"verdict": "A"} no: ```json\n{"verdict": " TIE "}\n```', Verdict.TIE),
        ('{"verdict": "b", "why": "x"} {broken}', Verdict.B),
    ],
)
def test_the_last_verdict_of_a_reply_counts(reply: str, expected: Verdict) -> None:
    assert verdict(reply) is expected


@pytest.mark.parametrize("reply", ["", "A", '{"verdict": "C"}', '{"winner": "A"}', '{"verdict": null}', "[1]", "{}"])
def test_what_names_no_verdict_is_none(reply: str) -> None:
    with pytest.raises(JudgeFailed):
        verdict(reply)


async def test_no_more_calls_run_at_once_than_the_policy_allows_and_no_more_pairs_wait() -> None:
    ask = Asked2(prefers("s0"))
    ask.let.clear()
    judge = Judge(ask, most_waiting=2)
    waiting = [asyncio.create_task(judged(judge, f"s{n}", f"t{n}")) for n in range(4)]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await judged(judge, "one too", "many")
    ask.let.set()
    assert await asyncio.gather(*waiting) == [1.0, 0.5, 0.5, 0.5]
    assert ask.most == 2
    assert await judged(judge, "s0", "again") == 1.0  # there is room again


async def test_a_judge_that_takes_too_long_gives_no_verdict() -> None:
    ask = Asked2(prefers("a"))
    ask.let.clear()
    judge = Judge(ask, seconds=0.02)
    with pytest.raises(JudgeFailed) as failed:
        await judged(judge, "a", "b")
    assert failed.value.reason == "timeout"
    ask.let.set()
    assert await judged(judge, "a", "b") == 1.0


async def test_a_question_too_long_is_not_asked() -> None:
    ask = Asked2(prefers("a"))
    with pytest.raises(JudgeFailed) as failed:
        await judged(Judge(ask), "a" * 150_000, "b" * 150_000)
    assert failed.value.reason == "too_long"
    assert ask.seen == []


async def test_the_gateway_is_asked_for_the_judges_route_and_its_failures_are_named() -> None:
    got: list[httpx.Request] = []
    replies = {
        "ok": httpx.Response(200, json={"choices": [{"message": text("fine")}]}),
        "down": httpx.Response(503, text="no"),
        "junk": httpx.Response(200, text="<html>"),
        "none": httpx.Response(200, json={"choices": []}),
        "odd": httpx.Response(200, json=[1]),
    }

    def reply(request: httpx.Request) -> httpx.Response:
        got.append(request)
        model = json.loads(request.content)["model"]
        if model == "slow":
            raise httpx.ReadTimeout("slow")
        if model == "gone":
            raise httpx.ConnectError("gone")
        return replies[model]

    client = GatewayClient("http://127.0.0.1:8080", transport=httpx.MockTransport(reply))
    assert await client("ok", [{"role": "user", "content": "q"}]) == "fine"
    assert str(got[0].url) == "http://127.0.0.1:8080/v1/chat/completions"
    assert json.loads(got[0].content) == {"model": "ok", "messages": [{"role": "user", "content": "q"}]}
    assert got[0].headers["x-retort-consent"] == "no"
    for model, reason in {
        "down": "http_5xx", "junk": "no_completion", "none": "no_completion", "odd": "no_completion",
        "slow": "timeout", "gone": "unreachable",
    }.items():  # fmt: skip
        with pytest.raises(JudgeFailed) as failed:
            await client(model, [])
        assert failed.value.reason == reason
    await client.close()


def test_the_gateways_place_is_the_configured_one_and_must_be_known() -> None:
    assert gateway_url(CONFIG) == "http://127.0.0.1:8080"
    hidden = CONFIG.model_copy(update={"listen": "127.0.0.1:0"})
    with pytest.raises(Exception, match="write the port"):
        gateway_url(hidden)


class Heard(Events):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.subscribe(lambda name, fields: self.told.append((name, fields)))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [fields for told, fields in self.told if told == name]


def shadowed(student: bytes, teacher: bytes) -> tuple[Exchange, bytes]:
    asking = question("what?")
    made = exchange(
        request=asking, served=call(Arm.TEACHER, teacher), shadows=[call(Arm.STUDENT, student)], capture=False
    )
    return made, asking + teacher + student


async def quality(student: bytes, teacher: bytes, judge: Judge, heard: Heard) -> list[Observation]:
    from collector_fakes import PlainPool

    assembler = Assembler(CONFIG, PlainPool(), heard, sealing=sealing(), quality=Quality(heard, judge=judge))
    made = assembler.begin(*shadowed(student, teacher))
    assert not any(":quality:" in record.id for _, record in made.now), "it waits for no judge"
    (later,) = made.later
    found = [decode_evidence(record.value) for _, record in await later]
    assert all(isinstance(one, Observation) for one in found)
    return found  # type: ignore[return-value]


async def test_a_judged_pair_is_plus_one_nothing_or_minus_one() -> None:
    heard, judge = Heard(), Judge(Asked2(prefers("good")))
    for student, teacher, expected in (
        ("good", "bad", (1.0, 0.0)),
        ("bad", "good", (0.0, 1.0)),
        ("x", "y", (0.5, 0.5)),
    ):
        (found,) = await quality(answer(student), answer(teacher), judge, heard)
        assert (found.value, found.pair_value) == expected
        assert found.id == "x0:quality:v1"
    assert [fields["score"] for fields in heard.of("collector.pair")] == [1.0, 0.0, 0.5]


async def test_a_bad_answer_loses_unasked() -> None:
    ask = Asked2(prefers(""))
    (found,) = await quality(answer("half an ans", finish="length"), answer("whole"), Judge(ask), Heard())
    assert (found.value, found.pair_value) == (0.0, 1.0)
    (unread,) = await quality(b"junk", answer("whole"), Judge(ask), Heard())
    assert (unread.value, unread.pair_value) == (0.0, 1.0)
    assert ask.seen == []


async def test_without_a_verdict_there_is_no_observation_but_a_count() -> None:
    heard = Heard()
    assert await quality(answer("a"), answer("b"), Judge(Asked2(lambda a, b: "hm")), heard) == []
    assert heard.of("collector.pair_lost") == [{"route": "support", "reason": "judge_unparsed"}]
    assert heard.of("collector.pair") == []


async def test_a_judge_that_breaks_down_costs_its_pair_alone(caplog: pytest.LogCaptureFixture) -> None:
    def broken(a: Any, b: Any) -> str:
        raise RuntimeError(f"SECRET {a}")

    heard = Heard()
    assert await quality(answer("a"), answer("b"), Judge(Asked2(broken)), heard) == []
    assert heard.of("collector.pair_lost") == [{"route": "support", "reason": "error"}]
    assert "SECRET" not in caplog.text


def test_a_pair_of_a_judged_route_is_one_of_the_same_pairs() -> None:
    made, _ = shadowed(answer("a"), answer("b"))
    answers = [(made.served, completion(answer("b"))), (made.shadows[0], completion(answer("a")))]
    assert len(pairs(made, answers, config_policy(CONFIG), Asked())) == 1


def config_policy(config: Config) -> Any:
    return config.routes["support"]
