"""The pool fails closed: killed, stuck or confused, it gives back a scrubbed value or an error."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from collector.errors import ScrubError
from collector.scrub_pool import ScrubPool, read_salt
from router import Events

EMAIL = "jane.doe@acme.org"


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[ScrubPool]:
    made = ScrubPool(str(tmp_path), keep={}, workers=1, events=Events())
    await made.start()
    yield made
    await made.close()


async def scrub(pool: ScrubPool, text: str) -> str:
    out: str = (await pool.scrub([text], route="r", cluster="c")).values[0]
    return out


async def test_a_killed_worker_is_replaced_and_a_stuck_one_is_an_error(pool: ScrubPool) -> None:
    first = await scrub(pool, EMAIL)
    assert first != EMAIL
    (worker,) = pool._pool._processes.values()  # type: ignore[union-attr]
    os.kill(worker.pid or 0, signal.SIGKILL)
    assert await scrub(pool, EMAIL) == first  # the salt is the folder's, so the surrogate is the same
    (worker,) = pool._pool._processes.values()  # type: ignore[union-attr]
    os.kill(worker.pid or 0, signal.SIGSTOP)
    pool._timeout = 0.5
    with pytest.raises(ScrubError, match="timeout"):
        await scrub(pool, EMAIL)
    pool._timeout = 60.0
    assert await scrub(pool, EMAIL) == first
    with pytest.raises(ScrubError):
        await pool.scrub([object()], route="r", cluster="c")  # can't even be sent to a worker


def test_the_salt_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "scrub.salt"
    salt = read_salt(path)
    assert len(salt) == 32
    assert read_salt(path) == salt
    assert path.stat().st_mode & 0o077 == 0
    assert [p.name for p in path.parent.iterdir()] == ["scrub.salt"]
