"""Every log keeps the same contract."""

import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import Entry, EventLog, LogError, LogFull, Record, Stream, open_log
from router.config_kafka import KafkaSettings


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.service)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    settings = None
    if request.param == "kafka":
        url = request.getfixturevalue("broker").url(f"contract-{secrets.token_hex(4)}")
        settings = KafkaSettings(
            topic={"segment.ms": 100, "min.cleanable.dirty.ratio": 0.01}
        )  # compacts within seconds
    else:
        url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/a/log.db"
    opened = open_log(url, kafka=settings)
    yield opened
    opened.close()


def record(name: str, key: str = "r", value: bytes = b"v", *, at: float = 1000.5, subject: str = "") -> Record:
    return Record(id=name, key=key, at=at, value=value, subject=subject)


def put(log: EventLog, *records: Record, stream: Stream = Stream.EVIDENCE) -> None:
    log.append([(stream, r) for r in records])


def ids(entries: list[Entry]) -> list[str]:
    return [entry.id for entry in entries]


def test_records_come_back_in_order_from_an_offset_on(log: EventLog) -> None:
    put(log, *(record(f"a{i}", value=bytes([i]), subject="s" * (i % 2)) for i in range(5)))
    entries = log.read(Stream.EVIDENCE, 0, key="r")
    assert [(e.id, e.value, e.key, e.at, e.subject) for e in entries] == [
        (f"a{i}", bytes([i]), "r", 1000.5, "s" * (i % 2)) for i in range(5)
    ]
    offsets = [e.offset for e in entries]
    assert offsets == sorted(set(offsets))
    assert ids(log.read(Stream.EVIDENCE, offsets[3], key="r")) == ["a3", "a4"]
    assert ids(log.read(Stream.EVIDENCE, 0, 2, key="r")) == ["a0", "a1"]
    assert log.read(Stream.EVIDENCE, log.end(Stream.EVIDENCE, key="r"), key="r") == []
    put(log, record("later"))
    assert ids(log.read(Stream.EVIDENCE, offsets[-1] + 1, key="r")) == ["later"]


def test_an_append_of_several_streams_and_keys_is_one(log: EventLog) -> None:
    log.append([
        (Stream.EVIDENCE, record("a")), (Stream.INTERACTIONS, record("a", "s")), (Stream.EVIDENCE, record("b", "s")),
        (Stream.EVIDENCE, record("c")), (Stream.FEEDBACK, record("d")),
    ])  # fmt: skip
    assert ids(log.read(Stream.EVIDENCE, 0, key="r")) == ["a", "c"]
    assert ids(log.read(Stream.EVIDENCE, 0, key="s")) == ["b"]
    assert log.keys(Stream.EVIDENCE) == ["r", "s"]
    assert log.keys(Stream.INTERACTIONS) == ["s"]
    assert log.read(Stream.QUARANTINE, 0, key="r") == []
    assert log.keys(Stream.QUARANTINE) == []


def test_a_repeated_id_is_left_out_of_its_own_stream_only(log: EventLog) -> None:
    put(log, record("a", value=b"first"), record("a", value=b"twice at once"))
    put(log, record("a", value=b"second"), record("b"))
    put(log, record("a"), stream=Stream.INTERACTIONS)
    assert [(e.id, e.value) for e in log.read(Stream.EVIDENCE, 0, key="r")] == [("a", b"first"), ("b", b"v")]
    assert ids(log.read(Stream.INTERACTIONS, 0, key="r")) == ["a"]


def test_a_record_is_found_by_its_id_from_when_it_is_appended_until_it_is_gone(log: EventLog) -> None:
    put(log, *(record(f"a{i}", at=1000.0 + i, subject="jane" * (i == 3)) for i in range(5)), record("other", "t"))
    assert log.find(Stream.EVIDENCE, "a1", key="r") == log.read(Stream.EVIDENCE, 0, key="r")[1]
    put(log, record("later", at=2000.0))
    (later,) = [one for one in log.read(Stream.EVIDENCE, 0, key="r") if one.id == "later"]
    assert log.find(Stream.EVIDENCE, "later", key="r") == later
    for stream, name, key in (
        (Stream.EVIDENCE, "other", "r"),
        (Stream.EVIDENCE, "no", "r"),
        (Stream.FEEDBACK, "a1", "r"),
    ):
        assert log.find(stream, name, key=key) is None
    log.erase(Stream.EVIDENCE, subject="jane")
    gone(log, ["a0", "a1", "a2", "a4", "later"])
    log.expire(Stream.EVIDENCE, key="r", before=1002.0)
    found = [log.find(Stream.EVIDENCE, name, key="r") for name in ("a1", "a2", "a3", "later")]
    assert [one and one.id for one in found] == [None, "a2", None, "later"]


def test_the_end_is_after_the_last_entry_of_the_key(log: EventLog) -> None:
    begin = log.end(Stream.EVIDENCE, key="r")
    put(log, record("a"), record("b", "s"), record("c"))
    last = log.read(Stream.EVIDENCE, 0, key="r")[-1].offset
    assert begin <= last < log.end(Stream.EVIDENCE, key="r")
    assert log.read(Stream.EVIDENCE, begin, key="r")[0].id == "a"


def test_a_large_record_and_an_empty_one_come_back(log: EventLog) -> None:
    large = bytes(range(256)) * 8000  # 2 MB
    put(log, record("large", value=large), record("empty", value=b""))
    assert [e.value for e in log.read(Stream.EVIDENCE, 0, key="r")] == [large, b""]


def test_what_is_older_than_a_time_is_forgotten_for_its_key_alone(log: EventLog) -> None:
    put(log, *(record(f"{key}{at}", key, at=1000.0 + at) for at in range(5) for key in "rs"))
    offsets = [e.offset for e in log.read(Stream.EVIDENCE, 0, key="r")]
    log.expire(Stream.EVIDENCE, key="r", before=1002.5)
    assert [(e.id, e.offset) for e in log.read(Stream.EVIDENCE, 0, key="r")] == [("r3", offsets[3]), ("r4", offsets[4])]
    assert len(log.read(Stream.EVIDENCE, 0, key="s")) == 5
    log.expire(Stream.EVIDENCE, key="r", before=2000.0)
    assert log.read(Stream.EVIDENCE, 0, key="r") == []
    put(log, record("next", at=3000.0))
    (entry,) = log.read(Stream.EVIDENCE, 0, key="r")
    assert entry.offset > offsets[-1]  # offsets are never given twice


def test_times_count_to_the_last_digit_and_however_the_records_came(log: EventLog) -> None:
    for i, at in enumerate((1000.0, 1001.0, 1000.5, 1002.0002, 1002.0006, 1001.0)):
        put(log, record(f"a{i}", at=at))
    log.expire(Stream.EVIDENCE, key="r", before=1002.0004)
    assert [(e.id, e.at) for e in log.read(Stream.EVIDENCE, 0, key="r")] == [("a4", 1002.0006), ("a5", 1001.0)]


def test_keys_may_be_of_any_characters(log: EventLog) -> None:
    keys = sorted(["a.b", "a_b", "a-b", "A_5fb", "a b/é", "__", "x" * 64])
    put(log, *(record(f"of {key}", key) for key in keys))
    assert log.keys(Stream.EVIDENCE) == keys
    for key in keys:
        assert [(e.id, e.key) for e in log.read(Stream.EVIDENCE, 0, key=key)] == [(f"of {key}", key)]


def test_a_subjects_entries_are_erased_from_all_keys(log: EventLog) -> None:
    put(log, record("a", subject="jane"), record("b", subject="joe"), record("c", "s", subject="jane"), record("d"))
    erased = log.erase(Stream.EVIDENCE, subject="jane")
    assert [(e.id, e.key, e.value) for e in erased] == [("a", "r", b""), ("c", "s", b"")]
    gone(log, ["b", "d"])
    assert log.erase(Stream.EVIDENCE, subject="jane") == []
    assert log.erase(Stream.EVIDENCE, subject="") == []
    gone(log, ["b", "d"])


def gone(log: EventLog, left: list[str]) -> None:
    """A broker takes its time to compact."""
    deadline = time.monotonic() + 60
    while ids(log.read(Stream.EVIDENCE, 0, key="r")) != left or log.read(Stream.EVIDENCE, 0, key="s"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_group_goes_on_where_it_committed(log: EventLog) -> None:
    put(log, *(record(f"a{i}") for i in range(4)), record("b", "s"))
    first = log.consumer(Stream.EVIDENCE, group="g")
    got = polled(first, 2, limit=2)
    assert sum(first.lag().values()) >= 3
    first.commit()
    polled(first, 1)
    first.close()  # without a commit
    second = log.consumer(Stream.EVIDENCE, group="g")
    rest = polled(second, 3)
    assert sorted(ids(got + rest)) == ["a0", "a1", "a2", "a3", "b"]
    assert [e.id for e in got + rest if e.key == "r"] == ["a0", "a1", "a2", "a3"]
    second.commit()
    put(log, record("new"))
    assert ids(polled(second, 1)) == ["new"]
    deadline = time.monotonic() + 60
    while any(second.lag().values()):
        assert time.monotonic() < deadline
        assert second.poll(seconds=0.1) == []
    second.close()
    other = log.consumer(Stream.EVIDENCE, group="h")
    assert len(polled(other, 6)) == 6
    other.close()


def test_members_of_a_group_share_its_entries(log: EventLog) -> None:
    members = [log.consumer(Stream.EVIDENCE, group="g") for _ in range(2)]
    put(log, *(record(f"{key}{i}", key) for i in range(3) for key in "rs"))
    got: list[Entry] = []
    deadline = time.monotonic() + 60
    while len(got) < 6:
        assert time.monotonic() < deadline
        for member in members:
            got += member.poll(seconds=0.3)
            member.commit()
    for member in members:
        assert member.poll(seconds=0.3) == []
        member.close()
    assert sorted(ids(got)) == ["r0", "r1", "r2", "s0", "s1", "s2"]


def polled(consumer: object, least: int, limit: int = 1000) -> list[Entry]:
    got: list[Entry] = []
    deadline = time.monotonic() + 60
    while len(got) < least:
        assert time.monotonic() < deadline, ids(got)
        got += consumer.poll(limit, seconds=0.5)  # type: ignore[attr-defined]
    return got


def test_what_was_appended_is_there_after_reopening(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    first = open_log(url)
    put(first, record("a"))
    first.close()
    second = open_log(url)
    put(second, record("a"), record("b"))
    assert ids(second.read(Stream.EVIDENCE, 0, key="r")) == ["a", "b"]
    second.close()


def test_a_member_that_does_not_poll_loses_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    put(log, record("a"))
    monkeypatch.setattr("collector.log_sqlite_group.HELD_SECONDS", -1.0)
    slow, quick = log.consumer(Stream.EVIDENCE, group="g"), log.consumer(Stream.EVIDENCE, group="g")
    assert ids(slow.poll()) == ids(quick.poll()) == ["a"]
    with pytest.raises(LogError, match="another member"):
        slow.commit()
    quick.commit()
    assert slow.poll(seconds=0.0) == []
    log.close()


def test_erased_text_is_nowhere_in_the_files(tmp_path: Path) -> None:
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    put(log, *(record(f"n{i}", value=b"PLAINLY" * 2000, subject="jane") for i in range(20)), record("b"))
    assert any(b"PLAINLY" in path.read_bytes() for path in tmp_path.iterdir())
    log.erase(Stream.EVIDENCE, subject="jane")
    assert log.scour(seconds=0.1)
    assert not any(b"PLAINLY" in path.read_bytes() for path in tmp_path.iterdir())
    log.close()


def test_while_a_reader_is_in_the_way_it_is_said_that_erased_text_stays(tmp_path: Path) -> None:
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    put(log, record("a", value=b"PLAINLY" * 2000, subject="jane"))
    backup = sqlite3.connect(tmp_path / "log.db")
    backup.execute("BEGIN")
    assert len(backup.execute("SELECT * FROM evidence").fetchall()) == 1
    log.erase(Stream.EVIDENCE, subject="jane")
    assert not log.scour(seconds=0.1)
    assert any(b"PLAINLY" in path.read_bytes() for path in tmp_path.iterdir())
    put(log, record("b"))
    backup.close()
    assert log.scour(seconds=0.1)
    assert not any(b"PLAINLY" in path.read_bytes() for path in tmp_path.iterdir())
    assert ids(log.read(Stream.EVIDENCE, 0, key="r")) == ["b"]
    log.close()


OLDEST = "".join(
    f"CREATE TABLE {stream} (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, "
    f"at REAL NOT NULL, value BLOB NOT NULL); CREATE INDEX {stream}_by_key ON {stream} (key, number);"
    for stream in ("interactions", "evidence", "quarantine")
)


def test_a_log_of_the_first_schema_is_brought_up_to_date_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    old = sqlite3.connect(path)
    old.executescript(f"{OLDEST} INSERT INTO evidence VALUES (7, 'a', 'r', 1.5, x'76'); PRAGMA user_version = 1;")
    old.close()
    for _ in range(2):
        again = open_log(f"sqlite:///{path}")
        put(again, record("f"), stream=Stream.FEEDBACK)
        assert ids(again.read(Stream.FEEDBACK, 0, key="r")) == ["f"]
        assert again.read(Stream.EVIDENCE, 0, key="r") == [Entry(offset=7, id="a", key="r", at=1.5, value=b"v")]
        again.close()


FILL = """
import sys
from collector import LogFull, Record, Stream, open_log
log = open_log(sys.argv[1])
def put(n):
    log.append([(Stream.EVIDENCE, Record(id=f"{n}-{i}", key="r", at=0.0, value=b"x" * 4000)) for i in range(50)])
put(0)
log._db.execute("PRAGMA max_page_count = 90")
kept = 1
try:
    for kept in range(1, 50): put(kept)
except LogFull as error:
    print(type(error).__name__, kept, len(log.read(Stream.EVIDENCE, 0, 10000, key="r")), error)
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
