"""The masking service over its socket: pipelined, bounded, and closed to what it can't mask."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from collector import CollectorUnavailable, MaskClient, ScrubError, mask_socket
from collector.mask import MaskServer, masking
from collector.mask_frames import LENGTH
from collector.scrubbed import Scrubbed
from router import Config, RoutePolicy, parse

POLICY = RoutePolicy.model_validate({"teachers": ["up/gpt-4o"], "capture": {"mask_teachers": True}})


class HeldPool:
    """Masks the word SECRET; waits with WAIT until it is let; refuses POISON, hidden as it is."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.untouchable: frozenset[str] = frozenset()
        self.begun = 0

    async def scrub(
        self, values: list[Any], *, route: str, cluster: str, untouchable: frozenset[str], reversible: bool
    ) -> Scrubbed:
        assert reversible
        self.begun += 1
        self.untouchable = untouchable
        text = json.dumps(values)
        if "WAIT" in text:
            await self.let.wait()
        if "POISON" in text:
            raise ScrubError("too_deep" if "DEEP" in text else "worker_killed")
        if "UNFORESEEN" in text:
            raise RuntimeError(text)
        return Scrubbed(json.loads(text.replace("SECRET", "hidden")), {}, pairs={"hidden": "SECRET"})


@pytest.fixture
def pool() -> HeldPool:
    return HeldPool()


@contextlib.asynccontextmanager
async def service(folder: Path, pool: HeldPool, **options: Any) -> AsyncIterator[MaskClient]:
    path = folder / "mask.sock"
    server = MaskServer({"r": POLICY}, pool, **{"workers": 4, "salt": b"s" * 32, **options})
    client = MaskClient(path)
    async with server.listening(path):
        yield client
    await client.close()
    assert not path.exists()


def request(text: Any, **more: Any) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}).encode()


async def masked(client: MaskClient, text: Any, seconds: float = 5.0, **more: Any) -> Any:
    return json.loads((await client.mask("r", "c", request(text, **more), seconds=seconds)).body)


async def test_a_request_comes_back_masked_with_what_stands_for_what(tmp_path: Path, pool: HeldPool) -> None:
    async with service(tmp_path, pool) as client:
        assert (tmp_path / "mask.sock").stat().st_mode & 0o777 == 0o600
        reply = await client.mask("r", "c", request("a SECRET"), seconds=5.0)
        assert await client.reachable()
    assert not await MaskClient(tmp_path / "mask.sock").reachable()
    assert json.loads(reply.body)["messages"][0]["content"] == "a hidden"
    assert reply.pairs == {"hidden": "SECRET"}
    assert pool.untouchable == {"r", "gpt-4o"}


async def test_users_are_hashed_whatever_they_look_like(tmp_path: Path, pool: HeldPool) -> None:
    async with service(tmp_path, pool) as client:
        named = {"user": "jane", "metadata": {"user_id": "jane", "ticket": "7"}, "safety_identifier": "joe"}
        first = await masked(client, "hi", **named)
        again = await masked(client, "hi", **named)
    assert first == again
    assert first["user"] == first["metadata"]["user_id"] != first["safety_identifier"]
    assert len(first["user"]) == 32
    assert first["metadata"]["ticket"] == "7"
    assert "jane" not in json.dumps(first)


async def test_requests_overtake_each_other_on_one_connection(tmp_path: Path, pool: HeldPool) -> None:
    async with service(tmp_path, pool) as client:
        slow = asyncio.create_task(masked(client, "WAIT for SECRET"))
        while not pool.begun:  # noqa: ASYNC110 - the other side of a socket
            await asyncio.sleep(0.001)
        assert [await masked(client, f"{n}") for n in range(3)]
        assert not slow.done()
        pool.let.set()
        assert (await slow)["messages"][0]["content"] == "WAIT for hidden"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("DEEP POISON", "nested too deep"),
        ([{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}], "an image"),
        ([{"type": "input_audio", "input_audio": {}}], "a sound"),
    ],
)
async def test_what_no_try_would_mask_is_refused_with_a_reason(
    tmp_path: Path, pool: HeldPool, content: Any, why: str
) -> None:
    async with service(tmp_path, pool) as client:
        with pytest.raises(ScrubError, match=why):
            await masked(client, content)


@pytest.mark.parametrize("content", ["POISON", "UNFORESEEN"])
async def test_what_fails_on_this_side_is_no_fault_of_the_request(
    tmp_path: Path, pool: HeldPool, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(tmp_path, pool) as client:
        with pytest.raises(CollectorUnavailable):
            await masked(client, content)
        assert await masked(client, [{"type": "text", "text": "fine"}])
        with pytest.raises(CollectorUnavailable, match="unknown_route"):
            await client.mask("other", "c", request("x"), seconds=5.0)
    assert content not in caplog.text


async def test_a_client_waits_no_longer_than_it_may_and_connects_again(tmp_path: Path, pool: HeldPool) -> None:
    async with service(tmp_path, pool) as client:
        with pytest.raises(CollectorUnavailable, match="in time"):
            await masked(client, "WAIT", seconds=0.05)
        assert await masked(client, "and now")
    with pytest.raises(CollectorUnavailable, match=r"at .*mask\.sock"):
        await masked(client, "away")
    async with service(tmp_path, pool) as other:
        assert await masked(client, "back again")
        left = asyncio.create_task(masked(client, "WAIT"))
        await masked(other, "until the other is sent")
    with pytest.raises(CollectorUnavailable):
        await left  # the service went while it waited
    await client.close()


async def test_what_waited_too_long_for_a_worker_is_not_masked_any_more(tmp_path: Path, pool: HeldPool) -> None:
    async with service(tmp_path, pool, workers=1, seconds=0.05) as client:
        first = asyncio.create_task(masked(client, "WAIT"))
        late = asyncio.create_task(masked(client, "SECRET"))
        await asyncio.sleep(0.1)
        pool.let.set()
        await first
        with pytest.raises(CollectorUnavailable, match="late"):
            await late
    assert pool.begun == 1


async def test_nonsense_ends_its_own_connection_alone(tmp_path: Path, pool: HeldPool) -> None:
    async with service(tmp_path, pool) as client:
        for nonsense in (LENGTH.pack(3) + b"abc", LENGTH.pack(1 << 31)):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "mask.sock"))
            writer.write(nonsense)
            assert await reader.read() == b""
            writer.close()
        assert await masked(client, "fine")


def config(state: Path, capture: str) -> Config:
    text = f"""
state: {state}
upstreams: {{up: {{base_url: "http://127.0.0.1:9/v1"}}}}
routes: {{r: {{claims: [gpt-4o], teachers: [up/gpt-4o], capture: {{{capture}}}}}}}
"""
    return parse(text, {})


async def test_nothing_listens_where_no_route_masks(tmp_path: Path) -> None:
    async with masking(config(tmp_path, "")):
        assert not mask_socket(str(tmp_path)).exists()


async def test_the_real_pool_masks_a_conversation_to_the_same_surrogates_turn_by_turn(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi, my name is Annegret Wintergerst, mail me at zoe@acme.org please."}]
    async with masking(config(tmp_path, "mask_teachers: true")):
        client = MaskClient(mask_socket(str(tmp_path)))
        first = await client.mask("r", "c", json.dumps({"model": "gpt-4o", "messages": turns}).encode(), seconds=15.0)
        turns += [{"role": "assistant", "content": "Dear Annegret!"}, {"role": "user", "content": "Write to joe@x.de."}]
        body = json.dumps({"model": "gpt-4o", "messages": turns}).encode()
        then = await client.mask("r", "c", body, seconds=15.0)
        others = await client.mask("r", "d", body, seconds=15.0)
        await client.close()
    before, after = json.loads(first.body)["messages"], json.loads(then.body)["messages"]
    assert before == after[:1]
    assert set(first.pairs.values()) == {"Annegret", "Wintergerst", "zoe@acme.org"}
    assert first.pairs.items() < then.pairs.items()
    assert not any(original.encode() in then.body for original in then.pairs.values())
    assert not set(others.pairs) & set(then.pairs)
