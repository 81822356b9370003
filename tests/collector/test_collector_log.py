"""Every log keeps the same contract."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import EventLog, LogError, LogFull, Record, Stream, open_log


@pytest.fixture(params=["memory", "sqlite"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    opened = open_log("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/a/log.db")
    yield opened
    opened.close()


def record(name: str, key: str = "r", value: bytes = b"v") -> Record:
    return Record(id=name, key=key, at=1.5, value=value)


def put(log: EventLog, *records: Record, stream: Stream = Stream.EVIDENCE) -> None:
    log.append([(stream, r) for r in records])


def test_records_come_back_in_order_from_an_offset_on(log: EventLog) -> None:
    put(log, *(record(f"a{i}", value=bytes([i])) for i in range(5)))
    entries = log.read(Stream.EVIDENCE, 0)
    assert [(e.id, e.value, e.key, e.at) for e in entries] == [(f"a{i}", bytes([i]), "r", 1.5) for i in range(5)]
    offsets = [e.offset for e in entries]
    assert offsets == sorted(set(offsets))
    assert [e.id for e in log.read(Stream.EVIDENCE, offsets[3])] == ["a3", "a4"]
    assert [e.id for e in log.read(Stream.EVIDENCE, 0, 2)] == ["a0", "a1"]
    assert log.end(Stream.EVIDENCE) == offsets[-1] + 1


def test_a_repeated_id_is_left_out_of_its_own_stream_only(log: EventLog) -> None:
    put(log, record("a", value=b"first"))
    put(log, record("a", value=b"second"), record("b"))
    put(log, record("a"), stream=Stream.INTERACTIONS)
    assert [(e.id, e.value) for e in log.read(Stream.EVIDENCE, 0)] == [("a", b"first"), ("b", b"v")]
    assert len(log.read(Stream.INTERACTIONS, 0)) == 1


def test_a_key_is_read_alone(log: EventLog) -> None:
    put(log, record("a", "r"), record("b", "s"), record("c", "r"))
    assert [e.id for e in log.read(Stream.EVIDENCE, 0, key="r")] == ["a", "c"]
    assert log.read(Stream.QUARANTINE, 0) == []


def test_what_was_appended_is_there_after_reopening(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    first = open_log(url)
    put(first, record("a"))
    first.close()
    second = open_log(url)
    put(second, record("a"), record("b"))
    assert [e.id for e in second.read(Stream.EVIDENCE, 0)] == ["a", "b"]
    second.close()


def test_a_log_of_before_there_was_feedback_gets_its_place_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    first = open_log(f"sqlite:///{path}")
    put(first, record("a"))
    first.close()
    old = sqlite3.connect(path)
    old.executescript("DROP TABLE feedback; PRAGMA user_version = 1;")
    old.close()
    for _ in range(2):
        again = open_log(f"sqlite:///{path}")
        put(again, record("f"), stream=Stream.FEEDBACK)
        assert [e.id for e in again.read(Stream.FEEDBACK, 0)] == ["f"]
        assert [e.id for e in again.read(Stream.EVIDENCE, 0)] == ["a"]
        again.close()


FILL = """
import sys
from collector import LogFull, Record, Stream, open_log
log = open_log(sys.argv[1])
def put(n):
    log.append([(Stream.EVIDENCE, Record(id=f"{n}-{i}", key="r", at=0.0, value=b"x" * 4000)) for i in range(50)])
put(0)
log._db.execute("PRAGMA max_page_count = 80")
kept = 1
try:
    for kept in range(1, 50): put(kept)
except LogFull as error:
    print(type(error).__name__, kept, len(log.read(Stream.EVIDENCE, 0, 10000)), error)
"""


def test_a_full_disk_is_told_and_an_append_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """SQLite's own page limit raises what a full disk raises."""
    said = subprocess.run(
        [sys.executable, "-c", FILL, f"sqlite:///{tmp_path}/log.db"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[0] == "LogFull"
    assert int(said[2]) == 50 * int(said[1])
    assert "space" in said


def test_a_place_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(LogError, match="file"):
        open_log(f"sqlite:///{tmp_path}/file")
    with pytest.raises(LogError, match="write sqlite:///PATH"):
        open_log("redis://x")
    assert issubclass(LogFull, LogError)
