"""Of servers that were found, one that fails is tried last; vLLM is played."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_vllm import FakeVllm
from test_vllm_fleet import adapter, manifest, says, whole

from gateway.engines.errors import DecodeFailed, WorkerGone
from gateway.engines.protocol import Options
from gateway.engines.vllm_fleet import Fleet
from gateway.engines.vllm_found import SUSPECT_SECONDS, Found
from router.config_engines import EngineSettings

BASE = {"adapters_on": "/models/base"}


class Pair(msgspec.Struct):
    """Two servers of the model `v1`, the first one first among the urls."""

    first: FakeVllm
    second: FakeVllm
    state: Path
    stack: AsyncExitStack

    def fleet(self, **vllm: Any) -> Fleet:
        given = {"urls": [self.first.url, self.second.url], **vllm}
        fleet = Fleet("local", EngineSettings.model_validate({"runtime": "vllm", "vllm": given}), self.state)
        self.stack.push_async_callback(fleet.close)
        return fleet


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with (
        FakeVllm("v1", b"one").running() as first,
        FakeVllm("v1", b"two").running() as second,
        AsyncExitStack() as stack,
    ):
        yield Pair(first, second, tmp_path / "state", stack)


def test_urls_are_in_the_order_in_which_they_last_failed() -> None:
    now = 0.0
    found = Found(("a", "b", "c"), clock=lambda: now)
    assert list(found) == ["a", "b", "c"]
    for url in ("b", "a"):
        now += 1.0
        found.failed(url)
    assert list(found) == ["c", "b", "a"]
    assert found.suspect("c") < found.suspect("b") < found.suspect("a")
    now += SUSPECT_SECONDS
    assert found.suspect("a") == found.suspect("b") == found.suspect("c")


async def test_where_the_server_of_a_version_answered_nothing_another_that_serves_it_is_taken(
    pair: Pair, tmp_path: Path
) -> None:
    fleet, artefact, said = pair.fleet(), whole(tmp_path), []
    for _ in range(3):
        child = await fleet.start(artefact, manifest(), timeout=5)
        said.append(await says(child))
        child.kill()
        await child.close()
    assert said == ["one", "two", "one"]


async def test_a_server_that_cuts_its_answers_is_tried_last_as_well(pair: Pair, tmp_path: Path) -> None:
    fleet, artefact = pair.fleet(), whole(tmp_path)
    pair.first.mode = "dies"
    child = await fleet.start(artefact, manifest(), timeout=5)
    with pytest.raises(WorkerGone):
        await says(child)
    await child.close()
    child = await fleet.start(artefact, manifest(), timeout=5)
    assert await says(child) == "two"
    await child.close()


async def test_versions_that_are_unloaded_are_no_failure_of_their_server(pair: Pair, tmp_path: Path) -> None:
    fleet, artefact = pair.fleet(), whole(tmp_path)
    for _ in range(2):
        child = await fleet.start(artefact, manifest(), timeout=5)
        events = child.generate([{"role": "user", "content": "?"}], Options())
        await anext(events)
        await child.close()
        with pytest.raises(WorkerGone):
            async for _ in events:
                pass
        assert pair.first.bodies
        assert not pair.second.bodies


async def test_adapters_of_a_base_that_answered_nothing_go_to_the_one_beside_it(pair: Pair, tmp_path: Path) -> None:
    fleet = pair.fleet(**BASE)
    children = [await fleet.start(adapter(tmp_path, f"v{n}"), manifest(f"v{n}"), timeout=5) for n in range(2)]
    assert (len(pair.first.adapters), len(pair.second.adapters)) == (1, 1)
    children[0].kill()
    await children[0].close()
    children.append(await fleet.start(tmp_path / "artefacts" / "v0", manifest("v0"), timeout=5))
    assert await says(children[-1]) == "two"
    children[1].kill()  # now both have failed, the first one longer ago
    children.append(await fleet.start(tmp_path / "artefacts" / "v1", manifest("v1"), timeout=5))
    assert await says(children[-1]) == "one"
    for child in children[1:]:
        await child.close()


@pytest.mark.parametrize("how", ["refuses adapters", "does not say what it serves"])
async def test_a_base_that_takes_no_adapter_is_passed_over(pair: Pair, tmp_path: Path, how: str) -> None:
    fleet, artefact = pair.fleet(**BASE), adapter(tmp_path)
    if how == "refuses adapters":
        pair.first.refusal = (500, {"message": "it broke"})
        with pytest.raises(DecodeFailed, match="it broke"):
            await fleet.start(artefact, manifest(), timeout=5)
    pair.first.tells = how == "refuses adapters"
    child = await fleet.start(artefact, manifest(), timeout=5)
    assert await says(child) == "two"
    await child.close()
