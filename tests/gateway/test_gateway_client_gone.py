"""The client's disconnect cancels the upstream call within 200 ms, streaming and not, whoever serves."""

import asyncio
import time

import pytest
from gateway_fakes import REQUEST, STREAM, FakeUpstream, gateway, hang, live, settings, stream


@pytest.mark.parametrize("by", ["teacher", "student"])
@pytest.mark.parametrize("mode", ["plain", "stream before its first chunk", "stream"])
async def test_a_client_that_leaves_cancels_the_upstream_call(
    teacher: FakeUpstream, student: FakeUpstream, mode: str, by: str
) -> None:
    asked = teacher if by == "teacher" else student
    asked.will(stream(STREAM[:3], end="hang") if mode == "stream" else hang())
    async with gateway(settings(teacher.url)) as running:
        if by == "student":
            await running.roll_out(live(), url=student.url)
        calling = asyncio.create_task(_read_first(running, {**REQUEST, "stream": mode != "plain"}))
        await asked.arrived.wait()
        await asyncio.sleep(0.05)
        left_at = time.monotonic()
        calling.cancel()
        await asyncio.wait_for(asked.gone.wait(), 1)
        exchange, _ = await running.sender.exchange()
        (fields,) = running.events("gateway.request")
        assert asked.gone_at - left_at < 0.2
        assert (exchange.served.error, fields["outcome"]) == ("cancelled", "cancelled")
        assert running.events("gateway.fallback") == []
        assert running.sender.happened == []
        assert len(teacher.asked) + len(student.asked) == 1


async def test_leaving_costs_nobody_else_the_connection(teacher: FakeUpstream) -> None:
    teacher.will(hang(), stream(STREAM))
    async with gateway(settings(teacher.url)) as running:
        calling = asyncio.create_task(_read_first(running, REQUEST))
        await teacher.arrived.wait()
        calling.cancel()
        async with running.post({**REQUEST, "stream": True}) as got:
            assert await got.read() == b"".join(STREAM)


async def _read_first(running, body) -> None:
    async with running.post(body) as got:
        await got.content.readany()
        await asyncio.sleep(60)
