"""One cycle of a route at a time: two retrainers with state folders of their own share a registry."""

import asyncio
import fcntl
import os
import signal
import threading
from contextlib import closing
from pathlib import Path

from daemon_run import FINISH, config, cycles_of, log_exchanges, running, stand_in, until

from retrainer.ask import ask
from retrainer.child import STOP_SECONDS
from retrainer.lease import IDENTITY, LEASE_SECONDS, RENEWALS, Leases, Lost
from retrainer.state import Request
from router import open_registry
from router.config import Config


def two_machines(folder: Path, database_url: str) -> tuple[Config, Config]:
    made = []
    for name in ("a", "b"):
        settings = config(folder / name).model_copy(update={"registry": database_url})
        log_exchanges(settings, range(2))
        ask(settings.state, Request(cycle_id=f"of-{name}", route="colours"))
        made.append(settings)
    return made[0], made[1]


async def test_a_second_retrainer_waits_until_the_first_has_finished(tmp_path: Path, database_url: str) -> None:
    first, second = two_machines(tmp_path, database_url)
    began, go = tmp_path / "began", tmp_path / "go"
    slow = f"import os\nopen({str(began)!r}, 'w').close()\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)\n"
    async with running(first, stand_in(slow + FINISH)):
        await until(began.exists)
        async with running(second, stand_in(FINISH)):
            await asyncio.sleep(0.5)
            assert cycles_of(second) == [], "it has not even begun"
            go.touch()
            await until(lambda: [s.outcome for s in cycles_of(second)] == ["registered"])
    assert [s.outcome for s in cycles_of(first)] == ["registered"]


async def test_a_retrainer_that_has_lost_its_lease_stops_its_worker_and_goes_on_when_it_can(tmp_path: Path) -> None:
    first, _ = two_machines(tmp_path, f"sqlite:///{tmp_path}/registry.db")
    pid = tmp_path / "pid"
    code = f"import os\nopen({str(pid)!r}, 'a').write(f'{{os.getpid()}} ')\n"
    registry = open_registry(first.registry)
    async with running(first, stand_in(code + "time.sleep(60)"), lease=0.8):
        await until(lambda: pid.exists() and pid.read_text())
        worker = int(pid.read_text().split()[0])
        # As if this machine had slept for longer than the lease lasts, and another had taken it.
        name = "retrainer:colours"
        ((holder,),) = registry._database.read("SELECT holder FROM leases WHERE name = ?", name)  # type: ignore[attr-defined]
        registry.release(name, holder=holder)
        assert registry.lease(name, holder="another", seconds=1.5)
        await until(lambda: not alive(worker))
        assert [s.outcome for s in cycles_of(first)] == [None], "it is no failure"
        await until(lambda: len(pid.read_text().split()) == 2)
    registry.close()


def alive(process: int) -> bool:
    try:
        os.kill(process, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True


async def test_without_a_registry_no_cycle_begins_and_a_lease_that_can_not_be_renewed_is_given_up_in_time(
    tmp_path: Path,
) -> None:
    settings = config(tmp_path / "s").model_copy(update={"registry": "postgresql://127.0.0.1:1/x"})
    with closing(Leases(settings, seconds=0.4)) as leases:
        assert not leases.take("colours")
        lost = Lost()
        keeping = asyncio.create_task(leases.keep("colours", lost))
        await asyncio.wait_for(lost.wait(), 10)
        await keeping
    assert not lost.gone


def test_a_worker_that_must_end_has_ended_before_its_lease_is_anybodys() -> None:
    assert LEASE_SECONDS / RENEWALS >= STOP_SECONDS


async def test_a_registry_that_does_not_answer_loses_the_lease(tmp_path: Path) -> None:
    leases, lost, hanging = Leases(config(tmp_path / "s"), seconds=0.8), Lost(), threading.Event()

    def hang(route: str) -> bool:
        return hanging.wait(30)

    leases._ask = hang  # type: ignore[method-assign]
    try:
        await asyncio.wait_for(leases.keep("colours", lost), 10)
    finally:
        hanging.set()
        leases.close()
    assert lost.is_set()
    assert not lost.gone


async def test_a_lease_that_is_anothers_already_is_gone(tmp_path: Path) -> None:
    leases, lost = Leases(config(tmp_path / "s"), seconds=6.0), Lost()
    leases._ask = lambda route: False  # type: ignore[method-assign]
    with closing(leases):
        await leases.keep("colours", lost)
    assert lost.gone


def test_a_retrainer_that_was_killed_has_its_lease_again_at_once_and_a_second_one_beside_it_has_not(
    tmp_path: Path,
) -> None:
    settings = config(tmp_path / "s")
    killed = Leases(settings)
    assert killed.take("colours")
    beside = Leases(settings)
    assert not beside.take("colours")
    beside.close()
    killed.close()  # as the kernel does for a killed process: nothing was given back
    with closing(Leases(settings)) as again:
        assert again.take("colours")


def test_who_looks_whether_a_retrainer_runs_takes_no_retrainers_name(tmp_path: Path) -> None:
    settings = config(tmp_path)
    first = Leases(settings)
    first.close()
    with (tmp_path / IDENTITY).open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.15, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        again = Leases(settings)
    again.close()
    assert again._holder == first._holder
