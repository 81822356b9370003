"""What killed processes left in the spool reaches the log, once, or stays on disk."""

import asyncio
import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from collector_fakes import MemoryLog, everything
from test_collector_receive import Heard, Running, happened
from test_collector_spool import KEY

from collector import FrameSender, Spool, Stream
from collector.frames import pack
from collector.spool_records import SALT_BYTES


def orphaned(folder: Path, count: int, *, key: bytes = KEY) -> Path:
    """A killed process's folder with so many frames."""
    spool = Spool(folder / "spool", key, max_bytes=64 << 20)
    for n in range(count):
        assert spool.keep(n + 1, pack(n + 1, happened(f"e{n:03d}"), b"x" * 300))
    spool.close(empty=False)
    return spool.folder


async def adopting(folder: Path, heard: Heard, *, max_bytes: int = 64 << 20) -> FrameSender:
    spool = Spool(folder / "spool", KEY, max_bytes=64 << 20)
    sender = FrameSender(folder / "c.sock", events=heard, max_bytes=max_bytes, spool=spool)
    await sender.start()
    return sender


async def test_who_closes_when_the_collector_has_all_leaves_no_folder(tmp_path: Path) -> None:
    log = MemoryLog()
    running = Running(tmp_path / "c.sock", log, Heard())
    for _ in range(5):
        orphaned(tmp_path, 30)
        sender = await adopting(tmp_path, Heard())
        await until(partial(bool, sender._kept))
        assert await sender.drain(10) == 0
        await sender.close()
        assert list((tmp_path / "spool").iterdir()) == []
    await running.end()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110 - a disk tells nobody
            await asyncio.sleep(0.01)


async def test_a_disk_that_is_full_while_frames_are_adopted_costs_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan, heard = orphaned(tmp_path, 100), Heard()
    sender = await adopting(tmp_path, heard, max_bytes=12_000)
    real = os.write

    def full(handle: int, data: bytes) -> int:
        if len(data) > 300:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr("os.write", full)
    await asyncio.sleep(0.5)  # while nobody listens memory takes a part
    assert orphan.exists()
    assert await sender.drain(0.1) == 0  # none of it would be lost
    log = MemoryLog()
    running = Running(tmp_path / "c.sock", log, Heard())
    await until(lambda: not orphan.exists())
    assert [e.id for e in everything(log, Stream.EVIDENCE)] == [f"e{n:03d}" for n in range(100)]
    assert "collector.frames_dropped" not in heard.names
    await sender.close()
    await running.end()


def zeroed(segment: Path) -> None:
    """As a power cut may leave it."""
    segment.write_bytes(segment.read_bytes()[:-3500] + bytes(3500))


def cut_before_another(segment: Path) -> None:
    segment.write_bytes(segment.read_bytes()[:-3500])
    segment.with_name("0000000002").write_bytes(bytes(SALT_BYTES))


def with_a_changed_length(segment: Path) -> None:
    """Of its 191st record, which then ends beyond the segment."""
    data = bytearray(segment.read_bytes())
    start = SALT_BYTES
    for _ in range(190):
        start += 13 + int.from_bytes(data[start + 1 : start + 5])
    data[start + 2] ^= 1
    segment.write_bytes(data)


@pytest.mark.parametrize("damage", [zeroed, cut_before_another, with_a_changed_length])
async def test_a_damaged_segment_is_kept_aside_once_and_what_stands_before_is_sent_once(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("collector.adopt.EVERY_SECONDS", 0.02)
    orphan, heard, log = orphaned(tmp_path, 200), Heard(), MemoryLog()
    segment = orphan / "0000000001"
    damage(segment)
    damaged = segment.read_bytes()
    running = Running(tmp_path / "c.sock", log, Heard())
    sender = await adopting(tmp_path, heard)
    await until(lambda: not orphan.exists())
    arrived = [e.id for e in everything(log, Stream.EVIDENCE)]
    assert arrived == [f"e{n:03d}" for n in range(len(arrived))]
    assert 188 <= len(arrived) < 200
    log.expire(Stream.EVIDENCE, key="support", before=2.0)
    await asyncio.sleep(0.3)
    assert everything(log, Stream.EVIDENCE) == []  # nothing is sent again
    (kept,) = (tmp_path / "spool").glob("damaged-*")
    assert kept.read_bytes() == damaged
    assert heard.names.count("collector.spool_damaged") == 1
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["collector.spool_damaged"]
    await sender.close()
    await running.end()


async def test_frames_of_another_key_stay_where_they_are_and_are_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("collector.adopt.EVERY_SECONDS", 0.02)
    orphan, heard, log = orphaned(tmp_path, 3, key=bytes(32)), Heard(), MemoryLog()
    running = Running(tmp_path / "c.sock", log, Heard())
    sender = await adopting(tmp_path, heard)
    await asyncio.sleep(0.3)
    assert len(list(orphan.iterdir())) == 3
    assert everything(log, Stream.EVIDENCE) == []
    assert heard.names.count("collector.spool_damaged") == 1
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["collector.spool_unreadable"]
    await sender.close()
    await running.end()


async def test_who_adopts_and_is_killed_in_turn_leaves_what_the_collector_has_not(tmp_path: Path) -> None:
    orphan, log = orphaned(tmp_path, 20), MemoryLog()
    spool = Spool(tmp_path / "spool", KEY, max_bytes=64 << 20)
    (adopted,) = spool.orphans()
    assert [left.sequence for left in adopted.frames()] == list(range(1, 21))
    adopted.acknowledged(15)
    adopted.close()
    running = Running(tmp_path / "c.sock", log, Heard())
    sender = await adopting(tmp_path, Heard())
    await until(lambda: not orphan.exists())
    assert [e.id for e in everything(log, Stream.EVIDENCE)] == [f"e{n:03d}" for n in range(15, 20)]
    await sender.close()
    await running.end()
    spool.close(empty=True)
