"""`retort plan`: from a configuration, a log and a registry, or none of them, to what a rollout would take."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector import Record, Stream, open_log
from collector.record import Answer, Interaction, encode
from exporters.models.manifest import Manifest
from retort import plan_options
from retort.errors import StartError
from retort.plan import make, show
from retort.plan_assume import assume
from retort.plan_inputs import known, measure
from retort.plan_money import MONTH, Money, Prices, Span, live_month, of, parallel_cost, payback_days
from retort.plan_options import PlanOptions, StudentCost
from retort.plan_report import Plan
from router import (
    Arm,
    Config,
    Rollout,
    RoutePolicy,
    RouteState,
    Stage,
    TaskKind,
    Transition,
    Version,
    encode_state,
    open_registry,
    parse,
)
from router.planning_ramp import Traffic

ROOT = Path(__file__).parents[2]
CONFIG = """
state: {state}
upstreams: {{o: {{base_url: "http://127.0.0.1:1/v1", api_key: k, distillation_allowed: true}}}}
engines: {{local: {{}}}}
routes:
  r: {{teachers: [o/m], student: {{}}, capture: {{rate: 0.5}}}}
  judge: {{teachers: [o/m], capture: {{rate: 0}}}}
  judged: {{teachers: [o/m], student: {{}}, quality: {{reference: judge, judge: {{route: judge}}}}}}
  truth: {{teachers: [o/m], student: {{}}, quality: {{reference: truth}}}}
  sure: {{teachers: [o/m], student: {{}}, selective: {{max_risk: 0.03}}}}
  sprt: {{teachers: [o/m], student: {{}}, quality: {{test: sprt, good_rate: 0.97}}}}
"""
DAY = 86400.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse(CONFIG.format(state=tmp_path / "state"), {})


def interaction(
    number: int, at: float, *, eligible: bool = True, cost: float | None = 0.002, source: str = ""
) -> tuple[Stream, Record]:
    record = Interaction(
        id=f"i{number}", at=at, route="r", kind="chat", arm=Arm.TEACHER, version=None, propensity=1.0,
        eligible=eligible, policy_version="p", rollout_revision=1, consent="opt-out", scrubber="s", cluster="c",
        stream=False, request={}, answers=(Answer(arm=Arm.TEACHER, upstream="o/m", cost_usd=cost),), source=source,
    )  # fmt: skip
    return Stream.INTERACTIONS, Record(id=f"i{number}", key="r", at=at, value=encode(record))


def fill(config: Config) -> None:
    """9 interactions and one in quarantine, 1,000 seconds apart; three versions, of which the second was evaluated."""
    log = open_log(config.log)
    log.append([interaction(n, 1000.0 * n, eligible=n > 0, cost=0.001 * n or None) for n in range(9)])
    log.append([
        interaction(9, 9000.0, cost=None),
        (Stream.QUARANTINE, Record(id="q", key="r", at=500.0, value=b"")),
        interaction(10, 20_000.0, cost=1.0, source="openai"),
        (Stream.QUARANTINE, Record(id="import-q", key="r", at=500.0, value=b"")),
        (Stream.QUARANTINE, Record(id="fb_q", key="r", at=500.0, value=b"")),
    ])  # fmt: skip
    log.close()
    registry = open_registry(config.registry)
    for number, name in enumerate(("v1", "v2", "v3")):
        made = Version(
            id=name, route="r", kind=TaskKind.CHAT, base="b", engine="local", artefact=name, created_at=float(number)
        )
        registry.add_version(made)
    moves = [
        Transition(
            route="r", offset=0, at=1.0, version=name, before=Stage.CANDIDATE, after=Stage.SHADOW, step=0,
            fraction=0.0, cause="ready",
        )
        for name in ("v1", "v2", "v1")
    ]  # fmt: skip
    registry.commit(
        "r", expected=(0, 0), rollout=Rollout(route="r", revision=1, live="v1"), stages={"v1": Stage.LIVE},
        transitions=moves, state=encode_state(RouteState("r", tests=2)), offset=1, status={},
    )  # fmt: skip
    registry.close()
    folder = Path(config.artefacts) / "v2"
    folder.mkdir(parents=True)
    manifest = Manifest(
        id="v2", route="r", kind="chat", runtime="x", base="b", base_revision="1", quantization="int8", created_at=1.0,
        files={}, report={"student": {"agreement": 0.99}, "quantized": {"agreement": 0.98}},
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def test_a_fresh_configuration_is_planned_and_nothing_is_made(config: Config, tmp_path: Path) -> None:
    found = make(config, "r", PlanOptions(per_day=10_000))
    assert found.assumptions.sources["loss"] == "assumed: an agreement of 97%"
    assert found.savings is None
    assert any("--cost-per-request" in note for note in found.notes)
    assert not (tmp_path / "state").exists()


def test_a_wider_margin_takes_fewer_pairs_and_is_passed_more_often(config: Config) -> None:
    rows = make(config, "r", PlanOptions(per_day=10_000, margins=(0.04, 0.05, 0.07, 0.1))).scenarios
    assert [row.margin for row in rows] == [0.04, 0.05, 0.07, 0.1]
    pairs = [row.pairs.median if row.pairs.median is not None else float("inf") for row in rows]
    assert pairs == sorted(pairs, reverse=True)
    assert pairs[-2] > pairs[-1]
    chances = [row.probability for row in rows]
    assert chances == sorted(chances)
    assert chances[0] < chances[-1]


def test_the_stages_add_up_and_the_ramps_exposure_is_their_sum(config: Config) -> None:
    found = make(config, "r", PlanOptions(per_day=1e6, slow=0.0, margins=(0.07,)))
    assert [stage.name for stage in found.stages] == ["shadow", *(f"step {n}" for n in range(1, 7))]
    assert [stage.days.median for stage in found.stages[1:]] == [pytest.approx(1.0)] * 6
    assert {stage.limit for stage in found.stages[1:]} == {"dwell"}
    assert found.requests_before_live.median == pytest.approx(1e6 * (0.05 + 0.1 + 0.25 + 0.5 + 0.75 + 0.97))
    (row,) = found.scenarios
    assert row.days_to_live.median == pytest.approx(6.0, abs=0.1)


def test_wrong_answers_until_the_alarm_follow_from_the_pair_rate(config: Config) -> None:
    found = make(config, "r", PlanOptions(per_day=10_000, margins=(0.07,)))
    live = next(row for row in found.exposures if row.case == "all wrong" and row.at == "live")
    assert live.pairs.median == 19
    requests = 19 / (0.03 + 0.05 * 0.97)
    assert live.answers.median == live.wrong.median == pytest.approx(0.97 * requests)
    assert live.hours.median == pytest.approx(requests / 10_000 * 24)
    assert found.hard_stop.most_requests == 20


def test_a_hopeless_student_is_said_to_be_one(config: Config) -> None:
    found = make(config, "r", PlanOptions(per_day=10_000, agreement=0.9, cost_per_request=0.01, margins=(0.07,)))
    assert found.scenarios[0].probability <= 0.05
    assert found.scenarios[0].days_to_live.median is None
    assert found.scenarios[0].days_to_decision.median is not None
    assert any("by mistake only" in note for note in found.notes)
    assert found.savings is None


def test_coverage_scenarios_of_a_selective_route(config: Config) -> None:
    found = make(config, "sure", PlanOptions(per_day=10_000, coverage=(0.25, 0.5, 1.0), cost_per_request=0.001))
    few, half, all_of_it = found.scenarios
    assert [row.coverage for row in found.scenarios] == [0.25, 0.5, 1.0]
    assert few.pairs.median > half.pairs.median > all_of_it.pairs.median  # type: ignore[operator]
    assert all_of_it.saved_per_month == pytest.approx(4 * few.saved_per_month)  # type: ignore[operator]
    assert found.savings is not None
    assert found.savings.month.net == pytest.approx(half.saved_per_month)


def test_the_plan_is_valid_json_of_its_own_form_and_a_table_for_people(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    options = PlanOptions(per_day=10_000, cost_per_request=0.002, training_cost=5.0, margins=(0.05, 0.07))
    assert show(config, "r", options, as_json=True) == 0
    raw = json.loads(capsys.readouterr().out)
    plan = msgspec.convert(raw, Plan, strict=True)
    assert msgspec.to_builtins(plan) == raw
    assert set(raw) == set(Plan.__struct_fields__)
    assert raw["savings"]["payback_days"] == pytest.approx(6.0, abs=0.1)
    assert show(config, "r", options, as_json=False) == 0
    said = capsys.readouterr().out
    assert "10,000 requests a day (given), 100% eligible" in said
    assert "dwell 24 h" in said
    assert "all wrong" in said
    assert "are paid back after 6.0 days" in said


def test_traffic_prices_and_agreement_are_measured_where_they_can_be(config: Config) -> None:
    fill(config)
    found = measure(config, "r")
    assert (found.requests, found.eligible, found.seconds) == (11, 10, 9000.0)
    assert found.cost == pytest.approx(0.0045)  # 0.001 ... 0.008; unknown prices are not 0
    registry = known(config, "r")
    assert (registry.number, registry.live) == (3, "v1")  # two trials so far
    assert (registry.agreement, registry.version) == (0.98, "v2")  # as it is served
    assumed = assume(config, "r", PlanOptions())
    assert assumed.per_day == pytest.approx(10 / 9000 * DAY / 0.5)  # half of the traffic is captured
    assert assumed.traffic.per_second == pytest.approx(assumed.per_day / DAY * 10 / 11)
    assert assumed.traffic.live
    assert assumed.expected.loss == pytest.approx(0.02)
    assert any("less than a day" in note for note in assumed.notes)
    assert any("v1 is live" in note for note in assumed.notes)


def test_what_is_given_comes_before_what_is_measured(config: Config) -> None:
    fill(config)
    assumed = assume(config, "r", PlanOptions(per_day=77.0, agreement=0.9, cost_per_request=0.5))
    assert assumed.per_day == 77.0
    assert assumed.expected.loss == pytest.approx(0.1)
    assert assumed.prices is not None
    assert assumed.prices.teacher == 0.5


def test_margins_that_an_sprt_cannot_test_are_left_out_and_said(config: Config) -> None:
    assumed = assume(config, "sprt", PlanOptions(per_day=10.0, margins=None))
    assert assumed.margins == (0.035, 0.049, 0.07, 0.105, 0.14)
    config = config.model_copy(update={"routes": {"sprt": config.routes["sprt"].model_copy(update={
        "quality": config.routes["sprt"].quality.model_copy(update={"good_rate": 0.96})})}})  # fmt: skip
    assumed = assume(config, "sprt", PlanOptions(per_day=10.0))
    assert assumed.margins == (0.049, 0.07, 0.105, 0.14)
    assert any("left out: 0.035" in note for note in assumed.notes)


def test_discordance_and_difference_are_shares_of_wins_and_losses(config: Config) -> None:
    expected = assume(config, "judged", PlanOptions(per_day=1.0, discordance=0.2, difference=0.1)).expected
    assert (expected.loss, expected.win) == (pytest.approx(0.05), pytest.approx(0.15))


PER_DAY = PlanOptions(per_day=10.0)


@pytest.mark.parametrize(
    ("route", "options", "says"),
    [
        ("nope", PER_DAY, "no route 'nope' with a student; the configuration has: judged, r, sprt, sure, truth"),
        ("judge", PER_DAY, "no route 'judge' with a student"),
        ("r", PlanOptions(), "the log holds 0 of its requests; say --per-day N"),
        ("r", PlanOptions(per_day=1.0, coverage=(0.5,)), "no selective:"),
        ("r", PlanOptions(per_day=1.0, difference=0.1), "say --agreement"),
        ("r", PlanOptions(per_day=1.0, labelled=0.1), "--labelled is of reference: truth"),
        ("r", PlanOptions(per_day=1.0, judge_cost=0.1), "--judge-cost is of reference: judge"),
        ("judged", PlanOptions(per_day=1.0, agreement=0.9), "say --discordance, --difference"),
        ("judged", PlanOptions(per_day=1.0, difference=-0.3), "say a larger --discordance"),
        ("truth", PER_DAY, "needs --labelled"),
        ("sure", PlanOptions(per_day=1.0, agreement=0.9), "say --risk"),
        ("sprt", PlanOptions(per_day=1.0, margins=(0.02, 0.1)), "margins must be between 0.03 and 1 here; got 0.02"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(config: Config, route: str, options: PlanOptions, says: str) -> None:
    with pytest.raises(StartError) as told:
        assume(config, route, options)
    assert says in str(told.value)


def arguments(*said: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    plan_options.add_arguments(parser)
    return parser.parse_args(["r", *said])


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (("--per-day", "0"), "must be above 0"),
        (("--per-day", "many"), "'many' is no number"),
        (("--agreement", "97"), "must be a share from 0 to 1"),
        (("--margins", "0,0.1"), "must all be above 0"),
        (("--difference", "2"), "must be from -1 to 1"),
        (("--cost-per-request", "-1"), "must be USD, 0 or more"),
        (("--cost-per-request", "nan"), "must be USD, 0 or more"),
        (("--student-cost", "5"), "write USD/month or USD/1000"),
    ],
)
def test_a_value_out_of_its_range_is_refused(
    said: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        arguments(*said)
    assert says in capsys.readouterr().err


def test_arguments_become_options() -> None:
    found = arguments("--margins", "0.1,0.05", "--student-cost", "0.2/1000", "--per-day", "5e3")
    assert found.margins == (0.05, 0.1)
    assert found.student_cost == StudentCost(0.2, "1000")
    assert found.per_day == 5000.0
    names = {name for name in vars(found) if name not in ("route", "json")}
    assert names == set(PlanOptions.__struct_fields__)


def money(reference: str = "agreement", coverage: float = 1.0, *, fraction: float | None = 0.5) -> Money:
    """1,000 eligible requests, of which the student gets half; a teacher's call costs 1, a judge's 2."""
    quality: dict[str, Any] = {"reference": reference, "audit_rate": 0.1, "shadow_rate": 0.4}
    if reference == "judge":
        quality["judge"] = {"route": "j"}
    rules = RoutePolicy.model_validate({
        "teachers": ["o/m"], "student": {}, "quality": quality, "rollout": {"holdback": 0.05},
    })  # fmt: skip
    prices = Prices(1.0, 2.0, StudentCost(10.0, "1000"))
    return of([Span(1000.0, fraction)], rules, Traffic(per_second=1.0, coverage=coverage), prices)


def test_money_is_counted_by_hand() -> None:
    """500 answers are saved, a tenth of them audited; the student is asked on 50 of the holdback besides."""
    whole = money()
    assert (whole.saved, whole.audits, whole.second_calls, whole.judge) == (500.0, 50.0, 0.0, 0.0)
    assert whole.student == pytest.approx(5.5)
    assert whole.net == pytest.approx(444.5)


def test_second_calls_and_judges_are_counted_and_shadow_pairs_alone_cost_nothing() -> None:
    assert money("self").second_calls == pytest.approx(0.1 * 550)
    assert money("judge").judge == pytest.approx((50 + 50) * 2 * 2.0)
    shadow = money(fraction=None)
    assert (shadow.saved, shadow.audits, shadow.second_calls) == (0.0, 0.0, 0.0)
    assert shadow.student == pytest.approx(4.0)
    assert money("self", fraction=None).second_calls == pytest.approx(40.0)


def test_a_deferred_answer_saves_nothing_and_the_student_is_paid_all_the_same() -> None:
    half = money(coverage=0.5)
    assert (half.saved, half.audits) == (250.0, 25.0)
    assert half.student == pytest.approx(5.5)
    # A judge sees 25 audited answers, 250 deferred ones, and the holdback's 50 whatever the confidence.
    assert money("judge", coverage=0.5).judge == pytest.approx((25 + 250 + 50) * 2 * 2.0)


def test_a_month_of_live_and_the_days_of_both_asked() -> None:
    rules = RoutePolicy.model_validate({"teachers": ["o/m"], "student": {}, "rollout": "cautious"})
    prices, traffic = Prices(1.0, 1.0, StudentCost(30.0, "month")), Traffic(per_second=10 / MONTH)
    month = live_month(rules, traffic, prices)
    assert month.saved == pytest.approx(9.7)
    assert month.student == pytest.approx(30.0)
    assert parallel_cost(rules, traffic, prices) == pytest.approx(2 / 30 * 9.7 * 0.95)


def test_payback_is_never_before_the_student_is_live_and_never_without_a_gain() -> None:
    gain = Money(saved=30.0, audits=0.0, second_calls=0.0, judge=0.0, student=0.0, net=30.0)
    loss = Money(saved=0.0, audits=0.0, second_calls=0.0, judge=0.0, student=9.0, net=-9.0)
    assert payback_days(10.0, 2.0, loss, gain, 5.0) == pytest.approx(5.0 + 21.0)
    assert payback_days(10.0, 0.0, gain, gain, 5.0) == 5.0
    assert payback_days(10.0, 0.0, gain, loss, 5.0) is None


def test_the_command_prints_json_and_leaves_no_state_behind(tmp_path: Path) -> None:
    file = tmp_path / "retort.yaml"
    file.write_text(CONFIG.format(state=tmp_path / "state"))
    command = [sys.executable, "-m", "retort", "plan", "r", "--config", str(file), "--json", "--margins", "0.1"]
    said = subprocess.run([*command, "--per-day", "1000"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["route"] == "r"
    missing = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "say --per-day" in missing.stderr
    assert not (tmp_path / "state").exists()
