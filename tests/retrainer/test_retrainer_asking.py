"""What an evaluation asks of the gateway, with the gateway's place taken by a function."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from retrainer_fakes import CountedLog, example, fill, interaction, teacher

from collector import LATEST, Interactions, Stream, open_subjects
from collector.errors import JudgeFailed
from collector.judge import PLAINLY
from exporters.models.processors import processors
from retrainer.data.curate import Example
from retrainer.evaluation.asking import Gateway, judged_pairs, teacher_again
from retrainer.evaluation.cost import USD_PER_PROCESSOR_HOUR, costs
from retrainer.evaluation.grounded import context_of, grounded
from retrainer.evaluation.latency import Latency
from retrainer.scoring import scorer
from router.config import Config
from router.policy_gate import GatePolicy
from router.policy_quality import JudgePolicy
from router.scores import asked

LATENCY = Latency(n=20, p50=360.0, p95=720.0, p99=720.0, first_p95=90.0)
JUDGE = JudgePolicy(route="judge")
CONFIG = {"upstreams": {"up": {"base_url": "http://127.0.0.1:1/v1", "api_key": "k"}}, "routes": {}}


class Says:
    """Replies by what stands in the task or the request; a reply that isn't given fails."""

    def __init__(self, replies: Mapping[str, str]) -> None:
        self._replies = replies
        self.parameters: list[Mapping[str, Any]] = []

    async def __call__(
        self, route: str, messages: Sequence[Mapping[str, str]], *, parameters: Mapping[str, Any] = PLAINLY
    ) -> str:
        self.parameters.append(parameters)
        whole = "\n".join(m["content"] for m in messages)
        for key, reply in self._replies.items():
            if key in whole:
                return reply
        raise JudgeFailed("http_5xx")


def gateway(replies: Mapping[str, str]) -> Gateway:
    return Gateway(Config.model_validate(CONFIG), Says(replies))


def test_the_teacher_is_scored_on_what_it_answers_again_and_silence_lowers_nothing() -> None:
    judged = [example(n) for n in range(3)]
    said = {judged[0].messages[-1]["content"]: judged[0].answer, judged[1].messages[-1]["content"]: '{"colour": null}'}
    report = teacher_again(gateway(said), "again", judged, scorer("json_fields", "."))
    assert report is not None
    assert (report.n, report.agreement) == (2, 0.5)
    assert teacher_again(gateway({}), "again", judged, scorer("json_fields", ".")) is None


def test_the_teacher_is_asked_again_for_what_the_request_asked_for() -> None:
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
    shapes = [
        None,
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    ]
    judged = [msgspec.structs.replace(example(n), asked=asked({"response_format": s})) for n, s in enumerate(shapes)]
    judged[1] = msgspec.structs.replace(judged[1], sampling={"temperature": 0.0, "max_tokens": 9})
    says = Says({e.messages[-1]["content"]: e.answer for e in judged})
    again = Gateway(Config.model_validate(CONFIG), says)
    report = teacher_again(again, "again", judged, scorer("json_fields", "."))
    assert report is not None
    assert says.parameters == [
        {},
        {"temperature": 0.0, "max_tokens": 9, "response_format": shapes[1]},
        {"response_format": shapes[2]},
    ]


def test_where_the_gateway_is_on_a_port_that_only_it_knows_nothing_is_asked() -> None:
    config = Config.model_validate({**CONFIG, "listen": "127.0.0.1:0"})
    assert Gateway(config).answers("again", [[{"role": "user", "content": "x"}]]) == [None]


def test_the_judges_word_is_a_metric_and_its_failures_are_counted() -> None:
    judged = [example(n) for n in range(4)]
    said = {f'"A": "better {n}"': '{"verdict": "A"}' for n in (0, 1)} | {
        f'"B": "better {n}"': '{"verdict": "B"}' for n in (0, 1)
    }
    answers = ["better 0", "better 1", judged[2].answer, "worse"]
    found = judged_pairs(gateway(said), "r", JUDGE, judged, answers)
    assert (found.metrics["judge"].value, found.metrics["judge"].n) == (pytest.approx(2.5 / 3), 3)  # equal: a tie
    assert found.failed == {"http_5xx": 1}


def grounding(text: str, answer: str) -> Example:
    return example(1, text=text, answer=answer)


def test_groundedness_is_by_the_definitions_of_ragas() -> None:
    record = grounding("Context: Lamps cost 9 EUR.\nQuestion: What does a lamp cost?", "The teacher says 9 EUR.")
    statements = [{"statement": "9", "supported": True}, {"statement": "blue", "supported": False}]
    theirs = [{"statement": "9", "supported": True}]
    replies = {
        "The teacher says": json.dumps({"statements": theirs}),
        "single statements": f"Let me see {{1}}: {json.dumps({'statements': statements})}",
        "questions that": json.dumps({"questions": ["near", "far"], "evades": False}),
    }

    def similarity(a: str, b: str) -> float:
        assert a == "Question: What does a lamp cost?"
        return {"near": 0.9, "far": 0.3}[b]

    students = {"quantized": ["9 EUR, and blue", "-"]}
    found = grounded(gateway(replies), JUDGE, [record, example(2)], students, similarity)
    values = {name: round(m.value, 6) for name, m in found["quantized"].metrics.items()}
    assert values == {"faithfulness": 0.5, "hallucination": 1.0, "context_recall": 1.0, "answer_relevance": 0.6}
    assert found["quantized"].metrics["faithfulness"].n == 1  # the other brings no context
    assert {name: m.value for name, m in found["teacher"].metrics.items()} == {
        "faithfulness": 1.0,
        "hallucination": 0.0,
    }


def test_an_answer_that_evades_is_irrelevant_and_an_unreadable_reply_says_nothing() -> None:
    record = grounding("<context>Lamps cost 9 EUR.</context> What does a lamp cost?", "9 EUR")
    replies = {"questions that": '{"questions": ["x"], "evades": true}', "single statements": "They are fine."}
    found = grounded(gateway(replies), JUDGE, [record], {"quantized": ["I don't know"]}, lambda a, b: 1.0)
    for name in ("quantized", "teacher"):
        assert {metric: m.value for metric, m in found[name].metrics.items()} == {"answer_relevance": 0.0}
        assert found[name].failed == {"unparsed": 1}


@pytest.mark.parametrize(
    ("text", "context", "request_"),
    [
        ("## Documents:\na\nb\n## Question: c?", "a\nb", "## Question: c?"),
        ("<document>a</document><document>b</document> c?", "a\nb", "c?"),
        ("Context: a", "a", "Context: a"),
    ],
)
def test_a_context_is_told_by_its_tags_or_its_heading(text: str, context: str, request_: str) -> None:
    assert context_of([{"role": "user", "content": text}]) == (context, request_)


def test_a_request_without_documents_brings_no_context() -> None:
    assert context_of([{"role": "user", "content": "In this context: what is a lamp, and the context of it?"}]) is None


def test_prices_are_the_logs_own_and_an_unknown_one_is_not_free(log: CountedLog) -> None:
    def priced(n: int, **changes: object) -> object:
        return interaction(n, answers=(teacher("x", cost_usd=0.002),), **changes)

    fill(log, [priced(0, at=0.0), priced(1, at=300.0), priced(2, at=600.0), priced(3, at=1e6, source="stored")])  # type: ignore[list-item]
    interactions = Interactions(log, open_subjects("sqlite:///:memory:"))
    own = GatePolicy(student_usd_per_1000=0.4, student_usd_per_month=8.64)
    found = costs(interactions, "colours", own, LATENCY)
    assert found.teacher == pytest.approx(0.002)
    assert found.student == pytest.approx(0.0004 + 8.64 * 300 / (30 * 86400))  # one request in 300 s
    assert found.saving() == pytest.approx(1 - found.student / 0.002)
    nothing = costs(interactions, "other", GatePolicy(student_usd_per_month=1.0), LATENCY)
    assert (nothing.teacher, nothing.student, nothing.saving()) == (None, None, None)


class Long(CountedLog):
    """So many offsets long that only the last two are among the latest."""

    def end(self, stream: Stream, *, key: str) -> int:
        return super().end(stream, key=key) - 2 + LATEST


def test_prices_are_of_the_latest_records_alone() -> None:
    log = Long()
    prices = (0.9, 0.9, 0.002, 0.004)
    fill(log, [interaction(n, answers=(teacher("x", cost_usd=usd),)) for n, usd in enumerate(prices)])
    found = costs(Interactions(log, open_subjects("sqlite:///:memory:")), "colours", GatePolicy(), LATENCY)
    assert found.teacher == pytest.approx(0.003)


def test_without_an_operators_price_a_student_costs_the_time_of_its_answers(log: CountedLog) -> None:
    interactions = Interactions(log, open_subjects("sqlite:///:memory:"))

    def price(latency: Latency | None, **gate: float) -> float | None:
        return costs(interactions, "colours", GatePolicy(**gate), latency).student

    assert price(LATENCY) == pytest.approx(USD_PER_PROCESSOR_HOUR * processors() / 10_000)  # 360 ms of an hour
    assert price(LATENCY, student_usd_per_hour=2.0) == pytest.approx(0.0002)
    assert price(LATENCY, student_usd_per_hour=2.0, student_usd_per_1000=1.0) == pytest.approx(0.0012)
    assert price(LATENCY, student_usd_per_1000=1.0) == pytest.approx(0.001), "the operator's own is all"
    assert price(LATENCY, student_usd_per_hour=0.0) == 0.0
    assert price(None) is None
    assert price(None, student_usd_per_1000=1.0) == pytest.approx(0.001)
