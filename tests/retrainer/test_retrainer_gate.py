import pytest

from retrainer.evaluation.evaluate import Report
from retrainer.evaluation.gate import Override, judge
from retrainer.evaluation.limits import Limits
from retrainer.evaluation.thresholds import Start
from router.policy_quality import SelectivePolicy

LIMITS = Limits(quality=0.93, error_rate=0.005, p95_ms=800.0, saving=0.5, forgotten=1.0)
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
    verdict = judge(base=BASE, student=report(), quantized=report(agreement=0.965), limits=LIMITS)
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
    verdict = judge(base=base, student=report(**student), quantized=report(**quantized), limits=LIMITS)
    assert verdict.gate == "refused"
    assert not verdict.lets_through
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]


def test_the_bounds_themselves_still_pass() -> None:
    at = report(lower=0.93, valid_json=0.99, n=20)
    assert judge(base=BASE, student=at, quantized=report(agreement=0.96), limits=LIMITS).gate == "passed"


def test_answers_that_are_no_json_matter_only_where_the_teachers_are() -> None:
    assert judge(base=BASE, student=report(valid_json=None), quantized=None, limits=LIMITS).gate == "passed"


def test_an_override_lets_a_failing_student_through_and_is_recorded_with_the_reasons() -> None:
    override = Override("ops@example.org", "to see it fail")
    bad = report(agreement=0.1, lower=0.05)
    verdict = judge(base=BASE, student=bad, quantized=None, limits=LIMITS, override=override)
    assert verdict.gate == "overridden"
    assert verdict.lets_through
    assert (verdict.who, verdict.why) == ("ops@example.org", "to see it fail")
    assert verdict.reasons


def test_an_override_of_a_passing_student_overrides_nothing() -> None:
    verdict = judge(base=BASE, student=report(), quantized=None, limits=LIMITS, override=Override("a", "b"))
    assert (verdict.gate, verdict.who) == ("passed", None)


SELECTIVE = SelectivePolicy(max_risk=0.03, min_coverage=0.2)
WEAK: dict[str, object] = {"agreement": 0.7, "lower": 0.66, "upper": 0.74}


def start(**changes: object) -> Start:
    good: dict[str, object] = {
        "threshold": 0.9,
        "n": 400,
        "accepted": 160,
        "coverage": 0.4,
        "coverage_lower": 0.36,
        "risk": 0.006,
        "risk_upper": 0.024,
        "max_risk": 0.03,
        "safe": True,
    }
    return Start(**{**good, **changes})  # type: ignore[arg-type]


def test_a_student_that_fails_as_a_whole_passes_selectively_with_its_coverage_and_risk() -> None:
    weak = report(**WEAK, valid_json=0.9)
    costly = report(**{**WEAK, "agreement": 0.65})
    verdict = judge(base=BASE, student=weak, quantized=costly, limits=LIMITS, selective=SELECTIVE, start=start())
    assert (verdict.gate, verdict.mode) == ("passed", "selective")
    assert verdict.checks["selective"]["coverage_lower"] == 0.36
    assert verdict.checks["selective"]["risk_upper"] == 0.024
    assert any("not surely at least" in reason for reason in verdict.reasons)  # why not as a whole
    assert judge(base=BASE, student=weak, quantized=costly, limits=LIMITS, start=start()).gate == "refused"


def test_a_student_that_passes_as_a_whole_is_whole_whatever_its_coverage() -> None:
    unsure = start(coverage_lower=0.0, safe=False)
    verdict = judge(base=BASE, student=report(), quantized=report(), limits=LIMITS, selective=SELECTIVE, start=unsure)
    assert (verdict.gate, verdict.mode, verdict.reasons) == ("passed", "whole", [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"coverage_lower": 0.19}, "at a risk of 3.0% that is 40.0% of the requests (surely 19.0%, at 90%)"),
        ({"safe": False}, "no confidence above which its risk is surely at most 3.0%"),
    ],
)
def test_a_student_that_is_sure_and_right_on_too_little_is_refused(changes: dict[str, object], said: str) -> None:
    weak, found = report(**WEAK), start(**changes)
    verdict = judge(base=BASE, student=weak, quantized=weak, limits=LIMITS, selective=SELECTIVE, start=found)
    assert (verdict.gate, verdict.mode) == ("refused", "selective")
    assert said in verdict.reasons[-1]
    at = start(coverage_lower=0.2)
    assert judge(base=BASE, student=weak, quantized=weak, limits=LIMITS, selective=SELECTIVE, start=at).lets_through


@pytest.mark.parametrize(
    ("student", "base", "said"),
    [
        ({"leaked": 1}, BASE, "placeholder"),
        ({"n": 19}, BASE, "fewer than 20"),
        ({}, report(agreement=0.7), "no more than the base"),
    ],
)
def test_what_is_no_matter_of_quality_refuses_in_either_mode(
    student: dict[str, object], base: Report, said: str
) -> None:
    weak = report(**WEAK, **student)
    verdict = judge(base=base, student=weak, quantized=weak, limits=LIMITS, selective=SELECTIVE, start=start())
    assert verdict.gate == "refused"
    assert any(said in reason for reason in verdict.reasons)


def test_before_its_export_a_weak_student_goes_on_unless_it_can_not_be_right_often_enough() -> None:
    weak, hopeless = report(**WEAK), report(agreement=0.15, lower=0.1, upper=0.193)
    assert judge(base=BASE, student=weak, quantized=None, limits=LIMITS, selective=SELECTIVE).gate == "passed"
    verdict = judge(base=BASE, student=hopeless, quantized=None, limits=LIMITS, selective=SELECTIVE)
    assert verdict.gate == "refused"
    assert "takes an agreement of at least 19.4%" in verdict.reasons[-1]
    just = report(agreement=0.15, lower=0.1, upper=0.194)
    assert judge(base=BASE, student=just, quantized=None, limits=LIMITS, selective=SELECTIVE).gate == "passed"


def test_an_override_of_a_selective_refusal_says_its_mode() -> None:
    weak = report(**WEAK)
    verdict = judge(
        base=BASE, student=weak, quantized=weak, limits=LIMITS, selective=SELECTIVE, override=Override("ops", "a drill")
    )
    assert (verdict.gate, verdict.mode, verdict.who) == ("overridden", "selective", "ops")
