"""The aiohttp client behind its seam: every failure is one of ours, and a stale connection is replaced."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from gateway_fakes import (
    STREAM,
    Asked,
    FakeUpstream,
    completion,
    drop,
    hang,
    plain,
    reply,
    stream,
)

from gateway.errors import ConnectFailed, Cut, UpstreamError, UpstreamTimeout
from gateway.upstream import PIECE_BYTES, AiohttpUpstream, Patience, Target

PATIENCE = Patience(idle=0.2)


@pytest.fixture
async def upstream() -> AsyncIterator[AiohttpUpstream]:
    made = AiohttpUpstream()
    yield made
    await made.close()


def target(url: str) -> Target:
    return Target(f"{url}/chat/completions", 0.3)


async def test_a_connection_that_cannot_be_made_is_connect_failed(upstream: AiohttpUpstream) -> None:
    for url in ("http://127.0.0.1:9/v1", "https://127.0.0.1:9/v1"):
        with pytest.raises(ConnectFailed) as caught:
            await upstream.post(target(url), {}, b"{}", patience=PATIENCE)
        assert "127.0.0.1" not in str(caught.value)


async def test_silence_is_a_timeout_before_and_within_the_answer(
    upstream: AiohttpUpstream, teacher: FakeUpstream
) -> None:
    teacher.will(hang(), stream(STREAM[:1], end="hang"))
    with pytest.raises(UpstreamTimeout):
        await upstream.post(target(teacher.url), {}, b"{}", patience=PATIENCE)
    got = await upstream.post(target(teacher.url), {}, b"{}", patience=PATIENCE)
    with pytest.raises(UpstreamTimeout):
        await got.read()
    got.close()


async def test_a_whole_answer_has_a_time_however_busily_it_drips(
    upstream: AiohttpUpstream, teacher: FakeUpstream
) -> None:
    teacher.will(stream(STREAM * 10, pause=0.05))
    got = await upstream.post(target(teacher.url), {}, b"{}", patience=Patience(whole=0.2))
    with pytest.raises(UpstreamTimeout):
        await got.read()
    got.close()


@pytest.mark.parametrize("how", ["a stream that breaks", "a plain answer shorter than announced", "no HTTP"])
async def test_an_answer_that_breaks_off_is_an_upstream_error(
    upstream: AiohttpUpstream, teacher: FakeUpstream, how: str
) -> None:
    async def garbage(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello?\r\n\r\n")

    async def short(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello")
        await writer.drain()
        writer.close()

    behaviours = {"a stream that breaks": stream(STREAM[:2], end="cut"), "no HTTP": garbage}
    teacher.will(behaviours.get(how, short))

    async def ask() -> None:
        got = await upstream.post(target(teacher.url), {}, b"{}", patience=PATIENCE)
        try:
            await got.read()
        finally:
            got.close()

    with pytest.raises(Cut):
        await ask()


async def test_an_undecodable_answer_is_an_upstream_error(upstream: AiohttpUpstream, teacher: FakeUpstream) -> None:
    teacher.will(reply(b"not gzip", headers={"content-encoding": "gzip"}))
    with pytest.raises(UpstreamError):
        await (await upstream.post(target(teacher.url), {}, b"{}", patience=PATIENCE)).read()


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_once(
    upstream: AiohttpUpstream, teacher: FakeUpstream
) -> None:
    teacher.will(drop(), plain("second try"), drop(), drop())
    got = await upstream.post(target(teacher.url), {}, b"{}", patience=PATIENCE)
    assert await got.read() == completion("second try")
    with pytest.raises(ConnectFailed):
        await upstream.post(target(teacher.url), {}, b"{}", patience=PATIENCE)
    assert len(teacher.asked) == 4


async def test_redirects_are_not_followed(upstream: AiohttpUpstream, teacher: FakeUpstream) -> None:
    teacher.will(reply(b"", status=307, headers={"location": "http://127.0.0.1:9/elsewhere"}))
    got = await upstream.post(target(teacher.url), {}, b"{}", patience=PATIENCE)
    assert got.status == 307
    got.close()


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_bodies_of_any_size_arrive_whole_and_with_their_length(
    upstream: AiohttpUpstream, teacher: FakeUpstream, size: int
) -> None:
    body = bytes(size)
    got = await upstream.post(target(teacher.url), {"x": "y"}, body, patience=PATIENCE)
    await got.read()
    (asked,) = teacher.asked
    assert (asked.body, asked.headers["content-length"]) == (body, str(size))
