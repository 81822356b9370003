"""`retort export` and `retort erase` on a log as the collector leaves it."""

import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet
import pytest

from collector import Record, Stream, open_interactions, open_log, open_subjects
from collector.frames import Reported
from collector.record import Answer, Interaction, RightAnswer, Usage, encode
from retort.cli import main
from retort.studies import folder_of
from retrainer.data.curate import Example, Side
from retrainer.data.dataset import Dataset, DatasetManifest, digest, examples, write
from retrainer.data.suite import grow, read_suite, suite_file
from retrainer.state import BUILDING, Cycles, CycleState, Request
from router import Arm, Config, Stage, TaskKind, Version, open_registry, parse

CONFIG = """
state: {state}
upstreams: {{o: {{base_url: "http://127.0.0.1:1/v1", distillation_allowed: true}}}}
engines: {{local: {{}}}}
routes: {{r: {{teachers: [o/m], student: {{}}}}, s: {{teachers: [o/m]}}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "retort.yaml"
    path.write_text(CONFIG.format(state=tmp_path / "state"))
    return path


@pytest.fixture
def config(file: Path) -> Config:
    return parse(file.read_text(), {})


def put(config: Config, *records: Interaction) -> None:
    keys, log = open_subjects(config.subjects), open_log(config.log)
    for r in records:
        value = encode(r, keys.key(r.subject) if r.subject else None)
        log.append([(Stream.INTERACTIONS, Record(id=r.id, key=r.route, at=r.at, subject=r.subject, value=value))])
    log.close()
    keys.close()


def record(name: str, *, subject: str = "", answers: Sequence[Answer] = (), **changes: Any) -> Interaction:
    said = Answer(
        arm=Arm.TEACHER, upstream="o/m", model="m-1", status=200, finish_reason="stop", cost_usd=0.25, total_ms=30.0,
        message={"role": "assistant", "content": f"answer {name}"}, usage=Usage(prompt_tokens=7, completion_tokens=3),
    )  # fmt: skip
    made: dict[str, Any] = {
        "id": name, "at": 1700000000.5, "route": "r", "kind": "chat", "arm": Arm.TEACHER, "version": None,
        "propensity": 1.0, "eligible": True, "policy_version": "p", "rollout_revision": 1, "consent": "opt-out",
        "scrubber": "s", "cluster": "c", "stream": False, "subject": subject, "answers": tuple(answers or (said,)),
        "request": {"model": "m", "messages": [{"role": "user", "content": f"question {name}"}]},
    }  # fmt: skip
    return Interaction(**{**made, **changes})


def report(config: Config, name: str, text: str, *, at: float = 1700000001.0, subject: str = "") -> None:
    """A right answer that a client reported, as the collector leaves it."""
    keys, log = open_subjects(config.subjects), open_log(config.log)
    said = {"role": "assistant", "content": text}
    right = RightAnswer(request_id=name, at=at, message=said, scrubber="s")
    kept = Reported(
        id=f"fb_{at}", at=at, route="r", request_id=name, answer=encode(right, keys.key(subject) if subject else None)
    )
    value = msgspec.msgpack.encode(kept)
    log.append([(Stream.FEEDBACK, Record(id=f"fb_{at}:answer", key="r", at=at, subject=subject, value=value))])
    log.close()
    keys.close()


def retort(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def exported(file: Path, out: Path, form: str, *what: str) -> list[dict[str, Any]]:
    arguments = what or ("--route", "r")
    assert retort("export", *arguments, "--format", form, "--out", str(out), "--config", str(file)) == 0
    return [json.loads(line) for line in out.read_bytes().splitlines()] if out.suffix == ".jsonl" else []


STUDENT = Answer(arm=Arm.STUDENT, version="v1", status=200, finish_reason="stop", message={"content": "mine"})


def test_lines_hold_each_record_with_its_served_answer(file: Path, config: Config, tmp_path: Path) -> None:
    thinks = msgspec.structs.replace(STUDENT, reasoning="hm")
    put(config, record("a", subject="jane"), record("b", route="s"), record("c", answers=(thinks, thinks)))
    rows = exported(file, tmp_path / "out.jsonl", "jsonl")
    assert [row["id"] for row in rows] == ["a", "c"]
    first, second = rows
    assert first["request"]["messages"][0]["content"] == "question a"
    assert first["message"]["content"] == "answer a"
    assert (first["served_by"], first["model"], first["prompt_tokens"], first["subject"]) == ("o/m", "m-1", 7, "jane")
    assert (second["served_by"], second["shadows"][0]["message"]) == ("v1", {"content": "mine"})
    assert (first["reasoning"], second["reasoning"], second["shadows"][0]["reasoning"]) == (None, "hm", "hm")
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.jsonl"]


def test_parquet_has_one_row_a_record_and_types(file: Path, config: Config, tmp_path: Path) -> None:
    put(config, *(record(f"n{n}", at=1700000000.0 + n) for n in range(4100)))
    out = tmp_path / "out.parquet"
    exported(file, out, "parquet")
    table = pyarrow.parquet.read_table(out)
    assert table.num_rows == 4100
    row = table.slice(4099, 1).to_pylist()[0]
    assert (row["id"], row["cost_usd"], row["completion_tokens"], row["stream"]) == ("n4099", 0.25, 3, False)
    assert row["at"].timestamp() == 1700004099.0
    assert json.loads(row["request"])["messages"][0]["content"] == "question n4099"
    assert json.loads(row["message"])["content"] == "answer n4099"


def test_fine_tuning_lines_are_of_whole_answers_of_the_teacher(
    file: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tools = [{"type": "function", "function": {"name": "f"}}]
    calls = Answer(
        arm=Arm.TEACHER, status=200, finish_reason="tool_calls",
        message={"role": "assistant", "content": None, "tool_calls": [call], "annotations": []},
    )  # fmt: skip
    request = {"model": "m", "messages": [{"role": "user", "content": "do"}], "tools": tools}
    cut = Answer(arm=Arm.TEACHER, status=200, finish_reason="length", message={"content": "half"})
    failed = Answer(arm=Arm.TEACHER, status=500, error="http_500")
    put(
        config, record("a"), record("b", answers=(calls,), request=request), record("c", answers=(cut,)),
        record("d", answers=(failed,)), record("e", answers=(STUDENT,)), record("f", answers=(STUDENT, calls)),
    )  # fmt: skip
    rows = exported(file, tmp_path / "out.jsonl", "openai")
    said = {"role": "assistant", "tool_calls": [call]}
    assert rows == [
        {"messages": [{"role": "user", "content": "question a"}, {"role": "assistant", "content": "answer a"}]},
        {"messages": [{"role": "user", "content": "do"}, said], "tools": tools},
        {"messages": [{"role": "user", "content": "question f"}, said]},
    ]
    assert "3 of 6 records; 3 hold nothing that this format takes" in capsys.readouterr().err


def test_right_answers_that_clients_reported_stand_beside_what_was_said_and_in_its_place(
    file: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retort.export.SECONDS", 0.05)
    put(config, record("a", subject="jane"), record("b"), record("c", answers=(STUDENT,)))
    report(config, "a", "newest", at=1700000003.0, subject="jane")
    report(config, "a", "older", at=1700000002.0, subject="jane")
    report(config, "c", "of none")
    rows = exported(file, tmp_path / "out.jsonl", "jsonl")
    right = [None, {"role": "assistant", "content": "of none"}]
    assert [row["right_answer"] for row in rows] == [{"role": "assistant", "content": "newest"}, *right]
    assert rows[0]["message"]["content"] == "answer a"
    exported(file, tmp_path / "out.parquet", "parquet")
    column = pyarrow.parquet.read_table(tmp_path / "out.parquet").column("right_answer").to_pylist()
    assert [one and json.loads(one)["content"] for one in column] == ["newest", None, "of none"]
    lines = exported(file, tmp_path / "tuning.jsonl", "openai")
    assert [line["messages"][-1]["content"] for line in lines] == ["newest", "answer b", "of none"]
    exported(file, tmp_path / "group", "jsonl", "--group", "lake")
    new = [json.loads(line) for line in (tmp_path / "group" / "000001.jsonl").read_bytes().splitlines()]
    assert [row["right_answer"] for row in new] == [row["right_answer"] for row in rows]
    assert retort("erase", "--hashed", "jane", "--config", str(file)) == 0
    assert [row["right_answer"] for row in exported(file, tmp_path / "out.jsonl", "jsonl")] == right
    left = open_log(config.log).read(Stream.FEEDBACK, 0, key="r")
    assert [entry.subject for entry in left] == [""]


def test_a_group_gets_what_is_new_since_its_last_run(
    file: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("retort.export.SECONDS", 0.05)
    put(config, record("a"), record("b", route="s"))
    folder = tmp_path / "out"
    exported(file, folder, "jsonl", "--group", "lake")
    exported(file, folder, "jsonl", "--group", "lake")
    assert "nothing new for group lake" in capsys.readouterr().err
    put(config, record("c"))
    exported(file, folder, "jsonl", "--group", "lake")
    found = {path.name: [json.loads(x)["id"] for x in path.read_text().splitlines()] for path in folder.iterdir()}
    assert found == {"000001.jsonl": ["a", "b"], "000002.jsonl": ["c"]}


def test_a_group_whose_file_could_not_be_written_gets_the_same_again(
    file: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retort.export.SECONDS", 0.05)
    put(config, record("a"))
    folder = tmp_path / "out"
    with monkeypatch.context() as broken:
        broken.setattr("retort.export.sync", lambda path: (_ for _ in ()).throw(OSError(28, "No space left")))
        arguments = ("--group", "g", "--out", str(folder), "--config", str(file))
        assert retort("export", *arguments) == 2
    assert list(folder.iterdir()) == []
    exported(file, folder, "jsonl", "--group", "g")
    assert [path.name for path in folder.iterdir()] == ["000001.jsonl"]


def test_wrong_asking_is_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert retort("export", "--route", "x", "--out", "-", "--config", str(file)) == 2
    assert "no route 'x'; the configuration has: r, s" in capsys.readouterr().err
    assert retort("export", "--route", "r", "--format", "parquet", "--out", "-", "--config", str(file)) == 2
    assert "needs --out FILE" in capsys.readouterr().err
    assert retort("erase", "--config", str(file)) == 2
    assert "--subject ID" in capsys.readouterr().err


def learnt(
    config: Config, version: str, offsets: tuple[int, int], ids: Sequence[str] | None, subject: str = ""
) -> None:
    registry = open_registry(config.registry)
    registry.add_version(
        Version(
            id=version, route="r", kind=TaskKind.CHAT, base="b", engine="local", artefact=version, created_at=1.0,
            stage=Stage.CANDIDATE, lineage={"dataset": f"sha256:{version}", "offsets": list(offsets)},
        )
    )  # fmt: skip
    registry.close()
    if ids is None:
        return
    write_examples(Path(config.state) / "cycles" / version / "dataset", ids, subject)


def write_examples(folder: Path, ids: Sequence[str], subject: str = "") -> None:
    examples: Sequence[Example] = [example(name, subject) for name in ids]
    made = digest({Side.TRAIN: examples, Side.VALIDATION: [], Side.TEST: []})
    manifest = DatasetManifest(
        route="r", digest=made, first=0, end=9, read=1, counts={}, groups=1, dropped={}, upstreams={}, scrubbers={}
    )
    folder.parent.mkdir(parents=True)
    write(Dataset(train=examples, validation=[], test=[], manifest=manifest), folder)


def example(name: str, subject: str = "") -> Example:
    return Example(id=name, offset=1, at=1.0, cluster="c", subject=subject, messages=[], answer="a")


def test_erasing_a_person_removes_her_records_and_tells_who_learnt_from_them(
    file: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = open_subjects(config.subjects)
    jane, joe = keys.hashed("jane@example.com"), keys.hashed("joe")
    put(config, record("a"), record("b", subject=jane), record("c", subject=joe), record("d", subject=jane))
    key = keys.key(jane)
    learnt(config, "with", (0, 100), ["a", "b"])
    learnt(config, "without", (0, 100), ["a", "c"])
    learnt(config, "before", (0, 1), None)
    learnt(config, "gone", (0, 100), None)
    suite = suite_file(config.state, "r")
    grow(suite, [example("b"), example("c")], 9)
    assert retort("erase", "--subject", "jane@example.com", "--json", "--config", str(file)) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["subject"], row["key_destroyed"], row["records"]) == (jane, True, 2)
    held = {h["version"]: (h["records"], h["certain"]) for h in row["held_by"]}
    assert held == {"with": (1, True), "gone": (2, False)}
    with open_interactions(config) as interactions:
        assert [r.id for _, r in interactions.of("r")] == ["a", "c"]
    assert [example.id for example in read_suite(suite)] == ["c"]
    assert keys.known({jane, joe}).keys() == {joe}
    stored = [path for path in (tmp_path / "state").rglob("*.db*") if path.is_file()]
    assert not any(key in path.read_bytes() for path in stored)
    assert (row["not_overwritten"], keys.known({jane})) == ([], {})
    assert retort("erase", "--hashed", jane, "--config", str(file)) == 0
    assert f"{jane}: 0 records erased, it had no key" in capsys.readouterr().out
    keys.close()


def test_what_the_log_has_forgotten_of_a_person_is_still_found_and_erased(
    file: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    jane = "ab" * 16
    learnt(config, "with", (0, 100), ["a", "b"], jane)
    learnt(config, "without", (0, 100), ["c"])
    suites = [suite_file(config.state, route) for route in ("r", "no longer configured")]
    for suite in suites:
        grow(suite, [example("a", jane), example("c")], 9)
    for route, subject in (("r", jane), ("s", "")):
        write_examples(folder_of(config, route) / "sweep-1" / "cycles" / "x" / "dataset", ["a"], subject)
    assert retort("erase", "--hashed", jane, "--json", "--config", str(file)) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["records"] == 0
    assert [(h["version"], h["records"], h["certain"]) for h in row["held_by"]] == [("with", 2, True)]
    assert [[e.id for e in read_suite(suite)] for suite in suites] == [["c"], ["c"]]
    assert [folder_of(config, route).exists() for route in ("r", "s")] == [False, True]


def test_what_cycles_that_made_no_version_hold_of_a_person_is_found(
    file: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    put(config, record("a", subject="jane"))
    learnt(config, "of-others", (0, 100), ["c"])
    cycles = Cycles(config.state)
    policy = config.routes["r"].model_dump(mode="json")
    for name, outcome in (("at-work", None), ("failed", "failed"), ("refused", "refused"), ("of-joe", "refused")):
        write_examples(cycles.folder(name) / "dataset", ["x", "b" if name == "of-joe" else "a"])
        state = CycleState(request=Request(cycle_id=name, route="r"), policy=policy, started_at=1.0, outcome=outcome)
        state.phases["dataset"] = {"digest": f"sha256:{name}"}
        cycles.save(state)
    write_examples(cycles.folder("without-a-state") / "dataset", ["z"], "jane")
    assert retort("erase", "--hashed", "jane", "--json", "--config", str(file)) == 0
    (row,) = json.loads(capsys.readouterr().out)
    found = [(h["cycle"], h["version"], h["stage"], h["dataset"], h["records"], h["certain"]) for h in row["held_by"]]
    assert found == [
        ("at-work", None, "unfinished", "sha256:at-work", 1, True),
        ("failed", None, "failed", "sha256:failed", 1, True),
        ("refused", None, "refused", "sha256:refused", 1, True),
        ("without-a-state", None, "unknown", None, 1, True),
    ]
    put(config, record("a", subject="jane"))
    assert retort("erase", "--hashed", "jane", "--config", str(file)) == 0
    said = capsys.readouterr().out
    assert f"{cycles.folder('refused')} still holds them, scrubbed: remove it\n" in said
    assert f"{cycles.folder('at-work')} still holds them, scrubbed: erase again when the cycle has ended\n" in said


def test_a_data_set_that_can_not_be_read_is_named(
    file: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    put(config, record("a", subject="jane"))
    folder = Cycles(config.state).folder("refused") / "dataset"
    write_examples(folder, ["a"])
    (folder / "train.jsonl").write_text("{")
    assert retort("erase", "--hashed", "jane", "--config", str(file)) == 2
    said = capsys.readouterr().err
    assert f"{folder} is not what its manifest says" in said
    assert "mend or remove it, and run this again" in said
    with open_interactions(config) as interactions:
        assert list(interactions.of("r")) == []


def test_what_an_interrupted_cycle_has_read_is_removed_and_one_that_is_at_work_is_told(
    file: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    cycles = Cycles(config.state)
    interrupted, at_work = (cycles.folder(name) / BUILDING for name in ("interrupted", "at-work"))
    for folder in (interrupted, at_work):
        folder.mkdir(parents=True)
    with cycles.lock("at-work"):
        assert retort("erase", "--hashed", "jane", "--config", str(file)) == 0
    assert (interrupted.exists(), at_work.exists()) == (False, True)
    said = capsys.readouterr().err
    assert "the cycle at-work is reading the log" in said
    assert "interrupted" not in said


def test_several_people_are_erased_at_once_and_each_is_told_what_holds_her(
    file: Path, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(config, record("a", subject="jane"), record("b", subject="joe"))
    learnt(config, "both", (0, 100), ["a", "b", "x"], "joe")
    learnt(config, "of-jane", (0, 100), ["a", "c"])
    write_examples(folder_of(config, "r") / "sweep-1" / "cycles" / "x" / "dataset", ["z"], "joe")
    read: list[str] = []
    monkeypatch.setattr("retort.erase.examples", lambda folder: (read.append(folder.parent.name), examples(folder))[1])
    people = ("--hashed=jane", "--hashed=joe", "--hashed=nobody")
    assert retort("erase", *people, "--json", "--config", str(file)) == 0
    rows = {row["subject"]: row for row in json.loads(capsys.readouterr().out)}
    held = {name: {h["version"]: h["records"] for h in row["held_by"]} for name, row in rows.items()}
    assert held == {"jane": {"both": 1, "of-jane": 1}, "joe": {"both": 3}, "nobody": {}}
    assert not folder_of(config, "r").exists()
    assert sorted(read) == ["both", "of-jane", "x"], "each data set is read once"


def test_an_erasure_that_was_killed_is_finished_by_the_next(
    file: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(config, record("a", subject="jane"))
    suite = suite_file(config.state, "r")
    grow(suite, [example("a", "jane"), example("c")], 9)
    with monkeypatch.context() as killed:
        killed.setattr("retort.erase.remove", lambda *_: sys.exit(137))
        assert retort("erase", "--hashed", "jane", "--config", str(file)) == 137
    assert retort("erase", "--hashed", "jane", "--config", str(file)) == 0
    assert [e.id for e in read_suite(suite)] == ["c"]
    with open_interactions(config) as interactions:
        assert list(interactions.of("r")) == []


def test_an_erasure_that_a_backup_is_in_the_way_of_says_so_and_is_finished_by_the_next(
    file: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("retort.erase.SCOUR_SECONDS", 0.1)
    keys = open_subjects(config.subjects)
    put(config, record("a", subject="jane"))
    key = keys.key("jane")
    backup = sqlite3.connect(tmp_path / "state" / "subjects.db")
    backup.execute("BEGIN")
    assert backup.execute("SELECT * FROM subjects").fetchall()
    assert retort("erase", "--hashed", "jane", "--json", "--config", str(file)) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)[0]["not_overwritten"] == ["subjects"]
    assert "somebody reads the database `subjects`" in said.err
    backup.close()
    assert retort("erase", "--hashed", "jane", "--config", str(file)) == 0
    assert not any(key in path.read_bytes() for path in (tmp_path / "state").glob("*.db*"))
    keys.close()
