"""The demo's load: how fast an endpoint answers, and the rate that follows from it."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from aiohttp import web

from retort.demo.settings import CAPACITY_SHARE, EVIDENCE_RATE, evidence_rate
from retort.demo.traffic import Traffic
from retort.sample.records import packages

AT_ONCE = 4


class Endpoint:
    """Answers when AT_ONCE requests wait, all of them; `refuses`: that one by number."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.most = 0
        self.refuses: int | None = None
        self._waiting: list[asyncio.Event] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((await request.json())["messages"][-1]["content"])
        if len(self.asked) == self.refuses:
            return web.json_response({"error": {"message": "no"}}, status=400)
        event = asyncio.Event()
        self._waiting.append(event)
        self.most = max(self.most, len(self._waiting))
        if len(self._waiting) == AT_ONCE:
            for waiting in self._waiting:
                waiting.set()
            self._waiting.clear()
        await event.wait()
        message = {"role": "assistant", "content": "{}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response(
            {"id": "t", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        )


@pytest.fixture
async def served() -> AsyncIterator[tuple[Endpoint, Traffic]]:
    endpoint, app = Endpoint(), web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    traffic = Traffic(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    yield endpoint, traffic
    await traffic.close()
    await runner.cleanup()


async def test_every_record_is_asked_once_and_so_many_at_once(served: tuple[Endpoint, Traffic]) -> None:
    endpoint, traffic = served
    records = packages()[: 3 * AT_ONCE]
    rate = await traffic.capacity(records, at_once=AT_ONCE)
    assert rate > 0
    assert sorted(endpoint.asked) == sorted(record.messages[-1]["content"] for record in records)
    assert endpoint.most == AT_ONCE
    assert traffic.sent == []


async def test_an_endpoint_that_refuses_has_no_capacity(served: tuple[Endpoint, Traffic]) -> None:
    endpoint, traffic = served
    endpoint.refuses = 1
    with pytest.raises(openai.BadRequestError):
        await traffic.capacity(packages()[:3], at_once=1)


def test_the_load_stays_below_the_capacity_and_below_its_most() -> None:
    for engine, share in CAPACITY_SHARE.items():
        assert evidence_rate(engine, 2.0) == 2.0 * share
        assert evidence_rate(engine, 1000.0) == EVIDENCE_RATE
