"""Whole training cycles of SmolLM2 that are killed, or whose log is poisoned.

    scripts/bench robust [--records 1200] [--only PATTERN] [--anew]     about 25 minutes a part on a free core
    scripts/bench robust --short                                        few records; writes nothing

`whole` and `killed` are the same cycle on the same log; `killed` has its process ended by SIGKILL in a training step,
in a later one after a checkpoint, and in the export, and goes on each time in a new process. What is published must be
the same, byte by byte. `whole` is the control, too: the gate must let it through by itself (both have an override, so
that the comparison doesn't hang on it). In the other parts the answers about one community, a sixth of all, hold a
secret or another scrubber's placeholder, or all answers are shuffled: the gate must refuse the student, and say why.
Half as many more records, of the same poison, judge; all is gone over twice. Secrets are kept in what is learnt: the
default's filter would leave them out, and it is the gate that is tried. Parts are kept in out/robust until the code of
the retrainer changes.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import kept_parts
import msgspec
import results_file
from processes import running

from collector import Record, Stream, open_log, socket_path
from collector.record import Answer, Interaction, encode
from exporters.models import Store, write_atomic
from retort.sample.records import Package, packages
from retrainer import Override
from retrainer.state import Cycles, CycleState, Request, Standing
from router import Arm, Config

ROOT = Path(__file__).resolve().parents[1]
MADE_BY = (*sorted((ROOT / "retrainer").rglob("*.py")), Path(__file__))
ROUTE, CYCLE = "community", "student-1"
COST_USD = 0.0003  # of an answer of the teacher's
SECRET = "sk-Qx7Lm2Vb9Tz4Rw8K"  # of nobody
PARTS = ("whole", "killed", "secret", "placeholder", "shuffled")
# What a refusal has to name.
WHY = {"secret": "secrets failed", "placeholder": "placeholders failed", "shuffled": "shuffled labels?"}

Moment = Callable[[Standing], bool]


def answers(part: str, records: list[Package]) -> list[str]:
    """The teacher's, as they stand in the part's log."""
    plain = [record.answer for record in records]
    if part == "shuffled":
        return random.Random(3).sample(plain, len(plain))
    added = {"secret": {"password": SECRET}, "placeholder": {"maintainer": "[PERSON_1]"}}.get(part, {})
    return [json.dumps(json.loads(a) | added) if '"perl"' in a else a for a in plain]


def configured(folder: Path) -> Config:
    """One route."""
    upstream = {"base_url": "http://127.0.0.1:1/v1", "distillation_allowed": True}
    policy = {
        "teachers": ["up/m"],
        "capture": {"retention_days": 36500},  # the log's times are made up
        "student": {"base": "SmolLM2-135M-Instruct", "engine": "local"},
        "quality": {"score": "json_fields", "margin": 0.1},  # so few records make no better student, surely
        "latency": {"slo_ms": 20_000},  # the machine may be busy
        "retrain": {
            "min_new_examples": 10, "learning_rate": 8e-4, "checkpoint_steps": 5, "seed": 1,
            "epochs": 2, "held_out": str(judged_file(folder)), "data": {"secrets": "keep"},
        },
    }  # fmt: skip
    made = {"state": str(folder), "upstreams": {"up": upstream}, "engines": {"local": {}}, "routes": {ROUTE: policy}}
    return Config.model_validate(made)


def judged_file(state: Path) -> Path:
    """Of the records that judge, beside a part's state."""
    return state.with_suffix(".jsonl")


def write_judged(file: Path, records: list[Package], said: list[str]) -> None:
    """As an operator brings them along."""
    lines = [{"messages": record.messages, "answer": text} for record, text in zip(records, said, strict=True)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, b"\n".join(map(msgspec.json.encode, lines)))


def fill(config: Config, records: list[Package], said: list[str]) -> None:
    """A log as a collector would have written it."""
    batch = []
    for n, (record, text) in enumerate(zip(records, said, strict=True)):
        answer = Answer(
            arm=Arm.TEACHER, upstream="up/m", status=200, finish_reason="stop", cost_usd=COST_USD, total_ms=600.0,
            message={"role": "assistant", "content": text},
        )  # fmt: skip
        made = Interaction(
            id=f"r{n}", at=1e9 + n, route=ROUTE, kind="chat", arm=Arm.TEACHER, version=None, propensity=1.0,
            eligible=True, policy_version="p", rollout_revision=0, consent="opt-out", scrubber="s", cluster=f"c{n}",
            stream=False, request={"model": "m", "messages": record.messages}, answers=(answer,),
        )  # fmt: skip
        batch.append((Stream.INTERACTIONS, Record(id=made.id, key=ROUTE, at=made.at, value=encode(made))))
    with closing(open_log(config.log)) as log:
        log.append(batch)


def cycle(config: Config, kills: list[Moment], *, override: Override | None) -> tuple[CycleState, int]:
    """Run the cycle's own process until it ends by itself; it is killed at each of these moments. What it came to, and
    how often it was killed."""
    cycles, killed = Cycles(config.state), 0
    request = msgspec.to_builtins(Request(cycle_id=CYCLE, route=ROUTE, override=override))
    order = json.dumps({"config": config.model_dump(mode="json"), "request": request}).encode() + b"\n"
    for moment in (*kills, None):
        command = [sys.executable, "-m", "retrainer.worker"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            process.stdin.write(order)
            process.stdin.flush()
            while process.poll() is None:
                time.sleep(0.05)
                standing = cycles.standing(CYCLE)
                if moment is not None and standing is not None and moment(standing):
                    process.kill()
                    killed += 1
                    break
    state = cycles.load(CYCLE)
    if state is None or state.outcome is None:
        raise SystemExit(f"the cycle in {config.state} did not end")
    return state, killed


@contextmanager
def collector(config: Config) -> Iterator[None]:
    """The real one, which is told of the candidate."""
    file = Path(config.state) / "retort.json"  # JSON is YAML
    file.write_text(config.model_dump_json())
    socket = socket_path(config.state)
    command = [sys.executable, "-m", "retort", "collector", "--config", str(file)]
    with (Path(config.state) / "collector.log").open("wb") as log, running(command, stdout=log, stderr=log):
        until = time.monotonic() + 120
        while not socket.exists():
            if time.monotonic() > until:
                raise SystemExit(f"no collector came up; see {log.name}")
            time.sleep(0.2)
        yield


def in_step(least: int) -> Moment:
    """In the training, once so many steps are done."""
    return lambda at: at.phase == "train" and least <= at.done < at.total


def make(part: str, *, folder: Path, records: int) -> dict[str, Any]:
    """One part."""
    state = folder / part
    if part == "killed":  # from the beginning: its kills are counted
        shutil.rmtree(state, ignore_errors=True)
    fresh, config = not state.exists(), configured(state)
    if fresh:
        drawn = random.Random(5).sample(packages(), records + records // 2)
        said = answers(part, drawn)
        write_judged(judged_file(state), drawn[records:], said[records:])
        fill(config, drawn[:records], said[:records])
    kills = [in_step(3), in_step(12), lambda at: at.phase == "export"] if part == "killed" else []
    override = Override("the benchmark", "to compare what is published") if part in ("whole", "killed") else None
    with collector(config):
        ended, killed = cycle(config, kills, override=override)
    report = ended.phases.get("evaluate_quantized") or ended.phases.get("evaluate_student") or {}
    published = ended.outcome == "registered"
    return {
        "outcome": ended.outcome,
        "why": ended.error,
        "killed": killed,
        "agreement": report.get("agreement"),
        "held_out": report.get("n"),
        "student": _student(config) if published else {},
    }


def _student(config: Config) -> dict[str, str]:
    """The published files, without the card: it tells of times."""
    files = Store(config.artefacts).manifest(CYCLE).files
    return {name: found for name, found in files.items() if not name.startswith("card")}


def goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Of those parts that there are."""
    made = []
    if "whole" in found:
        passed = found["whole"]["outcome"] == "registered" and not found["whole"]["why"]
        made.append(results_file.goal("whole: passes the gate by itself", passed, "==", 1))
    if {"whole", "killed"} <= found.keys():
        whole, killed = found["whole"], found["killed"]
        same = bool(whole["student"]) and whole["student"] == killed["student"]
        made += [
            results_file.goal("killed by SIGKILL, times", killed["killed"], "==", 3),
            results_file.goal("killed: the published student is the uninterrupted one's", same, "==", 1),
        ]
    for part, why in WHY.items():
        if part in found:
            refused = found[part]["outcome"] == "refused" and why in (found[part]["why"] or "")
            made.append(results_file.goal(f"{part}: refused, and the reason says `{why}`", refused, "==", 1))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1200)
    parser.add_argument("--only", default="", metavar="PATTERN", help="parts whose name holds it")
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    records = 160 if options.short else options.records
    costs = {part: 1500.0 for part in PARTS if re.search(options.only, part)}
    key = kept_parts.digest(MADE_BY, records)
    working = partial(make, folder=ROOT / "out" / "robust" / key, records=records)
    _, found = kept_parts.run("robust", costs, working, key=key, processes=1, anew=options.anew)
    for part, row in found.items():
        print(part, {name: value for name, value in row.items() if name != "student"})
    if options.short or options.only:
        results_file.show("robust", goals(found))
    else:
        results_file.write("robust", {"records": records, **found}, goals(found))


if __name__ == "__main__":
    main()
