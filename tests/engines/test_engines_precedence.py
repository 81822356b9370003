"""Which version is loaded where not all can be, or not at once."""

import asyncio
from typing import Any

import msgspec
import pytest
from engine_fakes import FakeRegistry, until, version
from idle_instance import Loads, reconciler

from exporters.models import MissingArtefact
from gateway.engines.errors import DecodeFailed, NoRoom, NotReady, Unfit, WorkerGone
from gateway.engines.precedence import Precedence, interrupts
from gateway.engines.timing import Timing
from router import EventKind, RouteEvent, Stage
from router.registry import Version

TIMING = Timing(tick=0.02, grace=0.02, drain=1.0, stop=1.0, first_backoff=0.05, longest_backoff=0.2)


def staged(name: str, stage: Stage) -> Version:
    return msgspec.structs.replace(version(name), stage=stage)


LIVE, SHADOW = staged("live", Stage.LIVE), staged("shadow", Stage.SHADOW)
CANDIDATE, RETIRED = staged("candidate", Stage.CANDIDATE), staged("retired", Stage.RETIRED)


ALL = {one.id: one for one in (LIVE, SHADOW, CANDIDATE, RETIRED)}


class Stand:
    def __init__(self) -> None:
        self.registry, self.loads, self.told = FakeRegistry(), Loads(), list[RouteEvent]()
        self._stop = asyncio.Event()

    async def __aenter__(self) -> "Stand":
        made, self._thread = reconciler(self.registry, self.loads, TIMING, told=self.told)
        self._task = asyncio.create_task(made.run(self._stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._task
        await self._thread.close()

    async def ready(self, *names: str) -> None:
        await until(lambda: set(self.registry.endpoints) == set(names))

    def unready(self, name: str) -> list[dict[str, Any]]:
        return [dict(event.data) for event in self.told if (event.kind, event.version) == (EventKind.UNREADY, name)]


async def test_what_ended_gives_its_room_to_a_candidate_and_stays_out_until_there_is_room_again() -> None:
    async with Stand() as stand:
        stand.loads.most = 2
        stand.registry.set(LIVE, RETIRED)
        await stand.ready("live", "retired")
        stand.registry.set(LIVE, CANDIDATE, RETIRED)
        await stand.ready("live", "candidate")
        await asyncio.sleep(10 * TIMING.tick)
        assert stand.loads.began.count("retired") == 1, "it is not tried where it would find no room"
        assert [told["reason"] for told in stand.unready("retired")] == ["candidate needs its room"]
        stand.registry.set(LIVE, RETIRED)
        await stand.ready("live", "retired")


async def test_a_live_version_whose_process_ended_gets_its_room_back_from_a_candidate() -> None:
    async with Stand() as stand:
        stand.registry.set(LIVE)
        await stand.ready("live")
        stand.loads.most = 1
        stand.loads.failing["live"] = WorkerGone()
        stand.loads.instances["live"].kill()
        stand.registry.set(LIVE, CANDIDATE)
        await stand.ready("candidate")
        del stand.loads.failing["live"]
        await stand.ready("live")


async def test_those_that_matter_as_much_do_not_send_each_other_away() -> None:
    async with Stand() as stand:
        stand.loads.most = 1
        stand.registry.set(SHADOW)
        await stand.ready("shadow")
        stand.registry.set(SHADOW, staged("canary", Stage.CANARY))
        await until(lambda: len(stand.unready("canary")) > 1)
        assert set(stand.registry.endpoints) == {"shadow"}


async def test_a_live_version_does_not_wait_for_a_candidates_load_which_begins_anew() -> None:
    async with Stand() as stand:
        stand.registry.set(LIVE)
        await stand.ready("live")
        stand.loads.slow = {"candidate"}
        stand.registry.set(LIVE, CANDIDATE)
        await until(lambda: "candidate" in stand.loads.began)
        stand.loads.instances["live"].kill()
        await until(lambda: not stand.registry.endpoints)
        await stand.ready("live")
        assert stand.loads.given_up == ["candidate"]
        assert not stand.unready("candidate"), "it is nobody's fault"
        await until(lambda: stand.loads.began.count("candidate") == 2)


async def test_a_load_that_is_no_longer_wanted_is_given_up() -> None:
    async with Stand() as stand:
        stand.loads.slow = {"candidate"}
        stand.registry.set(CANDIDATE)
        await until(lambda: "candidate" in stand.loads.began)
        stand.registry.set(SHADOW)
        await stand.ready("shadow")
        assert stand.loads.given_up == ["candidate"]


@pytest.mark.parametrize(("error", "tries"), [(NotReady("its graph"), 1), (DecodeFailed("a probe failed"), 3)])
async def test_what_is_to_blame_itself_is_rejected_and_probes_that_break_off_thrice_are(
    error: Exception, tries: int
) -> None:
    async with Stand() as stand:
        stand.loads.failing["candidate"] = error
        stand.registry.set(CANDIDATE)
        await until(lambda: any(told["hopeless"] for told in stand.unready("candidate")))
        assert [told["hopeless"] for told in stand.unready("candidate")] == [False] * (tries - 1) + [True]


@pytest.mark.parametrize("error", [Unfit("memory_gb"), MissingArtefact("a disk that comes"), NoRoom()])
async def test_what_another_configuration_or_another_moment_may_mend_is_never_rejected(error: Exception) -> None:
    async with Stand() as stand:
        stand.loads.failing["live"] = error
        stand.registry.set(LIVE)
        await until(lambda: len(stand.unready("live")) > 3)
        assert not any(told["hopeless"] for told in stand.unready("live"))
        stand.loads.failing.clear()
        await stand.ready("live")


def test_who_gives_way_is_the_last_that_matters_less() -> None:
    precedence = Precedence()
    assert precedence.give_way(CANDIDATE, ALL, {"live": 1.0, "shadow": 1.0}, lacks=0.0) is None
    assert precedence.give_way(LIVE, ALL, {"shadow": 1.0, "retired": 1.0}, lacks=0.0) == "retired"
    assert precedence.stays_out("retired", ALL)
    assert precedence.left("retired") == {"live"}
    assert precedence.left("shadow") == {"live", "candidate"}, "both had found no room"
    assert not precedence.stays_out("retired", ALL), "another has left: there may be room"


def test_nobody_gives_way_in_vain() -> None:
    precedence = Precedence()
    assert precedence.give_way(LIVE, ALL, {"shadow": 2e9, "retired": 1e9}, lacks=4e9) is None
    assert precedence.give_way(LIVE, ALL, {"shadow": 2e9, "retired": 1e9}, lacks=3e9) == "retired"
    assert precedence.give_way(LIVE, ALL, {"shadow": 1e9, "retired": 0.0}, lacks=0.0) == "shadow", "an adapter of many"


def test_who_can_not_be_loaded_after_all_keeps_nobody_out() -> None:
    precedence = Precedence()
    assert precedence.give_way(CANDIDATE, ALL, {"retired": 1.0}, lacks=0.0) == "retired"
    precedence.given_up("candidate")
    assert not precedence.stays_out("retired", ALL)


def test_where_it_was_in_vain_who_gave_way_is_back_and_does_so_no_more() -> None:
    precedence = Precedence()
    assert precedence.give_way(CANDIDATE, ALL, {"retired": 1.0}, lacks=0.0) == "retired"
    assert precedence.give_way(CANDIDATE, ALL, {}, lacks=0.0) is None
    assert not precedence.stays_out("retired", ALL)
    assert precedence.give_way(CANDIDATE, ALL, {"retired": 1.0}, lacks=0.0) is None
    old = ALL | {"candidate": staged("candidate", Stage.LIVE), "live": staged("live", Stage.RETIRED)}
    assert precedence.give_way(old["candidate"], old, {"live": 1.0, "retired": 1.0}, lacks=0.0) == "retired"
    assert precedence.give_way(old["candidate"], old, {"live": 1.0}, lacks=0.0) == "live", "who never gave way may"
    assert precedence.left("shadow") == {"candidate"}
    assert precedence.give_way(CANDIDATE, ALL, {"retired": 1.0}, lacks=0.0) == "retired", "there is more room now"


def test_who_is_broken_is_not_tried_again_because_another_left() -> None:
    precedence = Precedence()
    precedence.give_way(CANDIDATE, ALL, {"retired": 1.0}, lacks=0.0)
    precedence.give_way(CANDIDATE, ALL, {}, lacks=0.0)
    precedence.given_up("candidate")
    assert precedence.left("shadow") == set()


async def test_a_version_that_the_machine_can_not_hold_costs_no_other_its_place_for_long() -> None:
    async with Stand() as stand:
        stand.registry.set(LIVE, RETIRED)
        await stand.ready("live", "retired")
        stand.loads.failing["candidate"] = NoRoom("there is no memory left to load it")
        stand.registry.set(LIVE, CANDIDATE, RETIRED)
        await until(lambda: stand.loads.began.count("retired") == 2)
        await until(lambda: stand.loads.began.count("candidate") == 4)
        assert set(stand.registry.endpoints) == {"live", "retired"}
        assert stand.loads.began.count("retired") == 2


async def test_nobody_is_sent_away_where_that_is_not_enough() -> None:
    async with Stand() as stand:
        stand.loads.most, stand.loads.lacks = 2, 3e9
        stand.registry.set(LIVE, RETIRED)
        await stand.ready("live", "retired")
        stand.registry.set(LIVE, CANDIDATE, RETIRED)
        await until(lambda: stand.loads.began.count("candidate") == 3)
        assert set(stand.registry.endpoints) == {"live", "retired"}
        stand.loads.lacks = 1e9
        await stand.ready("live", "candidate")


async def test_a_candidate_that_is_rejected_leaves_the_room_to_who_gave_way() -> None:
    async with Stand() as stand:
        stand.loads.most = 1
        stand.registry.set(RETIRED)
        await stand.ready("retired")
        stand.registry.set(CANDIDATE, RETIRED)
        stand.loads.instances["retired"].stay = 0.3
        await until(lambda: bool(stand.unready("candidate")))
        stand.loads.failing["candidate"] = NotReady("its graph")
        await until(lambda: stand.loads.began.count("retired") == 2)
        await stand.ready("retired")
        assert stand.unready("candidate")[-1]["hopeless"]


def test_who_gave_way_is_back_once_it_matters_as_much() -> None:
    precedence = Precedence()
    wanted = {one.id: one for one in (LIVE, CANDIDATE, RETIRED)}
    assert precedence.give_way(CANDIDATE, wanted, {"live": 1.0, "retired": 1.0}, lacks=0.0) == "retired"
    promoted = wanted | {"retired": staged("retired", Stage.LIVE)}
    assert not precedence.stays_out("retired", promoted)


async def test_one_leaves_at_a_time_for_one_that_needs_room() -> None:
    async with Stand() as stand:
        stand.loads.most = 2
        stand.registry.set(SHADOW, RETIRED)
        await stand.ready("shadow", "retired")
        stand.loads.instances["retired"].stay = 0.6
        stand.registry.set(LIVE, SHADOW, RETIRED)
        await stand.ready("live", "shadow")
        assert not stand.unready("shadow")


async def test_a_live_version_that_can_not_be_loaded_does_not_keep_others_from_it() -> None:
    async with Stand() as stand:
        stand.loads.failing["live"] = Unfit("memory_gb")
        stand.registry.set(LIVE)
        await until(lambda: len(stand.unready("live")) > 2)
        stand.loads.slow = {"candidate"}
        stand.registry.set(LIVE, CANDIDATE)
        await until(lambda: stand.loads.began[-1] == "candidate")
        await asyncio.sleep(20 * TIMING.tick)
        assert not stand.loads.given_up


def test_users_wait_for_live_versions_alone() -> None:
    assert interrupts(LIVE, CANDIDATE)
    assert not interrupts(LIVE, LIVE)
    assert not interrupts(SHADOW, CANDIDATE)
