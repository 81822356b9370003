"""With a spool, killing gateway and collector at any moment loses no finished exchange, and counts none twice."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml
from aiohttp import web
from loopback_teacher import teaching
from test_supervisor import child

from collector import Entry, Stream, open_log
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.quiet, pytest.mark.timeout(240)]

KILLS = 8


async def teach(request: web.Request) -> web.Response:
    number = (await request.json())["messages"][0]["content"]
    message = {"role": "assistant", "content": f"answer to {number}"}
    return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.fixture
async def teacher() -> AsyncIterator[int]:
    async with teaching(teach) as port:
        yield port


class Asking:
    """Clients that ask on while processes are killed. `answered`: the ids of exchanges whose answer came whole."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answered: list[str] = []
        self.over = False

    async def client(self, name: int) -> None:
        number = 0
        async with httpx.AsyncClient(timeout=20) as client:
            while not self.over:
                number += 1
                body = {"model": "r", "messages": [{"role": "user", "content": f"question {name}-{number}"}]}
                try:
                    answer = await client.post(self._url, json=body)
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    self.answered.append(answer.headers["x-retort-request-id"])
                await asyncio.sleep(0.1)  # texts that nobody said before take their time to scrub


async def test_kills_lose_no_exchange_that_a_client_has_the_answer_of(tmp_path: Path, teacher: int) -> None:
    (port,) = free_ports(1)
    file = tmp_path / "retort.yaml"
    config = {
        "state": str(tmp_path / "state"),
        "listen": f"127.0.0.1:{port}",
        "spool": {"key": "0f" * 32},
        "upstreams": {"up": {"base_url": f"http://127.0.0.1:{teacher}/v1"}},
        "routes": {"r": {"teachers": ["up/m"]}},
    }
    file.write_text(yaml.safe_dump(config))
    retort = RetortProcess(file, f"http://127.0.0.1:{port}", tmp_path / "retort.log")
    await retort.start()
    asking = Asking(f"http://127.0.0.1:{port}/v1/chat/completions")
    clients = [asyncio.create_task(asking.client(n)) for n in range(8)]
    draw = random.Random(5)
    try:
        for n in range(KILLS):
            await asyncio.sleep(draw.uniform(0.2, 1.0))
            before = len(asking.answered)
            pid = child(retort.pid, "collector" if n % 4 == 3 else "gateway")
            assert pid
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(60):
                while len(asking.answered) < before + 20:  # noqa: ASYNC110 - others fill it
                    await asyncio.sleep(0.05)
        asking.over = True
        await asyncio.gather(*clients)
        log = open_log(f"sqlite:///{tmp_path}/state/log.db")
        async with asyncio.timeout(120):
            while set(asking.answered) - set(found := ids(log.read(Stream.INTERACTIONS, 0, 100_000, key="r"))):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        log.close()
        assert len(found) == len(set(found))
        assert len(asking.answered) > 20 * KILLS
    finally:
        assert await retort.stop() == 0
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def ids(entries: list[Entry]) -> list[str]:
    return [entry.id for entry in entries]
