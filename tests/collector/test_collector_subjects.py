"""Whose data a record is; destroying a subject's key leaves nothing to read of it."""

import asyncio
import copy
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from collector_fakes import MemoryLog, PlainPool, answer, call, decision, everything, exchange, interaction, question
from test_collector_receive import CONFIG, Heard, Running

from collector import (
    FrameSender,
    Interactions,
    LogError,
    Record,
    Stream,
    SubjectKeys,
    decode_interaction,
    open_subjects,
)
from collector.assemble import Assembler
from collector.record import encode, sealed
from collector.retention import keep_no_longer
from collector.sealing import Sealing
from router import Arm, parse


@pytest.fixture
def keys(database_url: str) -> Iterator[SubjectKeys]:
    with closing(open_subjects(database_url)) as opened:
        yield opened


def test_a_name_is_hashed_the_same_for_all_who_share_the_database_and_for_nobody_else(
    keys: SubjectKeys, database_url: str
) -> None:
    again = open_subjects(database_url)
    other = open_subjects("sqlite:///:memory:")
    assert keys.hashed("jane") == again.hashed("jane") != other.hashed("jane")
    assert keys.hashed("jane") != keys.hashed("joe")
    assert "jane" not in keys.hashed("jane")
    again.close()


def test_a_key_is_made_once_and_is_gone_for_good_when_destroyed(keys: SubjectKeys, tmp_path: Path) -> None:
    first = keys.key("a")
    assert keys.key("a") == first != keys.key("b")
    assert keys.known({"a", "c"}) == {"a": first}
    assert keys.destroy("a")
    assert not keys.destroy("a")
    assert keys.scour(seconds=0.1)
    assert keys.known({"a", "b"}).keys() == {"b"}
    assert not any(first in path.read_bytes() for path in tmp_path.rglob("*.db*"))
    assert keys.key("a") != first


def test_a_database_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(LogError, match="file"):
        open_subjects(f"sqlite:///{tmp_path}/file")


async def test_a_record_of_a_subject_is_sealed_and_can_be_read_until_it_is_erased(
    tmp_path: Path, keys: SubjectKeys
) -> None:
    log, path = MemoryLog(), tmp_path / "c.sock"
    running = Running(
        path, log, Heard(), assembler=Assembler(CONFIG, PlainPool(), Heard(), sealing=Sealing(keys, Heard()))
    )
    sender = FrameSender(path, events=Heard())
    await sender.start()
    said = answer("red")
    named = question("q", user="jane@example.com", safety_identifier="s-1", metadata={"user_id": "u-1", "a": "b"})
    for n, (asked, subject) in enumerate([(question("q"), None), (named, None), (question("q"), "joe")]):
        made = exchange(n, request=asked, served=call(Arm.TEACHER, said), subject=subject)
        sender.send(made, asked, said)
    assert await sender.drain(10) == 0
    await sender.close()
    await running.end()
    plain, janes, joes = sorted(everything(log, Stream.INTERACTIONS), key=lambda e: e.id)
    assert [sealed(e.value) for e in (plain, janes, joes)] == [False, True, True]
    assert (plain.subject, joes.subject) == ("", keys.hashed("joe"))
    records = dict(Interactions(log, keys).of("support"))
    assert {record.id for record in records.values()} == {"x0", "x1", "x2"}
    hers = records[janes.offset]
    assert hers.subject == janes.subject == hers.request["user"] == keys.hashed("jane@example.com")
    assert hers.request["safety_identifier"] == keys.hashed("s-1")
    assert hers.request["metadata"] == {"user_id": keys.hashed("u-1"), "a": "b"}
    with pytest.raises(LogError, match="subject's key"):
        decode_interaction(janes.value)
    with pytest.raises(LogError, match="can't be read"):
        decode_interaction(janes.value, keys.key(joes.subject))
    keys.destroy(janes.subject)
    assert {record.id for _, record in Interactions(log, keys).of("support")} == {"x0", "x2"}


@pytest.mark.parametrize(
    ("asked", "said", "route"),
    [
        (b"no json", answer("red"), "support"),
        (question("q"), b"no json", "support"),
        (question("POISON"), answer("red"), "support"),
        (question("UNFORESEEN"), answer("red"), "support"),
        (question("q"), answer("red"), "nobody's"),
        (question("POISON", user="jane@example.com"), answer("red"), "support"),
        (question("q", user="jane@example.com"), answer("red"), "nobody's"),
    ],
)
async def test_what_is_put_aside_names_nobody_and_is_erased_with_its_subject(
    keys: SubjectKeys, asked: bytes, said: bytes, route: str
) -> None:
    assembler = Assembler(CONFIG, PlainPool(), Heard(), sealing=Sealing(keys, Heard()))
    jane = "jane@example.com"
    made = exchange(
        request=asked,
        served=call(Arm.TEACHER, said),
        decision=decision(route=route),
        subject=None if b"jane" in asked else jane,
        imported="openai",
    )
    (later,) = assembler.begin(made, asked + said).later
    records = await later
    assert [stream for stream, _ in records] == [Stream.QUARANTINE]
    assert jane.encode() not in records[0][1].value
    log = MemoryLog()
    log.append(records)
    assert len(log.erase(Stream.QUARANTINE, subject=keys.hashed(jane))) == 1


async def test_a_user_that_is_a_number_is_hashed_as_its_text(keys: SubjectKeys) -> None:
    asked = {"user": 4711, "metadata": {"user_id": 1.5, "a": 1}, "safety_identifier": None}
    clean = copy.deepcopy(asked)
    made = exchange(1, served=call(Arm.TEACHER))
    assert await Sealing(keys, Heard()).name(made, asked, clean) == keys.hashed("4711")
    assert clean == {
        "user": keys.hashed("4711"), "metadata": {"user_id": keys.hashed("1.5"), "a": 1}, "safety_identifier": None
    }  # fmt: skip


def stored(log: MemoryLog, keys: SubjectKeys, number: int, subject: str = "") -> None:
    made = interaction(number, subject=subject)
    value = encode(made, keys.key(subject) if subject else None)
    log.append([(Stream.INTERACTIONS, Record(id=made.id, key=made.route, at=made.at, value=value, subject=subject))])


def test_interactions_are_read_in_a_range_over_pages_of_which_one_is_erased_whole(
    monkeypatch: pytest.MonkeyPatch, keys: SubjectKeys
) -> None:
    monkeypatch.setattr("collector.interactions.PAGE", 3)
    log = MemoryLog()
    for n in range(10):
        stored(log, keys, n, subject="jane" if 3 <= n < 6 else "joe" if n % 2 else "")
    keys.destroy("jane")
    interactions = Interactions(log, keys)
    found = list(interactions.of("colours"))
    assert [record.id for _, record in found] == ["x0", "x1", "x2", "x6", "x7", "x8", "x9"]
    places = [offset for offset, _ in found]
    assert [offset for offset, _ in interactions.of("colours", start=places[1], end=places[-1])] == places[1:-1]
    assert interactions.end("colours") == places[-1] + 1
    assert list(interactions.of("other")) == []


def test_a_spread_is_taken_evenly_and_a_short_range_whole(keys: SubjectKeys) -> None:
    log = MemoryLog()
    for n in range(2000):
        stored(log, keys, n, subject="jane" if n < 500 else "")
    keys.destroy("jane")
    interactions = Interactions(log, keys)
    found = [int(record.id[1:]) for record in interactions.spread("colours", start=1, end=1801, most=400)]
    assert found == sorted(set(found))
    assert len(found) == 250, "five runs of fifty; three stood where everything is erased"
    quarters = [sum(low <= n < low + 650 for n in found) for low in (500, 1150)]
    assert max(quarters) - min(quarters) <= 50
    assert max(found) < 1800
    for start, end, wanted in ((601, 701, range(600, 700)), (501, 1801, range(500, 1800)), (2001, 2001, range(0))):
        some = interactions.spread("colours", start=start, end=end, most=1300)
        assert [record.id for record in some] == [f"x{n}" for n in wanted]


def test_what_comes_after_its_subject_was_erased_but_is_older_is_erased_too(keys: SubjectKeys) -> None:
    log = MemoryLog()
    stored(log, keys, 1, subject="jane")
    keys.destroy("jane")
    now = time.time()
    for n, at in ((2, now - 60), (3, now + 60), (4, now - 60)):  # 2 and 4 waited in a spool meanwhile
        made = interaction(n, at=at, subject="jane")
        value = encode(made, keys.key("jane", at=at))
        log.append([(Stream.INTERACTIONS, Record(id=made.id, key=made.route, at=at, value=value, subject="jane"))])
    assert [record.id for _, record in Interactions(log, keys).of("colours")] == ["x3"]
    assert keys.key("jane", at=now - 60) not in (keys.key("jane"), keys.key("jane", at=now - 60))


async def test_a_database_of_subjects_that_is_away_for_a_while_loses_nothing_and_is_told_of_once(
    keys: SubjectKeys, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times = [0, 0]

    def away(self: SubjectKeys, subject: str, *, at: float) -> bytes:
        times[0] += 1
        if times[0] < 3:
            raise LogError("away")
        return real(self, subject, at=at)

    real = SubjectKeys.key
    monkeypatch.setattr(SubjectKeys, "key", away)
    heard = Heard()
    sealing = Sealing(keys, heard)
    records = await asyncio.gather(*(sealing.record(interaction(n, subject="jane"), at=1.0) for n in range(50)))
    key = keys.known({"jane"})["jane"]
    assert [decode_interaction(record.value, key).id for record in records] == [f"x{n}" for n in range(50)]
    assert heard.names == ["collector.subjects_failed"] * 2
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["collector.subjects_failed"]


# What the first schema wrote, byte for byte: read for ever.
FIRST = bytes.fromhex(
    "de0012a6736368656d6101a26964a27831a26174cb408f480000000000a5726f757465a7636f6c6f757273a46b696e64a463686174a361"
    "726da774656163686572a776657273696f6ec0aa70726f70656e73697479cb3ff0000000000000a8656c696769626c65c3ae706f6c6963"
    "795f76657273696f6ea170b0726f6c6c6f75745f7265766973696f6e00a7636f6e73656e74a76f70742d6f7574a87363727562626572a2"
    "7331a7636c7573746572a26331a673747265616dc2a77265717565737482a56d6f64656ca16da86d657373616765739282a4726f6c65a6"
    "73797374656da7636f6e74656e74b84e616d652074686520636f6c6f7572206173204a534f4e2e82a4726f6c65a475736572a7636f6e74"
    "656e74be313a206120677265656e2073746f6e6520696e2074686520737472656574a7616e7377657273918fa361726da7746561636865"
    "72a776657273696f6ec0a8757073747265616da475702f6da56d6f64656cc0b273797374656d5f66696e6765727072696e74c0a6737461"
    "747573ccc8a56572726f72c0ad66696e6973685f726561736f6ea473746f70a76d65737361676582a4726f6c65a9617373697374616e74"
    "a7636f6e74656e74b37b22636f6c6f7572223a2022677265656e227da57573616765c0a8636f73745f757364c0a7747466745f6d73c0a8"
    "746f74616c5f6d73c0aa636f6e666964656e6365c0a86465666572726564c2a66661696c656490"
)


def test_records_of_the_first_schema_stay_readable() -> None:
    record = decode_interaction(FIRST)
    assert (record.schema, record.id, record.route, record.subject) == (1, "x1", "colours", "")
    assert record.request["messages"][-1]["content"]
    assert record.answers[0].message
    assert decode_interaction(encode(record)) == record


def test_a_record_that_was_changed_is_refused(keys: SubjectKeys) -> None:
    for key in (None, keys.key("jane")):
        value = bytearray(encode(interaction(1), key))
        value[-3] ^= 1
        with pytest.raises(LogError, match="can't be read"):
            decode_interaction(bytes(value), key)


async def test_what_is_too_old_is_forgotten_and_evidence_stays_and_what_a_reader_kept_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.retention.EVERY_SECONDS", 0.01)
    config = parse(
        """
        upstreams: {o: {base_url: "http://x"}}
        routes: {short: {teachers: [o/m], capture: {retention_days: 2}}, long: {teachers: [o/m]}}
        """,
        {},
    )
    log, now = MemoryLog(), [1_000_000.0]
    keys = open_subjects(f"sqlite:///{tmp_path}/subjects.db")
    key = keys.key("jane")
    backup = sqlite3.connect(tmp_path / "subjects.db")
    backup.execute("BEGIN")
    assert backup.execute("SELECT * FROM subjects").fetchall()
    keys.destroy("jane")
    assert not keys.scour(seconds=0.1)
    backup.close()
    log.append([
        (stream, Record(id=f"{key}{n}", key=key, at=now[0] + n * 3600, value=b"v"))
        for stream in Stream for key in ("short", "long") for n in (0, 1)
    ])  # fmt: skip
    task = asyncio.create_task(keep_no_longer(config, log, keys, clock=lambda: now[0]))
    for later, left in ((0.0, ["short0", "short1"]), (2 * 86400 + 1800, ["short1"]), (3 * 86400, [])):
        now[0] = 1_000_000.0 + later
        async with asyncio.timeout(5):
            while [e.id for e in log.read(Stream.FEEDBACK, 0, key="short")] != left:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        while any(key in path.read_bytes() for path in tmp_path.glob("subjects.db*")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    keys.close()
    for stream in Stream:
        assert len(log.read(stream, 0, key="long")) == 2
    assert log.read(Stream.INTERACTIONS, 0, key="short") == log.read(Stream.QUARANTINE, 0, key="short") == []
    assert len(log.read(Stream.EVIDENCE, 0, key="short")) == 2
