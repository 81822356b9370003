"""`retort import` through a real collector: what was in other systems' files is in the log once, scrubbed, and nowhere
else; and its errors say what would be right."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_model

from collector import Interaction, Stream, open_interactions, open_log
from retort.imports.intake import WAITING_BYTES
from retrainer.data.dataset import build
from router import parse

LOGS = Path(__file__).parent / "foreign_logs"
FILES = {
    "openai": "fine_tuning.jsonl",
    "stored": "stored.json",
    "litellm": "litellm.jsonl",
    "spend": "litellm_spend.json",
    "langfuse": "langfuse.json",
    "blob": "langfuse_blob.jsonl",
    "csv": "langfuse.csv",
}
PLANTED = ("maria.oldenburg", "Annegret", "Wintergerst", "5536624")
MANY = 200  # records of the file whose import is killed midway
CONFIG = """
state: {state}
upstreams:
  openai: {{base_url: "http://127.0.0.1:1/v1", distillation_allowed: true}}
  private: {{base_url: "http://127.0.0.1:1/v1"}}
engines: {{local: {{}}}}
routes:
  support: {{teachers: [openai/gpt-4o], student: {{}}, quality: {{score: exact}}, outcomes: {{window: 1h}}}}
  colours: {{teachers: [openai/gpt-4o], student: {{}}}}
  asked: {{teachers: [openai/gpt-4o], student: {{}}, capture: {{consent: opt-in}}}}
  judge: {{teachers: [openai/gpt-4o], capture: {{rate: 0}}}}
  closed: {{teachers: [private/m]}}
"""


def command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "retort", *arguments, "--config", str(config)]


def retort(config: Path, *arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(config, *arguments), capture_output=True, input=given, timeout=120)


def kept(config: Path, stream: Stream) -> list[tuple[str, bytes]]:
    """The log's records with their routes."""
    log = open_log(f"sqlite:///{config.parent}/state/log.db")
    try:
        found = [entry for key in log.keys(stream) for entry in log.read(stream, 0, 100_000, key=key)]
        return [(entry.key, entry.value) for entry in found]
    finally:
        log.close()


def of(config: Path, route: str) -> list[Interaction]:
    with open_interactions(parse(config.read_text(), {})) as interactions:
        return [record for _, record in interactions.of(route)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("import") / "retort.yaml"
    file.write_text(CONFIG.format(state=file.parent / "state"))
    return file


class Ran(msgspec.Struct):
    """What the commands said: of each file, what was printed as JSON, and of a second time."""

    config: Path
    first: dict[str, dict[str, Any]] = {}
    second: dict[str, dict[str, Any]] = {}
    after_first: int = 0
    when_killed: int = 0
    strict: subprocess.CompletedProcess[bytes] | None = None
    nothing: subprocess.CompletedProcess[bytes] | None = None
    plain: str = ""


@pytest.fixture(scope="module")
def ran(config: Path) -> Iterator[Ran]:
    """One collector, all the imports; then it is stopped."""
    made = Ran(config)
    with (config.parent / "collector.log").open("wb") as output:
        collector = subprocess.Popen(command(config, "collector"), stdout=output, stderr=output)
    try:
        socket = config.parent / "state" / "run" / "collector.sock"
        deadline = time.monotonic() + 120
        while not socket.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        for said in (made.first, made.second):
            for name, file in FILES.items():
                done = import_one(config, name, LOGS / file)
                assert done.returncode == 0, done.stderr
                said[name] = json.loads(done.stdout)
            made.after_first = made.after_first or len(of(config, "support"))
        made.strict = retort(config, "import", "asked", str(LOGS / FILES["openai"]), "--consented", "--strict")
        made.nothing = retort(config, "import", "asked", "-", "--consented", given=b'{"messages": []}\nnonsense')
        again = retort(config, "import", "support", str(LOGS / FILES["stored"]), "--any-model")
        made.plain = retort(config, "import", "support", str(LOGS / FILES["stored"])).stdout.decode()
        assert again.returncode == 0
        made.when_killed = kill_one_midway(config)
        yield made
    finally:
        collector.terminate()
        assert collector.wait(120) == 0


def import_one(config: Path, name: str, file: Path) -> subprocess.CompletedProcess[bytes]:
    """As a user might: one from standard input, one compressed, one with its format named."""
    if name == "stored":
        return retort(config, "import", "support", "-", "--json", given=gzip.compress(file.read_bytes()))
    more = ("--format", "langfuse") if name == "csv" else ()
    return retort(config, "import", "support", str(file), "--json", *more)


def kill_one_midway(config: Path) -> int:
    """Import many, kill -9 the import after some, and run it again; returns how many there were when it was killed."""
    system = {"role": "system", "content": tiny_model.SYSTEM + " Be exact." * 300}
    lines = []
    for n in range(MANY):
        answer = {"role": "assistant", "content": tiny_model.answer(tiny_model.question(n))}
        lines.append(json.dumps({"messages": [system, *tiny_model.messages(n)[1:], answer]}))
    assert sum(map(len, lines)) > 2 * WAITING_BYTES, "else all of it would be on its way at once"
    file = config.parent / "many.jsonl"
    file.write_text("\n".join(lines))
    with subprocess.Popen(command(config, "import", "colours", str(file)), stdout=subprocess.PIPE) as importing:
        while not of(config, "colours"):
            time.sleep(0.02)
        importing.send_signal(signal.SIGKILL)
    before = len(of(config, "colours"))
    assert retort(config, "import", "colours", str(file)).returncode == 0
    return before


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_each_file_is_imported_and_what_is_not_is_counted_with_its_place(ran: Ran) -> None:
    left = {name: {r: row["places"] for r, row in said["left_out"].items()} for name, said in ran.first.items()}
    assert left == {
        "openai": {
            "not_json": [5], "no_answer": [7, 12], "weight_0": [8], "no_messages": [9], "no_consent": [10],
            "not_an_object": [11],
        },
        "stored": {"no_messages": [4], "other_model": [5]},
        "litellm": {
            "failed": [3], "other_call": [4], "redacted": [5], "other_model": [6], "no_consent": [7], "not_json": [8],
        },
        "spend": {"redacted": [2], "no_messages": [3]},
        "langfuse": {"not_a_generation": [2], "failed": [5], "no_answer": [6]},
        "blob": {"not_a_generation": [4]},
        "csv": {"no_answer": [2]},
    }  # fmt: skip
    assert {name: (said["records"], said["imported"]) for name, said in ran.first.items()} == {
        "openai": (11, 7), "stored": (5, 3), "litellm": (8, 2), "spend": (3, 1), "langfuse": (6, 3), "blob": (4, 3),
        "csv": (2, 1),
    }  # fmt: skip
    assert {said["format"] for said in ran.first.values()} == {"openai", "stored", "litellm", "langfuse"}
    assert ran.plain.splitlines()[:3] == [
        f"support: 3 exchanges of 5 records imported from {LOGS / FILES['stored']} (stored); "
        "those that the log had before are in it once",
        "  1 not: no_messages (records 4)",
        "  1 not: other_model (records 5)",
    ]
    assert "--any-model" in ran.plain


def test_what_is_imported_is_an_interaction_of_the_route_with_its_own_time_and_words(ran: Ran) -> None:
    found = of(ran.config, "support")
    assert {i.source for i in found} == {"openai", "stored", "litellm", "langfuse"}
    assert {(i.arm, i.eligible, i.version, i.consent) for i in found} == {("teacher", False, None, "opt-out")}
    (sent,) = [i for i in found if i.source == "litellm" and "it there" in repr(i.request)]
    assert (sent.at, sent.answers[0].usage.prompt_tokens) == (1747000001.25, 30)  # type: ignore[union-attr]
    assert sent.answers[0].upstream == "openai/gpt-4o"
    assert (sent.answers[0].finish_reason, sent.answers[0].model) == ("stop", "gpt-4o-2024-08-06")
    assert sent.request["user"] == sent.subject != ""
    told = [i for i in found if "find_order" in repr(i.request.get("tools"))]
    assert any(i.request["messages"][-1]["role"] == "tool" for i in told)
    assert any((i.answers[0].message or {}).get("tool_calls") for i in told)
    same = {i.cluster for i in found if i.source == "langfuse" and i.at in (1744453394.512, 1716990371.963)}
    assert same == {sent.cluster}, "one session in two systems is one conversation"


def test_personal_data_of_the_files_is_on_no_disk_and_no_evidence_is_made(ran: Ran) -> None:
    everything = {file: file.read_bytes() for file in ran.config.parent.rglob("*") if file.is_file()}
    assert "log.db" in {file.name for file in everything}
    records = "".join(repr(of(ran.config, route)) for route in parse(ran.config.read_text(), {}).routes)
    assert "It left the depot" in records, "else nothing was looked at"
    assert [word for word in PLANTED if word in records] == []
    for file, data in everything.items():
        assert [word for word in PLANTED if word.encode() in data] == [], file
    for stream in (Stream.EVIDENCE, Stream.QUARANTINE, Stream.FEEDBACK):
        assert kept(ran.config, stream) == []


def test_a_second_import_adds_nothing(ran: Ran) -> None:
    assert ran.first == ran.second
    assert ran.after_first == sum(said["imported"] for said in ran.first.values())
    assert len(of(ran.config, "support")) == ran.after_first + 1, "one more came with --any-model"


def test_an_import_that_was_killed_is_completed_by_another_and_can_be_learnt_from(ran: Ran) -> None:
    assert 0 < ran.when_killed < MANY
    found = of(ran.config, "colours")
    assert sorted(i.request["messages"][1]["content"] for i in found) == sorted(map(tiny_model.question, range(MANY)))
    with open_interactions(parse(ran.config.read_text(), {})) as interactions:
        dataset = build(interactions, "colours", max_examples=1000)
    assert dataset.manifest.read == MANY
    assert dataset.manifest.upstreams == {"openai/gpt-4o": MANY}
    assert set(dataset.manifest.dropped) <= {"torn"}
    for example in dataset.train:
        assert example.answer == tiny_model.answer(example.messages[1]["content"])


def test_strict_stops_at_the_first_that_can_not_be_used_and_nothing_at_all_is_a_failure(ran: Ran) -> None:
    assert ran.strict is not None
    assert ran.strict.returncode == 2
    assert b"line 5: not_json; 6 exchanges before it are imported" in ran.strict.stderr
    assert len(of(ran.config, "asked")) == 6
    assert ran.nothing is not None
    assert ran.nothing.returncode == 1
    assert b"asked: 0 exchanges of 2 records" in ran.nothing.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nope", "FILE"), "no route 'nope'; the configuration has: asked, closed"),
        (("support", "nowhere.jsonl"), "nowhere.jsonl"),
        (("support", "FILE", "--teacher", "openai/x"), "--teacher 'openai/x' is none of the route's: openai/gpt-4o"),
        (("judge", "FILE"), "capture.rate is 0"),
        (("asked", "FILE"), "give --consented if all whose texts are in the file have agreed"),
        (("closed", "FILE"), "upstreams.private.distillation_allowed is not true"),
        (("support", "FILE"), "no collector answers"),
        (("support", "UNKNOWN"), "say --format langfuse|litellm|openai|stored"),
        (("support", "BROKEN"), "can't be decompressed"),
        (("support", "NOTHING"), "it is empty; say --format langfuse"),
        (("support", "NOTHING", "--format", "openai"), "it is empty"),
        (("support", "WORDS"), "line 1 is no JSON object, nor the header of a table of langfuse or litellm"),
        (("support", "WORDS", "--format", "openai"), "line 1 is no JSON object"),
        (("support", "WORDS", "--format", "langfuse"), "line 1 is no JSON object"),
        (("support", "TABLE"), "line 1 is no JSON object, nor the header of a table of langfuse or litellm"),
        (("support", "CUT"), "line 1 is no JSON, and no later one is better"),
    ],
)
def test_an_import_that_can_not_be_says_what_would_be_right(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    config, unknown, broken = tmp_path / "retort.yaml", tmp_path / "unknown", tmp_path / "broken"
    config.write_text(CONFIG.format(state=tmp_path / "state"))
    unknown.write_text('{"what": "is this"}\n')
    broken.write_bytes(gzip.compress(b"")[:-8] + b"no gzip")
    texts = {"WORDS": "nonsense\nof a person, two\n", "TABLE": "prompt,messages\na,b\n", "CUT": '{"cut\n{"again\n'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = {"FILE": str(LOGS / FILES["openai"]), "UNKNOWN": str(unknown), "BROKEN": str(broken), "NOTHING": os.devnull}
    files |= {name: str(tmp_path / name) for name in texts}
    said = retort(config, "import", *(files.get(argument, argument) for argument in arguments))
    assert said.returncode == 2
    assert says in said.stderr.decode()
    assert b"Traceback" not in said.stderr
