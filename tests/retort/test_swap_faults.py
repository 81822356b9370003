"""Swaps under load, and what breaks meanwhile: real processes, and answers that tell by their letters who made them."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import swap_student
from swap_load import Answer, Load
from swap_stand import Stand

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

NORTH, SOUTH = swap_student.WORDS
LONG = 400


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """`old` is live, and every test leaves it so; `new` is loaded beside it."""
    folder = tmp_path_factory.mktemp("swap")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        made = Stand(folder / "stand", swap_student.onnx(folder / "students"))
        try:
            made.start()
            made.add("old", NORTH)
            made.add("new", SOUTH)
            made.live("old")
            time.sleep(1.5)  # every gateway has read it
            yield made
        finally:
            made.stop()


@asynccontextmanager
async def loading(stand: Stand, rate: float = 20.0) -> AsyncIterator[Load]:
    """Steady load while inside; then all answers are there."""
    async with asking(stand) as load:
        over = asyncio.Event()
        running = asyncio.create_task(load.run(rate, over))
        yield load
        over.set()
        await running
        await load.finish()


@asynccontextmanager
async def asking(stand: Stand) -> AsyncIterator[Load]:
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        yield Load(client, stand.url, stand.words)


async def until(condition: object, stand: Stand, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, stand.log("engine")[-3000:] + stand.log("gateway")[-2000:]
        await asyncio.sleep(0.05)


def bad(load: Load) -> list[Answer]:
    return [answer for answer in load.answers if answer.verdict != "ok"]


async def served(load: Load, version: str, stand: Stand) -> None:
    """Ask until it answers."""

    async def asked() -> bool:
        for session in range(8):  # a tenth is the teacher's
            await load.ask(time.monotonic(), session, stream=False, tokens=8)
        return any(answer.served == version for answer in load.answers[-8:])

    deadline = time.monotonic() + 60
    while not await asked():
        assert time.monotonic() < deadline, stand.log("engine")[-3000:] + stand.log("gateway")[-2000:]
        await asyncio.sleep(0.1)


async def test_swap_and_rollback_under_load_fail_cut_and_mix_nothing_and_conversations_keep_their_arm(
    stand: Stand,
) -> None:
    async with loading(stand) as load:
        await asyncio.sleep(1.0)
        load.streams(30, LONG)
        for version, back in (("new", False), ("old", True)):
            began = time.monotonic()
            stand.live(version, back=back)
            await until(
                lambda version=version, began=began: any(a.served == version and a.at > began for a in load.answers),
                stand,
            )
            # It is warm: what takes its time is the gateway's look at the registry, once a second.
            assert time.monotonic() - began < 5.0
            await asyncio.sleep(0.5)
    assert not bad(load)
    assert {answer.served for answer in load.answers} == {"teacher", "old", "new"}
    arms: dict[int, set[str]] = {}
    for answer in load.answers:
        arms.setdefault(answer.session, set()).add(answer.arm)
    assert all(len(found) == 1 for found in arms.values())


async def test_worker_killed_under_many_streams_is_told_falls_back_and_serves_again(stand: Stand) -> None:
    async with asking(stand) as load:
        load.streams(30, LONG)
        await until(lambda: load.first_texts >= 2, stand)
        os.kill(stand.workers()["old"], signal.SIGKILL)
        await load.finish()
        cut = bad(load)
        assert cut
        assert {answer.verdict for answer in cut} == {"cut"}
        assert all("upstream" in answer.why or "worker" in answer.why for answer in cut), {a.why for a in cut}
        await load.ask(time.monotonic(), 1, stream=False, tokens=8)
        assert (load.answers[-1].verdict, load.answers[-1].served) == ("ok", "teacher")
        await served(load, "old", stand)


async def test_engine_killed_under_many_streams_is_told_falls_back_and_serves_again(stand: Stand) -> None:
    async with asking(stand) as load:
        load.streams(30, LONG)
        await until(lambda: load.first_texts >= 2, stand)
        stand.processes["engine"].kill()
        stand.processes["engine"].wait()
        await load.finish()
        cut = bad(load)
        assert cut
        assert {answer.verdict for answer in cut} == {"cut"}
        assert all("upstream_cut" in answer.why for answer in cut), {a.why for a in cut}
        await load.ask(time.monotonic(), 1, stream=False, tokens=8)
        assert (load.answers[-1].verdict, load.answers[-1].served) == ("ok", "teacher")
        await asyncio.to_thread(stand.start_engine)
        await served(load, "old", stand)
