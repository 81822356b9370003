"""The pool fails closed: killed, stuck or confused, it gives back a scrubbed value or an error."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from collector.errors import ScrubError
from collector.scrub_pool import ScrubPool
from router import Events

EMAIL = "jane.doe@acme.org"


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[ScrubPool]:
    made = ScrubPool(str(tmp_path), routes={}, workers=1, events=Events())
    await made.start()
    yield made
    await made.close()


async def scrub(pool: ScrubPool, text: str) -> str:
    out: str = (await pool.scrub([text], route="r", cluster="c")).values[0]
    return out


def processes(pool: ScrubPool) -> list[int]:
    return [process.pid for worker in pool._idle for process in worker._executor._processes.values()]


async def outcomes(pool: ScrubPool, texts: list[str]) -> list[str | BaseException]:
    return await asyncio.gather(*(scrub(pool, text) for text in texts), return_exceptions=True)


async def test_a_killed_worker_is_replaced_and_a_stuck_one_is_an_error(pool: ScrubPool) -> None:
    first = await scrub(pool, EMAIL)
    assert first != EMAIL
    os.kill(processes(pool)[0], signal.SIGKILL)
    assert await scrub(pool, EMAIL) == first  # the salt is the folder's, so the surrogate is the same
    os.kill(processes(pool)[0], signal.SIGSTOP)
    pool._timeout = 0.5
    with pytest.raises(ScrubError, match="timeout"):
        await scrub(pool, EMAIL)
    pool._timeout = 60.0
    assert await scrub(pool, EMAIL) == first
    with pytest.raises(ScrubError):
        await pool.scrub([object()], route="r", cluster="c")  # can't even be sent to a worker


async def test_the_limit_counts_from_when_a_worker_begins_and_not_while_a_text_waits(pool: ScrubPool) -> None:
    pool._timeout = 2.5
    texts = [f"{n}: " + f"Please tell {EMAIL} that it is done. " * 30 for n in range(100)]  # together over the limit
    began = time.monotonic()
    for out in await outcomes(pool, texts):
        assert isinstance(out, str), out
        assert EMAIL not in out
    assert time.monotonic() - began > pool._timeout, "too quick to show anything"


async def test_a_hanging_text_is_refused_and_those_behind_it_are_scrubbed(pool: ScrubPool) -> None:
    pool._timeout = 2.0
    os.kill(processes(pool)[0], signal.SIGSTOP)
    hung, *behind = await outcomes(pool, [f"{EMAIL} {n} " + "x" * 150_000 * (n == 0) for n in range(8)])
    assert isinstance(hung, ScrubError)
    assert all(isinstance(out, str) and EMAIL not in out for out in behind), behind


async def test_a_worker_that_hangs_costs_no_text_of_another(tmp_path: Path) -> None:
    pool = ScrubPool(str(tmp_path), routes={}, workers=2, events=Events(), timeout=2.0)
    await pool.start()
    stopped, other = processes(pool)
    os.kill(stopped, signal.SIGSTOP)
    out = await outcomes(pool, [f"{EMAIL} {n}" for n in range(8)])
    assert sum(isinstance(o, ScrubError) for o in out) == 1
    assert sum(isinstance(o, str) and EMAIL not in o for o in out) == 7
    assert other in processes(pool)
    assert stopped not in processes(pool)
    await pool.close()


async def test_who_leaves_early_or_comes_too_late_leaves_nothing_behind(pool: ScrubPool) -> None:
    leaving = asyncio.create_task(scrub(pool, EMAIL + " and more" * 1000))
    await asyncio.sleep(0.1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert EMAIL not in await scrub(pool, EMAIL)
    os.kill(processes(pool)[0], signal.SIGSTOP)
    waiting = asyncio.create_task(outcomes(pool, [EMAIL] * 3))
    await asyncio.sleep(0.1)
    await pool.close()
    assert [str(out) for out in await waiting] == ["closed"] * 3
