"""A swap as the gateway sees it: streams end where they began, conversations keep their arm, and the old endpoint's
connections go with their last user."""

import asyncio

import pytest
from gateway_fakes import REQUEST, STREAM, FakeUpstream, gateway, plain, settings, stream

from gateway.engines.timing import Timing
from gateway.snapshots import INTERVAL_SECONDS
from router import Rollout, Snapshot, Stage

OLD, NEW = "support-1", "support-2"


def rollout(revision: int, version: str, **changes: object) -> Rollout:
    return Rollout(route="support", revision=revision, live=version, **changes)  # type: ignore[arg-type]


async def test_a_stream_that_began_before_a_swap_ends_with_the_version_that_began_it(
    teacher: FakeUpstream, student: FakeUpstream, second: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.KEEPALIVE_SECONDS", 0.2)
    student.will(stream(STREAM, pause=0.1))
    second.will(plain("of the new one"))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(rollout(1, OLD), url=student.url, version=OLD)
        async with running.post({**REQUEST, "stream": True}) as open_stream:
            await open_stream.content.readline()
            await running.roll_out(rollout(2, NEW), url=second.url, version=NEW)
            async with running.post(REQUEST) as answer:
                assert answer.headers["x-retort-served-by"] == NEW
            assert len(student._writers) == 1  # in use: it is not closed
            rest = await open_stream.read()
        assert open_stream.headers["x-retort-served-by"] == OLD
        assert rest.endswith(b"data: [DONE]\n\n")
        async with asyncio.timeout(3):
            while student._writers:  # noqa: ASYNC110 - the fake has no event for it
                await asyncio.sleep(0.05)


async def test_conversations_keep_their_arm_through_a_swap_a_rollback_and_a_canary(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    config = settings(teacher.url)
    policy = config.routes["support"]
    held = policy.model_copy(update={"rollout": policy.rollout.model_copy(update={"holdback": 0.4})})
    config = config.model_copy(update={"routes": {"support": held}})
    served: dict[int, list[str]] = {}
    states = (
        rollout(1, OLD),
        rollout(2, OLD, challenger=NEW, stage=Stage.CANARY, fraction=0.3),
        rollout(3, NEW),
        rollout(4, OLD),
    )
    async with gateway(config) as running:
        for state in states:
            endpoints = {OLD: student.url, NEW: student.url}
            running.registry.value = Snapshot(rollouts={"support": state}, endpoints=endpoints)
            await running.snapshots.refresh()
            for session in range(30):
                async with running.post(REQUEST, x_retort_session=str(session)) as answer:
                    served.setdefault(session, []).append(answer.headers["x-retort-served-by"])
    assert all(len({name == "teacher" for name in names}) == 1 for names in served.values())
    assert {names[0] for names in served.values()} == {"teacher", OLD}
    assert {names[2] for names in served.values()} == {"teacher", NEW}
    assert {names[1] for names in served.values()} == {"teacher", OLD, NEW}


def test_a_withdrawn_version_answers_until_every_gateway_has_read_the_registry() -> None:
    assert Timing().grace > 2 * INTERVAL_SECONDS
