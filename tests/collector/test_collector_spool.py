"""Frames on disk until they are acknowledged; what a killed process left is sent by its successor."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from collector_fakes import MemoryLog, answer, call, everything, exchange, question
from test_collector_receive import Heard, Running, happened

from collector import Exchange, FrameSender, Spool, SpoolError, Stream, decode_interaction
from collector.frames import header_id, pack
from collector.spool import SEGMENT_BYTES
from router import Arm, ConfigError, Events, parse

KEY = bytes(range(32))
TEXT = question("PLAINLY SAID")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", KEY, max_bytes=64 << 20)


def answered(number: int, *shadows: bytes) -> tuple[Exchange, list[bytes]]:
    said = answer("red")
    calls = tuple(call(Arm.STUDENT, body) for body in shadows)
    return exchange(number, request=TEXT, served=call(Arm.TEACHER, said), shadows=calls), [TEXT, said, *shadows]


def kept(spool: Spool, sequence: int, *, begun: bool = False, size: int = 0) -> None:
    header, bodies = answered(sequence)
    assert spool.keep(sequence, pack(sequence, header, *bodies, b"x" * size), begun=begun)


def left(spool: Spool) -> list[str]:
    """What a successor finds once the process is gone."""
    spool.close(empty=False)
    return found(spool.folder.parent, KEY)


def found(folder: Path, key: bytes) -> list[str]:
    other = Spool(folder, key, max_bytes=64 << 20)
    (orphan,) = other.orphans()
    try:
        return [header_id(left.header) for left in orphan.frames()]
    finally:
        orphan.close()
        other.close(empty=True)


def test_a_successor_finds_what_was_not_acknowledged_and_first_of_all_in_order(spool: Spool) -> None:
    for n in range(1, 8):
        kept(spool, n)
    spool.acknowledged(3)
    assert left(spool) == ["x4", "x5", "x6", "x7"]


def test_an_exchange_that_was_answered_but_not_over_is_found_unless_it_followed_whole(spool: Spool) -> None:
    kept(spool, 1, begun=True)
    kept(spool, 2, begun=True)
    kept(spool, 2)
    spool.over(2)
    kept(spool, 3)
    spool.acknowledged(3)
    assert left(spool) == ["x1"]


def test_nothing_of_a_frame_can_be_read_on_disk(spool: Spool) -> None:
    kept(spool, 1)
    files = [path for path in spool.folder.iterdir() if path.is_file()]
    assert len(files) == 3
    assert not any(b"PLAINLY" in path.read_bytes() or b"gpt" in path.read_bytes() for path in files)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (*files, spool.folder))
    assert left(spool) == ["x1"]


def test_with_another_key_or_a_changed_byte_it_is_refused_and_kept(spool: Spool) -> None:
    kept(spool, 1)
    spool.close(empty=False)
    with pytest.raises(SpoolError, match="another key, or changed"):
        found(spool.folder.parent, bytes(32))
    path = spool.folder / "0000000001"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SpoolError, match="another key, or changed"):
        found(spool.folder.parent, KEY)
    assert path.exists()


def test_a_disk_with_no_room_for_a_segment_leaves_no_file_and_no_handle(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    handles = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        for n in range(5):
            with pytest.raises(OSError, match="No space"):
                spool.keep(n, pack(n, happened("e")))
    assert len(list(Path("/proc/self/fd").iterdir())) == handles
    assert list(spool.folder.glob("0*")) == []
    kept(spool, 1)
    assert left(spool) == ["x1"]


def test_a_record_that_was_cut_by_the_kill_is_passed_over(spool: Spool) -> None:
    kept(spool, 1)
    path = spool.folder / "0000000001"
    whole = path.stat().st_size
    kept(spool, 2)
    spool.close(empty=False)
    data = path.read_bytes()
    for end in (*range(whole, whole + 30), len(data) - 5, len(data) - 1):
        path.write_bytes(data[:end])
        assert found(spool.folder.parent, KEY) == ["x1"]
    path.write_bytes(data[: whole - 5])
    assert found(spool.folder.parent, KEY) == []
    with pytest.raises(SpoolError, match="another key"):
        found(spool.folder.parent, bytes(32))


def test_acknowledged_segments_are_removed_and_make_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", KEY, max_bytes=2 * SEGMENT_BYTES)
    part = SEGMENT_BYTES // 2 - 2000
    for n in range(1, 5):
        kept(spool, n, size=part)
    header, bodies = answered(5)
    frame = pack(5, header, *bodies, b"x" * part)
    assert spool.keep(5, frame) is None
    segments = sorted(path.name for path in spool.folder.glob("0*"))
    spool.acknowledged(1)
    assert sorted(path.name for path in spool.folder.glob("0*")) == segments
    spool.acknowledged(2)
    assert sorted(path.name for path in spool.folder.glob("0*")) == segments[1:]
    place = spool.keep(5, frame)
    assert place is not None
    assert spool.read(place) == b"".join(frame)
    spool.acknowledged(5)
    assert len(list(spool.folder.glob("0*"))) <= 1
    spool.close(empty=True)
    assert not spool.folder.exists()


def test_a_full_disk_has_what_is_acknowledged_removed(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert (spool.folder / "acked").stat().st_size == 8
    for n in range(1, 4):
        kept(spool, n, size=SEGMENT_BYTES // 2)
    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(OSError, match="No space"):
            spool.acknowledged(2)
        Spool(spool.folder.parent, KEY, max_bytes=1 << 20).close(empty=True)
    assert [path.name for path in spool.folder.glob("0*")] == ["0000000003"]
    assert left(spool) == ["x3"]


def test_a_living_process_keeps_its_folder(spool: Spool) -> None:
    kept(spool, 1)
    other = Spool(spool.folder.parent, KEY, max_bytes=1 << 20)
    (spool.folder.parent / ".1-being-made").mkdir()
    assert other.orphans() == []
    other.close(empty=True)
    assert left(spool) == ["x1"]


def test_a_segment_waits_for_the_exchanges_that_began_in_it(spool: Spool) -> None:
    kept(spool, 1, begun=True)
    kept(spool, 2, size=SEGMENT_BYTES - 100_000)
    kept(spool, 3, size=SEGMENT_BYTES - 100_000)
    spool.acknowledged(3)
    assert (spool.folder / "0000000001").exists()
    spool.over(1)
    spool.acknowledged(3)
    assert not (spool.folder / "0000000001").exists()
    assert left(spool) == []


def test_a_record_that_was_written_in_part_costs_its_segment_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", KEY, max_bytes=2 * SEGMENT_BYTES)
    kept(spool, 1)
    first = spool.folder / "0000000001"
    size = first.stat().st_size
    header, bodies = answered(2)
    real = os.write
    with monkeypatch.context() as full:
        full.setattr("os.write", lambda handle, data: real(handle, data[:-7]))
        with pytest.raises(OSError, match="in part"):
            spool.keep(2, pack(2, header, *bodies))
    assert first.stat().st_size == size  # no damage, for a successor
    kept(spool, 3)
    spool.acknowledged(1)
    assert spool.has_room(2 * SEGMENT_BYTES - 4000)
    assert not spool.has_room(2 * SEGMENT_BYTES)
    assert left(spool) == ["x3"]


async def test_what_memory_has_no_room_for_waits_on_disk_and_arrives_in_order(tmp_path: Path, spool: Spool) -> None:
    heard, path = Heard(), tmp_path / "c.sock"
    sender = FrameSender(path, events=heard, max_bytes=3000, spool=spool)
    await sender.start()
    assert all(sender.send(happened(f"e{n:03d}"), b"x" * 300) for n in range(200))
    assert await sender.drain(0.1) == 0  # none of them would be lost
    log = MemoryLog()
    running = Running(path, log, Heard())
    while len(everything(log, Stream.EVIDENCE)) < 200:  # noqa: ASYNC110 - a log tells nobody
        await asyncio.sleep(0.01)
    assert [e.id for e in everything(log, Stream.EVIDENCE)] == [f"e{n:03d}" for n in range(200)]
    await sender.drain(10)
    await sender.close()
    assert not spool.folder.exists()
    assert "collector.frames_dropped" not in heard.names
    await running.end()


async def test_a_full_spool_is_counted_and_memory_still_takes_what_it_can(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", KEY, max_bytes=1000)
    heard = Heard()
    sender = FrameSender(tmp_path / "c.sock", events=heard, max_bytes=4000, spool=spool)
    await sender.start()
    taken = [sender.send(happened(f"e{n}"), b"x" * 300) for n in range(20)]
    assert 5 < sum(taken) < 20
    assert heard.names.count("collector.frames_dropped") == 20 - sum(taken)
    assert heard.names.count("collector.spool_refused") > 10
    await sender.close()


CHILD = """
import asyncio, sys
from pathlib import Path
from collector import FrameSender, Spool
from router import Events
sys.path.insert(0, sys.argv[1])
from test_collector_spool import KEY, answered

async def main():
    spool = Spool(Path(sys.argv[2]) / "spool", KEY, max_bytes=64 << 20)
    sender = FrameSender(Path(sys.argv[2]) / "c.sock", events=Events(), spool=spool)
    await sender.start()
    n = 0
    while True:
        header, bodies = answered(n)
        begun = sender.begin(header, *bodies)
        if n % 3:
            sender.send(header, *bodies, begun=begun)
        print(n, flush=True)
        n += 1
        await asyncio.sleep(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("collecting", [False, True])
async def test_a_killed_sender_loses_none_of_what_it_had_taken(tmp_path: Path, *, collecting: bool) -> None:
    log, path = MemoryLog(), tmp_path / "c.sock"
    running = Running(path, log, Heard()) if collecting else None
    arguments = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path)]
    last = -1
    for _ in range(3):
        child = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(300):
            last = max(last, int(await child.stdout.readline()))
        child.send_signal(signal.SIGKILL)
        rest = await child.stdout.read()
        last = max([last, *(int(line) for line in rest.split(b"\n")[:-1])])
        await child.wait()
    running = running or Running(path, log, Heard())
    sender = FrameSender(path, events=Events(), spool=Spool(tmp_path / "spool", KEY, max_bytes=64 << 20))
    await sender.start()
    wanted = {f"x{n}" for n in range(last + 1)}
    async with asyncio.timeout(60):
        while {e.id for e in everything(log, Stream.INTERACTIONS)} < wanted:  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.05)
        while len(list((tmp_path / "spool").iterdir())) > 1:  # noqa: ASYNC110 - nor does a disk
            await asyncio.sleep(0.05)
    entries = everything(log, Stream.INTERACTIONS)
    assert len(entries) == len({e.id for e in entries})
    assert all(decode_interaction(e.value).answers[0].message for e in entries)
    assert await sender.drain(10) == 0
    await sender.close()
    assert list((tmp_path / "spool").iterdir()) == []
    await running.end()


def test_a_key_that_is_none_is_refused_without_being_told() -> None:
    with pytest.raises(ConfigError, match=r"spool.key: must be 64 hexadecimal digits") as caught:
        parse("upstreams: {}\nroutes: {}\nspool: {key: hunter2}", {})
    assert "hunter2" not in str(caught.value)
