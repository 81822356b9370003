"""`retort status` on a registry and a log as the processes leave them."""

import json
from pathlib import Path
from typing import Any

import pytest

from collector import Record, Stream, open_log
from collector.record import Answer, Interaction, encode
from retort.status import show
from retrainer import Cycles, CycleState, Request
from router import Arm, Config, Rollout, Stage, TaskKind, Version, open_registry, parse

CONFIG = """
state: {state}
upstreams: {{o: {{base_url: "http://127.0.0.1:1/v1", distillation_allowed: true}}}}
engines: {{local: {{}}}}
routes: {{r: {{teachers: [o/m], student: {{}}}}}}
"""
TEACHER = Answer(arm=Arm.TEACHER, upstream="o/m", cost_usd=0.002)
STUDENT = Answer(arm=Arm.STUDENT, version="v1")
AUDIT = Answer(arm=Arm.TEACHER, upstream="o/m", cost_usd=0.001)
WORDS = {
    "paused": True, "paused_by": {"who": "ann", "why": "a fair"},
    "pinned": "v1", "pinned_by": {"who": "bob", "why": "tests"},
}  # fmt: skip
ROW = {"n": 9, "log_e": 1.5, "log_boundary": 3.0}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse(CONFIG.format(state=tmp_path / "state"), {})


def interaction(
    name: str,
    *,
    decided: Arm,
    served: Answer,
    others: tuple[Answer, ...] = (),
    failed: tuple[Answer, ...] = (),
    source: str = "",
    request: dict[str, Any] | None = None,
) -> tuple[Stream, Record]:
    record = Interaction(
        id=name, at=1.0, route="r", kind="chat", arm=decided, version="v1", propensity=0.5, eligible=True,
        policy_version="p", rollout_revision=1, consent="opt-out", scrubber="s", cluster="c", stream=False,
        request=request or {}, answers=(served, *others), failed=failed, source=source,
    )  # fmt: skip
    return Stream.INTERACTIONS, Record(id=name, key="r", at=1.0, value=encode(record))


def fill(config: Config) -> None:
    log = open_log(config.log)
    log.append([
        interaction("a", decided=Arm.TEACHER, served=TEACHER),
        interaction("b", decided=Arm.STUDENT, served=STUDENT),
        interaction("c", decided=Arm.STUDENT, served=TEACHER, failed=(STUDENT,)),  # rescued by a fallback
        interaction("d", decided=Arm.STUDENT, served=STUDENT, others=(AUDIT,)),
        interaction("e", decided=Arm.STUDENT, served=TEACHER, others=(STUDENT,)),  # not sure enough
        interaction("import-f", decided=Arm.TEACHER, served=TEACHER, source="openai"),
        (Stream.QUARANTINE, Record(id="q", key="r", at=1.0, value=b"")),
    ])  # fmt: skip
    log.close()
    registry = open_registry(config.registry)
    for name in ("v1", "v2"):
        made = Version(id=name, route="r", kind=TaskKind.CHAT, base="b", engine="local", artefact=name, created_at=1.0)
        registry.add_version(made)
    evidence = {
        "v1": {
            "alarms": {"slo": {**ROW, "log_e": 0.7}, "warning": {**ROW, "log_e": 4.0}},
            "warnings": ["quality is more than 2 points below its level"],
        },
        "v2": {"tests": {"quality": {**ROW, "passed": False}, "errors": {**ROW, "passed": True}}},
    }
    registry.commit(
        "r", expected=(0, 0), rollout=Rollout(route="r", revision=1), stages={"v1": Stage.LIVE, "v2": Stage.SHADOW},
        transitions=[], state=b"", offset=1,
        status={"live": "v1", "challenger": "v2", "fraction": 0.25, "evidence": evidence, **WORDS},
    )  # fmt: skip
    registry.close()


def test_an_empty_route_is_told_with_the_teacher_answering(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(config, as_json=False) == 0
    said = capsys.readouterr().out
    assert "r  live: none (the teacher answers)" in said
    assert "no versions yet" in said


def test_traffic_savings_evidence_and_warnings_are_told(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    fill(config)
    assert show(config, as_json=False) == 0
    said = capsys.readouterr().out
    assert "r  live: v1" in said
    assert "paused by ann: a fair\n  pinned to v1 by bob: tests" in said
    assert "challenger v2 at 25% of eligible traffic" in said
    assert "5 requests captured, 40.0% answered by a student, 20.0% deferred, 0.0025 USD saved, with 0.0010 USD" in said
    assert "spent on comparing; 1 in quarantine, 1 imported" in said
    assert "quality 1.50/3.00 (n=9), errors passed (n=9)" in said
    assert "nearest alarm slo 0.70/3.00" in said
    assert "warning: v1: quality is more than 2 points below its level" in said


def test_json_has_the_same_figures(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    fill(config)
    assert show(config, as_json=True) == 0
    row = json.loads(capsys.readouterr().out)["r"]
    assert row["traffic"] == {
        "requests": 5, "imported": 1, "by_student": 2, "deferred": 1, "teacher_cost": 0.006, "priced": 4,
        "extra_cost": 0.001, "saved_usd": pytest.approx(0.0025),
    }  # fmt: skip
    assert [(v["id"], v["stage"]) for v in row["versions"]] == [("v1", "live"), ("v2", "shadow")]
    assert row["quarantined"] == 1


def test_answers_asked_for_to_compare_with_give_a_price_where_the_student_served_all(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(config.log)
    served = [interaction(str(n), decided=Arm.STUDENT, served=STUDENT) for n in range(9)]
    log.append([*served, interaction("audited", decided=Arm.STUDENT, served=STUDENT, others=(AUDIT,))])
    log.close()
    assert show(config, as_json=False) == 0
    assert "100.0% answered by a student, 0.0090 USD saved, with 0.0010 USD spent" in capsys.readouterr().out


def usable(name: str) -> tuple[Stream, Record]:
    said = Answer(
        arm=Arm.TEACHER, upstream="o/m", status=200, finish_reason="stop", message={"role": "assistant", "content": "a"}
    )
    asked = {"messages": [{"role": "user", "content": f"question {name}"}]}
    _, record = interaction(name, decided=Arm.TEACHER, served=said, request=asked)
    return Stream.INTERACTIONS, record


def test_it_tells_how_many_new_examples_the_next_training_waits_for(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> str:
        assert show(config, as_json=False) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "next training" in line]
        return line.strip()

    assert said() == "the next training: 0 of 500 new examples"
    fill(config)  # nothing to learn from
    log = open_log(config.log)
    log.append([usable(str(n)) for n in range(10)])
    assert said() == "the next training: 10 of 500 new examples"
    cycles = Cycles(config.state)
    end = log.end(Stream.INTERACTIONS, key="r")
    cycles.save(CycleState(request=Request(cycle_id="x", route="r"), policy={}, started_at=1.0, seen=end - 3))
    assert said() == "the next training: 3 of 500 new examples"
    log.append([usable(f"new-{n}") for n in range(600)])
    log.close()
    assert said() == "the next training: 500 of 500 new examples"
    monkeypatch.setattr("retort.status.LATEST", 50)
    assert said() == "the next training: at least 50 of 500 new examples"
    assert show(config, as_json=True) == 0
    row = json.loads(capsys.readouterr().out)["r"]["next_training"]
    assert (row["new"], row["wanted"], row["whole"]) == (50, 500, False)
