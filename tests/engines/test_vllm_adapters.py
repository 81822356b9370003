"""Adapters that a server keeps although it was asked to unload them; vLLM is played."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_vllm import FakeVllm
from test_vllm_fleet import adapter

from gateway.engines.errors import WorkerGone
from gateway.engines.vllm_adapters import Adapters
from gateway.engines.vllm_server import Server


@pytest.fixture
async def fake() -> AsyncIterator[FakeVllm]:
    async with FakeVllm("base").running() as made:
        yield made


@pytest.fixture
async def server(fake: FakeVllm) -> AsyncIterator[Server]:
    found = await Server.find(fake.url)
    yield found
    await found.close()


def asked(fake: FakeVllm, name: str) -> int:
    return fake.calls.count(("unload", name))


async def test_what_a_server_refuses_to_unload_counts_keeps_its_files_and_is_asked_for_again(
    fake: FakeVllm, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapters, folder, artefact = Adapters("local", tmp_path / "copies"), tmp_path / "copies", adapter(tmp_path)
    one, two = [await adapters.load(server, artefact) for _ in range(2)]
    fake.keeps = 500
    await adapters.unload(server, one)
    [record] = [r for r in caplog.records if r.getMessage() == "engine.adapter_stays"]
    assert record.levelno == logging.WARNING
    assert (record.adapter, record.url, record.reason) == (one, fake.url, "status 500: the adapter is in use")
    assert adapters.on(server) == 2
    assert (folder / one / "adapter_model.safetensors").is_file()
    await adapters.unload(server, two)
    assert adapters.on(server) == 2
    assert (asked(fake, one), asked(fake, two)) == (2, 1)
    fake.keeps = None
    three = await adapters.load(server, artefact)
    assert list(fake.adapters) == [three]
    assert [path.name for path in folder.iterdir()] == [three]
    assert adapters.on(server) == 1
    await adapters.unload(server, three)
    assert (asked(fake, one), asked(fake, two), asked(fake, three)) == (3, 2, 1)


async def test_an_adapter_that_a_server_no_longer_knows_is_unloaded(
    fake: FakeVllm, server: Server, tmp_path: Path
) -> None:
    adapters = Adapters("local", tmp_path / "copies")
    name = await adapters.load(server, adapter(tmp_path))
    fake.adapters.clear()
    await adapters.unload(server, name)
    assert adapters.on(server) == 0


async def test_what_a_server_may_have_loaded_without_saying_so_is_unloaded_before_the_next(
    fake: FakeVllm, server: Server, tmp_path: Path
) -> None:
    adapters, artefact = Adapters("local", tmp_path / "copies"), adapter(tmp_path)
    fake.cut = True
    with pytest.raises(WorkerGone):
        await adapters.load(server, artefact)
    assert len(fake.adapters) == adapters.on(server) == 1
    fake.cut = False
    name = await adapters.load(server, artefact)
    assert list(fake.adapters) == [name]


async def test_what_a_server_that_was_left_has_kept_goes_when_it_is_found_again(
    fake: FakeVllm, server: Server, tmp_path: Path
) -> None:
    adapters, artefact = Adapters("local", tmp_path / "copies"), adapter(tmp_path)
    owed, used = [await adapters.load(server, artefact) for _ in range(2)]
    fake.keeps = 500
    await adapters.unload(server, owed)
    fake.keeps = None
    server.kill("it answered nothing")
    again = await Server.find(fake.url)
    await adapters.clean(again)
    assert not fake.adapters
    assert not list((tmp_path / "copies").iterdir())
    await adapters.unload(server, used)
    assert asked(fake, used) == 1
    await again.close()
