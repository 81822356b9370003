"""What a data set is of: whose traffic, which of it students may serve, and that nothing which comes later moves a
record."""

from statistics import mean
from typing import Any

import msgspec
import pytest
from data_route import Route, sides
from retrainer_fakes import CountedLog, fill, interaction, report, teacher

from collector import SubjectKeys
from collector.record import Answer
from retrainer.data.curate import unserved
from retrainer.data.told import told
from router.decision import Arm
from router.policy import RoutePolicy

SAID = {"role": "assistant", "content": "x"}
STUDENT = Answer(arm=Arm.STUDENT, version="v", status=200, finish_reason="stop", message=SAID)


@pytest.fixture
def route(log: CountedLog, keys: SubjectKeys) -> Route:
    return Route(log, keys)


def test_what_is_told_later_of_a_record_moves_no_other(route: Route) -> None:
    """The same prompts come to a student first and to the teacher later; then clients correct the first ones, or the
    teacher who answered them teaches no more."""
    served: dict[str, Any] = {"arm": Arm.STUDENT, "version": "v", "answers": (STUDENT,)}
    fill(route.log, [interaction(n, id=f"early{n}", cluster=f"early{n}", **served) for n in range(200)])
    former = (teacher("red", upstream="up/former"),)
    fill(route.log, [interaction(n, id=f"former{n}", cluster=f"former{n}", answers=former) for n in range(200, 400)])
    fill(route.log, [interaction(n, id=f"late{n}") for n in range(400)])
    before = sides(route.made())
    report(route.log, *((f"early{n}", "right") for n in range(100)))
    for made in (route.made(), route.made(teachers=("up/m",))):
        now = sides(made)
        assert {name: now[name] for name in before.keys() & now.keys()} == {
            name: side for name, side in before.items() if name in now
        }
        assert len(before.keys() & now.keys()) > 200


def test_production_and_its_newest_part_are_this_gateways_own_traffic(route: Route) -> None:
    live = [interaction(n, answers=(teacher("blue"),)) for n in range(300)]
    made_up = [interaction(300 + n, source="bootstrap", answers=(teacher("red"),)) for n in range(2700)]
    fill(route.log, [*live, *made_up])
    made = route.made()
    assert 0 < made.manifest.newest == len(made.newest) < 15
    assert {e.answer for e in made.newest} == {"blue"}
    assert made.manifest.labels["train"]["answer"]["distance"] == pytest.approx(0.9, abs=0.02)
    assert "apart" in told(msgspec.to_builtins(made.manifest))["answers against production's"]


def test_without_traffic_of_its_own_nothing_is_the_newest_and_that_is_told(route: Route) -> None:
    fill(route.log, [interaction(n, source="openai", answers=(teacher("red"),)) for n in range(200)])
    made = route.made()
    assert (made.newest, made.manifest.newest, made.manifest.labels["train"]) == ([], 0, {})
    assert told(msgspec.to_builtins(made.manifest)) == {
        "answers against production's": "nothing to compare with: all was imported or made from nothing"
    }


def test_what_no_student_may_answer_is_neither_learnt_nor_judged(route: Route) -> None:
    policy = RoutePolicy.model_validate({"teachers": ["up/m"], "student": {"max_prompt_bytes": 3000}})
    fill(route.log, [interaction(n) for n in range(200)])
    body = interaction(1).request
    for number, more in enumerate(({"n": 2}, {"presence_penalty": 1}, {"user": "u" * 4000}, {"n": 1})):
        fill(route.log, [interaction(200 + number, request={**interaction(200 + number).request, **more})])
    made = route.made(unserved=unserved(policy))
    assert {s["id"] for s in made.manifest.dropped["not_served"].samples} == {"x200", "x201", "x202"}
    assert "x203" in sides(made)
    assert not unserved(RoutePolicy.model_validate({"teachers": ["up/m"]}))({**body, "n": 2}), "no student, no rule"


PARTS = range(200), range(200, 280), range(280, 360)


def test_what_is_corrected_measures_for_itself_and_is_learnt_like_the_mean_of_others(
    route: Route,
) -> None:
    fill(route.log, [interaction(n) for n in range(200)])
    served: dict[str, Any] = {"arm": Arm.STUDENT, "version": "v", "propensity": 0.95, "answered": 0.0975}
    fill(route.log, [interaction(n, answers=(STUDENT, teacher("red")), **served) for n in range(200, 300)])
    fill(route.log, [interaction(n, answers=(STUDENT,), **served) for n in range(300, 360)])
    report(route.log, *((f"x{n}", "right") for n in (*range(280, 300), *range(300, 360))))
    made = route.made()
    for name, part in (("train", made.train), ("held out", made.held_out)):
        weights = {int(e.id[1:]): e.weight for e in part}
        plain, audited, corrected = ({weights[n] for n in weights if n in told} for told in PARTS)
        assert (len(plain), len(audited), len(corrected)) == (1, 1, 1)
        assert max(audited) / max(plain) == pytest.approx(10.0, rel=1e-3)
        others = mean(weight for n, weight in weights.items() if n < 280)
        assert max(corrected) == pytest.approx(others if name == "train" else max(plain), rel=1e-5)
