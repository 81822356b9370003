"""Swaps under load, and what breaks meanwhile: real processes, and answers that tell by their letters who made them."""

import asyncio
import os
import re
import signal
import sys
import time
import urllib.request
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
        made = Stand(folder / "stand", swap_student.onnx(folder / "students"), patience=40.0)
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
        try:
            yield load
        finally:
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


@pytest.mark.parametrize(
    ("text", "models", "ended", "verdict"),
    [
        ("north no", {"old"}, True, "ok"),
        ("norsouth", {"old"}, True, "mixed"),
        ("south so", {"old"}, True, "mixed"),
        ("north no", {"old", "new"}, True, "mixed"),
        ("north ", {"old"}, True, "mixed"),
        ("north ", {"old"}, False, "cut"),
        ("sout", {"old"}, False, "mixed"),
    ],
)
async def test_an_answer_tells_whether_one_version_made_it_to_its_end(
    text: str, models: set[str], ended: bool, verdict: str
) -> None:
    answer = Answer(at=0.0, session=1, stream=True, served="old")
    async with aiohttp.ClientSession() as client:
        Load(client, "http://127.0.0.1:9", {"old": NORTH, "new": SOUTH})._judge(answer, text, models, 8, ended=ended)
    assert answer.verdict == verdict


async def test_swap_and_rollback_under_load_fail_cut_and_mix_nothing_and_conversations_keep_their_arm(
    stand: Stand,
) -> None:
    workers = stand.workers()
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
            await asyncio.sleep(0.5)
    assert stand.workers() == workers  # both are warm: nothing is loaded, there or back
    assert not bad(load)
    assert {answer.served for answer in load.answers} - {"teacher"} == {"old", "new"}
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


async def test_version_with_a_flipped_byte_is_told_and_never_serves_and_the_old_one_goes_on(stand: Stand) -> None:
    stand.publish("bad", SOUTH)
    file = stand.store.path("bad") / "model.onnx.data"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()  # its bytes are another artefact's as well
    file.write_bytes(data)
    async with loading(stand) as load:
        stand.register("bad", SOUTH)
        await until(lambda: "engine.unready version='bad'" in stand.log("engine"), stand)
        await asyncio.sleep(1.0)
    assert "has sha256" in stand.log("engine")
    assert "bad" not in stand.registry.snapshot().endpoints
    assert not bad(load)
    assert {answer.served for answer in load.answers} - {"teacher"} == {"old"}


async def test_clients_that_leave_by_the_hundred_mid_stream_cost_no_place_no_memory_and_no_worker(stand: Stand) -> None:
    worker, before = stand.workers()["old"], stand.memory()
    async with asking(stand) as load:
        for _ in range(2):
            load.streams(100, LONG)
            await until(lambda: load.first_texts > 0, stand)
            await asyncio.sleep(0.3)
            for task in load.inside:
                task.cancel()
            await asyncio.gather(*load.inside, return_exceptions=True)
        await until(lambda: inside(stand, "old") == 0, stand)
        await served(load, "old", stand)
        assert not [answer for answer in load.answers[-8:] if answer.verdict != "ok"]
    assert stand.workers()["old"] == worker
    after = stand.memory()
    assert after["engine"] + after["workers"] < before["engine"] + before["workers"] + 40e6


def inside(stand: Stand, version: str) -> float:
    """Requests that wait or decode in the engine, by the metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stand.gateway_port}/metrics") as page:
        text = page.read().decode()
    found = re.findall(rf'^retort_engine_requests{{[^}}]*version="{version}"}} (\S+)$', text, re.MULTILINE)
    assert len(found) == 2, text
    return sum(map(float, found))


async def test_worker_that_hangs_costs_its_clients_a_pause_and_then_the_teacher_answers(stand: Stand) -> None:
    """That it is then ended and replaced is tested in the engine, whose patience is longer than a test's."""
    stopped = stand.workers()["old"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        async with asking(stand) as load:
            await asyncio.gather(*(load.ask(time.monotonic(), n, stream=n % 2 == 0, tokens=8) for n in range(6)))
            assert not bad(load)
            assert {answer.served for answer in load.answers} == {"teacher"}
    finally:
        os.kill(stopped, signal.SIGCONT)
    async with asking(stand) as load:
        await served(load, "old", stand)
