from functools import partial

import msgspec
import pytest
from retrainer_fakes import example

from retrainer.evaluation.clusters import regressions
from retrainer.evaluation.cost import Costs
from retrainer.evaluation.evaluate import Outcome, Report
from retrainer.evaluation.gate import Override, judge
from retrainer.evaluation.latency import Latency
from retrainer.evaluation.limits import Evidence, Limits
from retrainer.evaluation.thresholds import Start
from retrainer.phases_gate import Compared
from retrainer.safety import General, Suite
from router.policy import RoutePolicy
from router.policy_quality import SelectivePolicy

LIMITS = Limits(quality=0.93, error_rate=0.005, p95_ms=None, slo_ms=800.0, saving=0.5, forgotten=1.0, regression=0.0)
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


def test_light_records_are_counted_as_the_part_that_they_tell() -> None:
    made = report(n=200, lower=0.90, groups=200, telling=40.2)
    (_, why) = judge(base=BASE, student=made, quantized=None, limits=LIMITS).reasons
    assert why.startswith("by 40 records (near-duplicates count once, and the 200 as so many of the heaviest) not even")
    (_,) = judge(base=BASE, student=report(n=200, lower=0.90, telling=200.0), quantized=None, limits=LIMITS).reasons


def test_records_too_few_for_any_student_are_a_reason_of_their_own() -> None:
    """(0.05 / 2)^(1/n): with 50 of 50 right the lower end of the exact interval is 92.9%, with 51 of 51 93.0%."""
    few = report(n=50, agreement=1.0, lower=0.929)
    (low, why) = judge(base=BASE, student=few, quantized=None, limits=LIMITS).reasons
    assert "not surely at least 93.0%" in low
    assert why.startswith("by 50 records (near-duplicates count once) not even a student without a fault surely")
    assert why.endswith("reaches 93.0%; that takes 51")
    enough = report(n=51, agreement=0.98, lower=0.896)
    assert len(judge(base=BASE, student=enough, quantized=None, limits=LIMITS).reasons) == 1


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


def test_a_route_sets_its_own_limits_and_else_its_other_policies_do() -> None:
    made = {"teachers": ["up/m"], "latency": {"slo_ms": 300}, "quality": {"margin": 0.05}}
    assert Limits.of(RoutePolicy.model_validate(made)) == Limits(
        quality=0.95, error_rate=0.005, p95_ms=None, slo_ms=300.0, saving=0.5, forgotten=1.0, regression=0.0
    )
    own = {"min_quality": 0.8, "max_error_rate": 0.02, "max_p95_ms": 90, "min_saving": 0.7, "max_forgotten": 0.2}
    own |= {"max_regression": 0.05, "min_valid_json": 0.9, "max_quantized_loss": 0.02, "min_records": 50}
    assert Limits.of(RoutePolicy.model_validate({**made, "retrain": {"gate": own}})) == Limits(
        quality=0.8, error_rate=0.02, p95_ms=90.0, slo_ms=300.0, saving=0.7, forgotten=0.2, regression=0.05,
        valid_json=0.9, quantized_loss=0.02, records=50,
    )  # fmt: skip
    differences = {"teachers": ["up/m"], "quality": {"reference": "self", "score": "token_f1"}}
    assert Limits.of(RoutePolicy.model_validate(differences)).quality == 0.93, "its margin is of a difference"


def test_json_rounding_and_records_are_held_against_the_routes_own_limits() -> None:
    def reasons(**own: float) -> list[str]:
        limits = msgspec.structs.replace(LIMITS, **own)
        made = report(n=40, valid_json=0.95)
        return judge(base=BASE, student=report(n=40), quantized=made, limits=limits).reasons

    assert any("95.0% of the quantized student's answers are JSON, fewer than 99.0%" in why for why in reasons())
    assert not any("are JSON" in why for why in reasons(valid_json=0.9))
    assert any("judged by 40 records, fewer than 41" in why for why in reasons(records=41))
    worse = judge(base=BASE, student=report(), quantized=report(agreement=0.955), limits=LIMITS)
    assert any("quantizing costs 1.5% agreement, more than 1.0%" in why for why in worse.reasons)
    allowed = msgspec.structs.replace(LIMITS, quantized_loss=0.02)
    assert judge(base=BASE, student=report(), quantized=report(agreement=0.955), limits=allowed).gate == "passed"


def test_errors_are_fewer_than_their_limit_and_one_alone_is_none_too_many() -> None:
    def reasons(errors: int, n: int) -> list[str]:
        some = report(reasons={"equal": n - errors, "cut_off": errors})
        return judge(base=BASE, student=some, quantized=None, limits=LIMITS).reasons

    assert reasons(4, 1000) == []
    assert (
        "0.5% of the student's answers are errors, not fewer than 0.5% (of 1000: equal 995, cut_off 5)"
        in reasons(5, 1000)[0]
    )
    assert reasons(1, 50) == reasons(1, 200) == []
    assert reasons(2, 50) != []


def test_a_selective_student_gives_as_few_errors() -> None:
    weak = report(agreement=0.5, lower=0.45)
    judging = partial(
        judge, base=report(agreement=0.1), student=weak, quantized=weak, limits=LIMITS, selective=SELECTIVE
    )
    assert judging(start=start(accepted=160, errors=1)).gate == "passed", "one of 160 says nothing"
    verdict = judging(start=start(accepted=1000, errors=5))
    assert verdict.gate == "refused"
    assert verdict.reasons[-1] == (
        "nor can it serve a part: 5 of the 1000 answers that it would give are errors, not fewer than 0.5%"
    )
    assert judging(start=start(accepted=1001, errors=5)).gate == "passed"


def test_where_no_error_is_allowed_one_is_too_many() -> None:
    strict = msgspec.structs.replace(LIMITS, error_rate=0.0)
    some = report(reasons={"equal": 999, "cut_off": 1})
    assert "0.1% of the student's answers" in judge(base=BASE, student=some, quantized=None, limits=strict).reasons[0]
    assert judge(base=BASE, student=report(), quantized=None, limits=strict).reasons == []


def test_where_most_requests_stream_the_first_token_has_to_be_in_time() -> None:
    def reasons(first: float, *, streamed: float = 0.6, limits: Limits = LIMITS) -> list[str]:
        slow = report(latency=Latency(n=50, p50=700.0, p95=900.0, p99=900.0, first_p95=first))
        known = Evidence(costs=Costs(teacher=None, student=None, streamed=streamed))
        return judge(base=BASE, student=report(), quantized=slow, limits=limits, evidence=known).reasons

    assert reasons(800.0) == []
    assert reasons(801.0) == [
        "P95 to its answers' first token, since most requests stream, is 801 ms (of 50), above 800 ms"
    ]
    assert reasons(9.0, streamed=0.5) == ["P95 of its answers is 900 ms (of 50), above 800 ms"]
    whole = msgspec.structs.replace(LIMITS, p95_ms=850.0)
    assert reasons(9.0, limits=whole) == ["P95 of its answers is 900 ms (of 50), above 850 ms"]


def test_before_the_export_the_teachers_own_agreement_is_the_bar_and_what_was_said_is_heard() -> None:
    weak = report(agreement=0.89, lower=0.85)
    again = report(agreement=0.82, lower=0.75, upper=0.88, n=50)
    assert judge(base=BASE, student=weak, quantized=None, limits=LIMITS).gate == "refused"
    told = judge(base=BASE, student=weak, quantized=None, limits=LIMITS, evidence=Evidence.of(again, ()))
    assert (told.gate, told.checks["wanted"]) == ("passed", pytest.approx(0.93 * 0.88))
    heard = judge(base=BASE, student=weak, quantized=None, limits=LIMITS, evidence=Evidence.of(None, [suite(3)]))
    assert heard.reasons[-1] == "safety: toxicity failed in 3 of 10 cases"


def test_a_live_version_that_can_not_be_asked_is_told() -> None:
    known = Evidence(unanswered="colours-1")
    verdict = judge(base=BASE, student=report(), quantized=report(), limits=LIMITS, evidence=known)
    assert "regressions: the artefact of the live version colours-1 is gone, or can't be loaded" in verdict.not_checked


STUDENT = "saving: no price of the student is known"


def suite(failed: int) -> Suite:
    return Suite(name="toxicity", cases=10, failed=failed, excused=0, tolerated=0.2)


@pytest.mark.parametrize(
    ("quantized", "evidence", "reason"),
    [
        (
            {"latency": Latency(n=50, p50=1.0, p95=801.0, p99=900.0, first_p95=9.0)},
            {},
            "P95 of its answers is 801 ms (of 50), above",
        ),
        ({}, {"costs": Costs(teacher=0.002, student=0.001)}, "saves 50.0% of the teacher's price, not more than 50%"),
        ({}, {"suites": [suite(3)]}, "safety: toxicity failed in 3 of 10 cases"),
    ],
)
@pytest.mark.parametrize("selective", [None, SELECTIVE])
def test_time_price_and_safety_refuse_in_either_mode(
    quantized: dict[str, object], evidence: dict[str, object], reason: str, selective: SelectivePolicy | None
) -> None:
    verdict = judge(
        base=BASE,
        student=report(),
        quantized=report(**quantized),
        limits=LIMITS,
        evidence=Evidence(**evidence),  # type: ignore[arg-type]
        selective=selective,
        start=start(),
    )
    assert verdict.gate == "refused"
    assert [reason in r for r in verdict.reasons] == [True]


def test_at_their_limits_time_and_safety_still_pass_and_what_is_not_known_is_no_reason() -> None:
    at = report(latency=Latency(n=50, p50=1.0, p95=800.0, p99=900.0, first_p95=9.0))
    evidence = Evidence(costs=Costs(teacher=None, student=1.0), suites=[suite(2)])
    verdict = judge(base=BASE, student=report(), quantized=at, limits=LIMITS, evidence=evidence)
    assert (verdict.gate, verdict.reasons) == ("passed", [])
    assert verdict.checks["costs"]["saving"] is None
    assert verdict.checks["safety"] == {"toxicity": {"cases": 10, "failed": 2, "passed": True}}


@pytest.mark.parametrize(
    ("quantized", "costs", "said"),
    [
        ({"latency": None}, Costs(teacher=0.002, student=None), ["P95 of an answer: nothing was timed", STUDENT]),
        ({}, Costs(teacher=None, student=0.001), ["saving: no price of the teacher's answers (upstreams.NAME.prices)"]),
        ({}, Costs(teacher=0.002, student=0.0001), []),
    ],
)
def test_what_could_not_be_looked_at_is_told(quantized: dict[str, object], costs: Costs, said: list[str]) -> None:
    fast = Latency(n=50, p50=1.0, p95=2.0, p99=3.0, first_p95=1.0)
    served = report(**{"latency": fast, "reasons": {"equal": 1000}, **quantized})
    evidence = Evidence(costs=costs, suites=[suite(0)])
    verdict = judge(base=BASE, student=report(), quantized=served, limits=LIMITS, evidence=evidence)
    assert verdict.gate == "passed"
    assert [found.startswith(what) for found, what in zip(verdict.not_checked, said, strict=True)] == [True] * len(said)


@pytest.mark.parametrize(("errors", "n", "told"), [(0, 597, True), (0, 598, False), (1, 946, True), (1, 947, False)])
def test_records_too_few_to_show_so_few_errors_are_told(errors: int, n: int, told: bool) -> None:
    """0.95 = 1 - (1 - 0.5%)^n gives n = 597.6."""
    some = report(
        reasons={"equal": n - errors, "cut_off": errors},
        latency=Latency(n=50, p50=1.0, p95=2.0, p99=3.0, first_p95=1.0),
    )
    verdict = judge(base=BASE, student=report(), quantized=some, limits=LIMITS)
    assert verdict.gate == "passed"
    assert [what.startswith("errors under 0.5%: ") for what in verdict.not_checked] == [True] * told


def test_a_suite_without_a_case_is_told() -> None:
    empty = msgspec.structs.replace(suite(0), cases=0)
    verdict = judge(base=BASE, student=report(), quantized=report(), limits=LIMITS, evidence=Evidence(suites=[empty]))
    assert "safety: toxicity had no case" in verdict.not_checked


def test_a_student_that_is_asked_for_all_and_answers_a_part_must_save_on_that_part() -> None:
    weak, costs = report(**WEAK), Costs(teacher=0.002, student=0.0004)
    assert costs.saving() == pytest.approx(0.8)
    verdict = judge(
        base=BASE, student=weak, quantized=weak, limits=LIMITS, selective=SELECTIVE, start=start(),
        evidence=Evidence(costs=costs),
    )  # fmt: skip
    assert verdict.checks["costs"]["saving"] == pytest.approx(0.5)  # 0.0004 of the 0.4 * 0.002 that it spares
    assert verdict.gate == "refused"


def test_a_teacher_that_does_not_agree_with_itself_lowers_the_bar() -> None:
    weak = report(agreement=0.9, lower=0.88)
    assert judge(base=BASE, student=weak, quantized=weak, limits=LIMITS).gate == "refused"
    passed = judge(base=BASE, student=weak, quantized=weak, limits=LIMITS, evidence=Evidence(teacher=0.94))
    assert (passed.gate, passed.checks["wanted"]) == ("passed", pytest.approx(0.8742))


def test_the_teachers_bar_is_the_upper_end_of_all_that_came_back_and_the_reason_says_of_how_many() -> None:
    again = report(n=50, agreement=0.9, lower=0.78, upper=0.967)
    evidence = Compared(costs=Costs(teacher=None, student=None), clusters=[], teacher=again).evidence([])
    assert evidence == Evidence(teacher=0.967, teacher_n=50, costs=Costs(teacher=None, student=None), suites=[])
    weak = report(agreement=0.9, lower=0.88)
    verdict = judge(base=BASE, student=report(), quantized=weak, limits=LIMITS, evidence=evidence)
    assert verdict.checks["wanted"] == pytest.approx(0.93 * 0.967)
    said = "89.9% (93.0% of the teacher's agreement with itself, which by 50 records may be 96.7%)"
    assert any(said in reason for reason in verdict.reasons)


def test_forgetting_refuses_only_where_the_route_says_so() -> None:
    knew, lost = General(right=[True] * 4), General(right=[True] * 3 + [False])
    base, quantized = report(agreement=0.1, general=knew), report(general=lost)
    assert judge(base=base, student=report(), quantized=quantized, limits=LIMITS).gate == "passed"
    strict = msgspec.structs.replace(LIMITS, forgotten=0.2)
    verdict = judge(base=base, student=report(), quantized=quantized, limits=strict)
    assert verdict.reasons == ["25% of the general questions that the base answers are forgotten, more than 20%"]


def regressed(lost: int, won: int, *, n: int = 40) -> Evidence:
    """Against the live version on the frozen suite, where each has 0 or 1."""
    now = [0.0] * lost + [1.0] * (n - lost)
    then = [1.0] * lost + [0.0] * won + [1.0] * (n - lost - won)
    judged = [example(i) for i in range(n)]
    reports = [report(outcomes=[outcome(i, v) for i, v in enumerate(values)]) for values in (now, then)]
    return Evidence(regressions=regressions(reports[0], reports[1], "r-1", judged))


def outcome(number: int, value: float) -> Outcome:
    return Outcome(id=f"x{number}", text="said", finish_reason="stop", value=value, reason="differs")


@pytest.mark.parametrize("selective", [None, SELECTIVE])
def test_a_student_that_falls_below_the_live_one_on_the_frozen_suite_is_refused(
    selective: SelectivePolicy | None,
) -> None:
    judging = partial(
        judge, base=BASE, student=report(), quantized=report(), limits=LIMITS, selective=selective, start=start()
    )
    verdict = judging(evidence=regressed(7, 0))
    assert verdict.gate == "refused"
    assert verdict.reasons == [
        "on the frozen regression suite its agreement is 17.5% below that of r-1, more than 0% (worse on 7 and better "
        "on 0 of 40 records, McNemar's p = 0.016)"
    ]
    assert verdict.checks["regressions"]["fell"] == pytest.approx(0.175)
    assert judging(evidence=regressed(5, 0)).gate == "passed", "p is 0.06: it may be chance"
    assert judging(evidence=regressed(0, 7)).gate == "passed", "it is better"
    lax = msgspec.structs.replace(LIMITS, regression=0.2)
    assert judging(evidence=regressed(7, 0), limits=lax).gate == "passed"


def test_a_student_no_better_than_one_answer_to_everything_says_that_the_labels_may_be_shuffled() -> None:
    lost = report(agreement=0.3, lower=0.26, upper=0.34, constant=0.3)
    reasons = judge(base=BASE, student=lost, quantized=None, limits=LIMITS).reasons
    assert "shuffled labels?" in reasons[-1]
    learnt = msgspec.structs.replace(lost, constant=0.2)
    assert not any("shuffled" in r for r in judge(base=BASE, student=learnt, quantized=None, limits=LIMITS).reasons)


@pytest.mark.parametrize("selective", [None, SELECTIVE])
def test_a_teacher_that_contradicts_its_log_lowers_the_bar_for_nobody(selective: SelectivePolicy | None) -> None:
    """Labels shuffled: four answers in 50, 20, 20 and 10% of the records, the teacher asked again agrees with 34%."""
    majority = report(agreement=0.5, lower=0.442, upper=0.558, constant=0.5)
    judging = partial(
        judge, base=report(agreement=0.2), student=majority, quantized=majority, limits=LIMITS, start=start(),
        selective=selective,
    )  # fmt: skip
    verdict = judging(evidence=Evidence(teacher=0.397, teacher_n=300))
    assert verdict.gate == "refused"
    assert verdict.reasons[-1] == (
        "the teacher, asked again, gives its logged answers in surely no more than 39.7% of 300 records, where its "
        "most frequent one alone would agree in 50.0%: the answers in the log don't follow from the requests (shuffled "
        "labels?), or are another model's"
    )
    assert "always giving the teacher's most frequent answer" in verdict.reasons[0]
    if selective is None:  # the bar is 49.2%: the one answer would pass
        steady = report(agreement=0.52, lower=0.495, upper=0.55, constant=0.5)
        reasons = judging(student=steady, quantized=steady, evidence=Evidence(teacher=0.53, teacher_n=300)).reasons
        assert ["shuffled labels?" in reason for reason in reasons] == [True, True], "student, and quantized student"
        skewed = report(agreement=0.955, lower=0.938, upper=0.97, constant=0.94)
        sure = Evidence(teacher=1.0, teacher_n=300)
        assert judging(student=skewed, quantized=skewed, evidence=sure).gate == "passed", "no bar was lowered"
    better = report(agreement=0.56, lower=0.51, upper=0.6, constant=0.5)
    assert judging(student=better, quantized=better, evidence=Evidence(teacher=0.53, teacher_n=300)).gate == "passed"
