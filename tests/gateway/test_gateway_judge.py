"""The collector's judge asks through the real gateway, a fake provider behind it."""

import json

import pytest
from gateway_fakes import FakeUpstream, gateway, plain, settings

from collector import JudgeFailed
from collector.judge import GatewayClient, Judge
from router import JudgePolicy

pytestmark = pytest.mark.e2e

POLICY = JudgePolicy(route="support")


async def test_both_orders_go_through_the_gateway_and_no_text_of_them_is_kept(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        client = GatewayClient(running.url.removesuffix("/v1"))
        teacher.will(plain('{"verdict": "A"}'), plain('{"verdict": "A"}'))
        value = await Judge(client).value(
            "other",
            POLICY,
            request={"messages": [{"role": "user", "content": "q"}]},
            student={"content": "mine"},
            teacher={"content": "yours"},
        )
        assert value == 0.5, "it goes by the order alone"
        shown = [json.loads(asked.json["messages"][-1]["content"]) for asked in teacher.asked]
        assert sorted((one["A"], one["B"]) for one in shown) == [("mine", "yours"), ("yours", "mine")]
        told, bodies = await running.sender.exchange()
        assert not told.capture
        assert b"mine" not in b"".join(bodies)
        await client.close()


async def test_a_route_that_the_gateway_does_not_know_gives_no_verdict(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        client = GatewayClient(running.url.removesuffix("/v1"))
        with pytest.raises(JudgeFailed) as failed:
            await client("nowhere", [{"role": "user", "content": "q"}])
        assert failed.value.reason == "http_4xx"
        await client.close()
