"""Requests with tools go to a student only where the version that they are evidence of has learnt to call them."""

from typing import Any

import pytest
from gateway_fakes import REQUEST, STUDENT, FakeUpstream, gateway, live, plain, settings

from router import Rollout, Snapshot, Stage

TOOLS = [{"type": "function", "function": {"name": "look"}}]
OTHER = "support-2"


@pytest.mark.parametrize(
    ("rollout", "able", "server"),
    [
        (live(), {STUDENT}, STUDENT),
        (live(), {OTHER}, "teacher"),
        (live(challenger=OTHER, stage=Stage.SHADOW), {STUDENT}, "teacher"),
        (live(challenger=OTHER, stage=Stage.SHADOW), {OTHER}, "teacher"),
        (live(challenger=OTHER, stage=Stage.SHADOW), {STUDENT, OTHER}, STUDENT),
        (live(challenger=OTHER, stage=Stage.CANARY, fraction=1.0), {OTHER}, OTHER),
    ],
)
async def test_a_request_with_tools_goes_where_they_are_learnt(
    teacher: FakeUpstream, student: FakeUpstream, rollout: Rollout, able: set[str], server: str
) -> None:
    score = "quality: {score: tool_calls, audit_rate: 1.0e-12, shadow_rate: 1.0}"
    asking: dict[str, Any] = {**REQUEST, "tools": TOOLS}
    async with gateway(settings(teacher.url, route=score)) as running:
        student.will(plain("mine"))
        endpoints = {STUDENT: student.url, OTHER: student.url}
        running.registry.value = Snapshot({rollout.route: rollout}, endpoints, frozenset(able))
        await running.snapshots.refresh()
        async with running.post(asking) as got:
            assert got.headers["x-retort-served-by"] == server
        exchange, _ = await running.sender.exchange()
    tested = rollout.challenger or rollout.live
    assert exchange.decision.eligible == (tested in able)
    assert {call.version for call in exchange.shadows} <= able


async def test_no_version_gets_tools_on_a_route_whose_score_does_not_compare_calls(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    async with gateway(settings(teacher.url)) as running:
        running.registry.value = Snapshot({"support": live()}, {STUDENT: student.url}, frozenset({STUDENT}))
        await running.snapshots.refresh()
        async with running.post({**REQUEST, "tools": TOOLS}) as got:
            assert got.headers["x-retort-served-by"] == "teacher"
        exchange, _ = await running.sender.exchange()
    assert (exchange.decision.eligible, exchange.decision.reason) == (False, "tools")
