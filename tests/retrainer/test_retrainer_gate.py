import pytest

from retrainer.evaluate import Report
from retrainer.gate import Override, judge

BASE = Report(
    n=500, agreement=0.02, lower=0.01, upper=0.04, confidence=0.95, valid_json=0.1, leaked=0, unfinished=0,
    reasons={}, tokens=1, seconds=1.0,
)  # fmt: skip


def report(**changes: object) -> Report:
    good: dict[str, object] = {
        "n": 500,
        "agreement": 0.97,
        "lower": 0.95,
        "upper": 0.985,
        "confidence": 0.95,
        "valid_json": 1.0,
        "leaked": 0,
        "unfinished": 0,
        "reasons": {},
        "tokens": 1,
        "seconds": 1.0,
    }
    return Report(**{**good, **changes})  # type: ignore[arg-type]


def test_a_good_student_passes_without_reasons() -> None:
    verdict = judge(base=BASE, student=report(), quantized=report(agreement=0.965), margin=0.07)
    assert (verdict.gate, verdict.reasons) == ("passed", [])
    assert verdict.lets_through


@pytest.mark.parametrize(
    ("student", "quantized", "base", "reason"),
    [
        ({"agreement": 0.94, "lower": 0.92}, {"agreement": 0.94}, BASE, "the student's agreement is 94.0%"),
        ({}, {"agreement": 0.965, "lower": 0.92}, BASE, "the quantized student's agreement"),
        ({"valid_json": 0.985}, {}, BASE, "98.5% of the student's answers are JSON"),
        ({"leaked": 1}, {}, BASE, "1 of the student's answers hold a scrubber's placeholder"),
        ({}, {"agreement": 0.955}, BASE, "quantizing costs 1.5% agreement"),
        ({"n": 19}, {}, BASE, "judged by 19 records, fewer than 20"),
        ({}, {}, report(agreement=0.97), "no more than the base: 97.0% against 97.0%"),
    ],
)
def test_each_fault_alone_refuses_and_says_why(
    student: dict[str, object], quantized: dict[str, object], base: Report, reason: str
) -> None:
    verdict = judge(base=base, student=report(**student), quantized=report(**quantized), margin=0.07)
    assert verdict.gate == "refused"
    assert not verdict.lets_through
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]


def test_the_bounds_themselves_still_pass() -> None:
    at = report(lower=0.93, valid_json=0.99, n=20)
    assert judge(base=BASE, student=at, quantized=report(agreement=0.96), margin=0.07).gate == "passed"


def test_answers_that_are_no_json_matter_only_where_the_teachers_are() -> None:
    assert judge(base=BASE, student=report(valid_json=None), quantized=None, margin=0.07).gate == "passed"


def test_an_override_lets_a_failing_student_through_and_is_recorded_with_the_reasons() -> None:
    override = Override("ops@example.org", "to see it fail")
    bad = report(agreement=0.1, lower=0.05)
    verdict = judge(base=BASE, student=bad, quantized=None, margin=0.07, override=override)
    assert verdict.gate == "overridden"
    assert verdict.lets_through
    assert (verdict.who, verdict.why) == ("ops@example.org", "to see it fail")
    assert verdict.reasons


def test_an_override_of_a_passing_student_overrides_nothing() -> None:
    verdict = judge(base=BASE, student=report(), quantized=None, margin=0.07, override=Override("a", "b"))
    assert (verdict.gate, verdict.who) == ("passed", None)
