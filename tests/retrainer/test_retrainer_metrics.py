import json

import msgspec
import pytest
from retrainer_fakes import example

from exporters.models import Generated
from retrainer.evaluation.calibrate import quality
from retrainer.evaluation.evaluate import evaluate
from retrainer.evaluation.latency import measure_latency
from retrainer.evaluation.metrics import bootstrap, metrics
from retrainer.evaluation.text_calls import calls_in_text
from retrainer.scoring import scorer
from router.scores import Asked

CALL = {"name": "refund", "arguments": {"order": 7}}


def test_records_of_one_group_are_drawn_together_so_that_they_count_as_one() -> None:
    values = [1.0] * 50 + [0.0] * 50
    alone = bootstrap(values, [str(n) for n in range(100)])
    pairs = bootstrap(values, ["right"] * 50 + ["wrong"] * 50)
    assert alone.value == pairs.value == 0.5
    assert 0.39 < alone.lower < 0.42
    assert 0.58 < alone.upper < 0.61
    assert (pairs.lower, pairs.upper, pairs.groups) == (0.0, 1.0, 2)
    assert bootstrap(values, [str(n) for n in range(100)]) == alone  # the same at each call


def test_the_table_has_each_fields_f1_and_leaves_out_what_no_reference_holds() -> None:
    wanted = [{"item": "lamp", "tags": ["a", "b"]}, {"item": "door", "tags": ["c"]}]
    examples = [example(n, answer=json.dumps(w)) for n, w in enumerate(wanted)]
    texts = ['{"item": "lamp", "tags": ["a"]}', "no JSON at all"]
    found = metrics(examples, texts, ["stop", "stop"], [0.5, None])
    assert found["field:item"].value == 0.5
    assert found["field:tags"].value == pytest.approx((2 / 3) / 2)
    assert found["exact"].value == 0.0
    assert found["json_fields"].value == pytest.approx(0.8 / 2)  # 2 of 3 leaves: F1 of 2, 2 and 3
    assert (found["agreement"].value, found["agreement"].n) == (0.5, 1)
    assert "tool_calls" not in found


def test_tool_calls_in_a_text_are_compared_as_calls() -> None:
    tagged = f"<tool_call>{json.dumps(CALL)}</tool_call>"
    examples = [example(1, answer=tagged), example(2, answer=tagged), example(3, answer="Hello")]
    texts = [json.dumps({"tool_calls": [{"function": CALL}]}), "I have refunded it.", "Hello"]
    found = metrics(examples, texts, ["stop"] * 3, [None] * 3)
    assert (found["tool_calls"].value, found["tool_calls"].n) == (0.5, 2)
    assert found["exact"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(CALL),
        f"Sure: {json.dumps([CALL])} done",
        json.dumps({"name": "refund", "parameters": {"order": 7}}),
        f"<function_call>{json.dumps(CALL)}</function_call>",
    ],
)
def test_a_call_is_told_in_each_form_that_models_write(text: str) -> None:
    assert calls_in_text(text) == [{"function": CALL}]


@pytest.mark.parametrize("text", ['{"name": "Jane", "age": 7}', '{"colour": "red"}', "refund(7)", "{", ""])
def test_a_json_answer_is_no_call(text: str) -> None:
    assert calls_in_text(text) == []


def test_calibration_error_is_the_mean_gap_of_the_tenths() -> None:
    found = quality([0.95, 0.95, 0.55, 0.55, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0])
    assert found is not None
    assert [(b.n, round(b.confidence, 3), round(b.score, 3)) for b in found.reliability] == [
        (2, 0.55, 0.5),
        (3, 0.967, 0.667),
    ]
    assert found.ece == pytest.approx((2 * 0.05 + 3 * 0.3) / 5)


def test_percentiles_are_of_single_answers_after_one_unmeasured() -> None:
    asked: list[str] = []
    begun: list[object] = []
    ticks = iter([t for scale in (1000, 2000) for n in range(1, 101) for t in (0.0, n / scale)])
    prompts = [[{"role": "user", "content": str(n)}] for n in range(120)]
    found = measure_latency(
        lambda m: asked.append(m[0]["content"]), prompts, first=begun.append, seconds=10.0, clock=lambda: next(ticks)
    )
    assert found is not None
    assert (found.n, round(found.p50), round(found.p95), round(found.p99)) == (100, 50, 95, 99)
    assert found.first_p95 == pytest.approx(found.p95 / 2)
    assert asked[:3] == ["0", "0", "1"]
    assert begun[:3] == [prompts[0], prompts[0], prompts[1]]
    slow = iter([float(t) for t in range(1000)])
    few = measure_latency(lambda m: None, prompts, first=lambda m: None, seconds=2.0, clock=lambda: next(slow))
    assert few is not None
    assert few.n == 20


def test_calls_of_offered_tools_are_scored_as_they_are_served() -> None:
    def called(colour: str, name: str = "paint") -> str:
        value = json.dumps({"name": name, "arguments": {"colour": colour}})
        return f"<tool_call>\n{value}\n</tool_call>"

    texts = [called("red"), called("blue"), called("red", "erase"), "Done.", json.dumps({"name": "paint"})]
    asked = Asked(tools=("paint",))
    judged = [msgspec.structs.replace(example(n, answer=called("red")), asked=asked) for n in range(len(texts))]
    said = [Generated(text=text, finish_reason="stop", tokens=1) for text in texts]
    report = evaluate(lambda prompts, **_: said, judged, scorer("tool_calls", ""), max_new_tokens=1)
    assert [o.value for o in report.outcomes] == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert report.outcomes[2].reason == "unknown_tool"
    assert report.errors == 1
    assert (report.metrics["tool_calls"].value, report.metrics["tool_calls"].n) == (0.3, 5)
    assert "exact" not in report.metrics, "the teacher said nothing"
