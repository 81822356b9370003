"""What a version will take of the memory where vLLM serves it; vLLM is played, the weights are real files."""

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_fakes import version
from test_vllm_fleet import Make, adapter, manifest, whole

from exporters.models import Manifest, Store
from exporters.models.errors import CorruptArtefact
from exporters.models.tensors import write_tensors
from gateway.engines.errors import NoRoom, NotReady, Unfit
from gateway.engines.instance import Instance
from gateway.engines.loading import Loader
from gateway.engines.vllm_environment import Environment
from gateway.engines.vllm_memory import AROUND, server, weights
from router.config_engines import EngineSettings

NEW_CPU, OLD_CPU, GPU = Environment("cpu", True), Environment("cpu", False), Environment("cuda", True)
GIB = 2**30


def settings(**fields: Any) -> EngineSettings:
    return EngineSettings.model_validate({"runtime": "vllm", **fields})


def model(folder: Path, numbers: int = 1000) -> Path:
    """Of so many weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", {"layer.weight": np.zeros((numbers // 10, 10), np.float16)})
    return folder


@pytest.mark.parametrize(
    ("environment", "fields", "takes"),
    [
        (NEW_CPU, {}, GIB + 2000),
        (NEW_CPU, {"kv_cache_gb": 4}, 4 * GIB + 2000),
        (NEW_CPU, {"kv_cache_gb": 4, "vllm": {"tensor_parallel": 2}}, 8 * GIB + 2000),
        (OLD_CPU, {}, GIB + 4000),
        (OLD_CPU, {"vllm": {"arguments": ["--dtype", "bfloat16"]}}, GIB + 2000),
        (NEW_CPU, {"vllm": {"arguments": ["--dtype=float32"]}}, GIB + 4000),
        (GPU, {"kv_cache_gb": 4}, 2000),
    ],
)
def test_a_server_takes_its_weights_as_they_are_served_and_its_cache_on_a_cpu(
    tmp_path: Path, environment: Environment, fields: dict[str, Any], takes: float
) -> None:
    assert server(model(tmp_path), settings(**fields), environment) == AROUND + takes


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(CorruptArtefact, match=r"model.safetensors can't be read"):
        weights(tmp_path, width=None, packed=True)


async def test_an_adapter_takes_its_own_weights_and_its_base_where_that_is_not_up(
    fleets: Make,
    program: Any,
    tmp_path: Path,
) -> None:
    base, artefact = model(tmp_path / "base"), adapter(tmp_path)
    own = (artefact / "adapter_model.safetensors").stat().st_size
    fleet = fleets(python=program("well"), adapters_on=str(base))
    whole_server = server(base, settings(), NEW_CPU)
    assert await fleet.needs(artefact, manifest()) == own + whole_server
    assert fleet.pids() == []
    child = await fleet.start(artefact, manifest(), timeout=30)
    assert await fleet.needs(artefact, manifest()) == own
    pid = child.pid
    await child.close()
    assert fleet.pids() == [pid], "it holds its memory with no adapter, too"
    child = await fleet.start(artefact, manifest(), timeout=30)
    child.kill()
    await child.gone.wait()
    assert await fleet.needs(artefact, manifest()) == own + whole_server
    await child.close()


async def test_a_whole_model_takes_a_server_and_a_server_that_was_found_nothing_of_this_machine(
    fleets: Make,
    tmp_path: Path,
) -> None:
    artefact = model(whole(tmp_path))
    assert await fleets().needs(artefact, manifest()) == AROUND + GIB + 2000
    assert await fleets(four_bits=False).needs(artefact, manifest()) == AROUND + GIB + 4000
    assert await fleets(urls=["http://127.0.0.1:9"]).needs(artefact, manifest()) == 0.0


class Needing(msgspec.Struct):
    """Says what it was told to, and starts nothing."""

    needed: float
    held: list[int | None]

    async def start(self, folder: Path, manifest: Manifest) -> Instance:
        raise NotReady("it was started")

    async def needs(self, folder: Path, manifest: Manifest) -> float:
        return self.needed

    def pids(self) -> list[int | None]:
        return self.held


@pytest.mark.parametrize(
    ("needed", "held", "kind", "why"),
    [
        (1e9, [], NotReady, "it was started"),
        (3e9, [], Unfit, "v1 takes about 3.00 GB, more than memory_gb: 2 of this engine"),
        (2e9, [None, os.getpid()], NoRoom, "v1 takes about 2.00 GB and .* are in use"),
    ],
)
async def test_what_a_runtime_says_that_it_needs_and_holds_decides(
    tmp_path: Path, needed: float, held: list[int | None], kind: type[Exception], why: str
) -> None:
    store = Store(tmp_path / "store")
    staging = store.staging("v1")
    (staging / "config.json").write_text("{}")
    store.add(staging, manifest())
    loader = Loader(store, Needing(needed, held), memory_gb=2.0, seconds=5.0)
    with pytest.raises(kind, match=why):
        await loader.load(version("v1"), list, lambda _: None)


async def test_who_waits_for_room_has_not_all_its_files_read_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    staging = store.staging("v1")
    (staging / "config.json").write_text("{}")
    store.add(staging, manifest())
    monkeypatch.setattr(store, "verify", None)
    with pytest.raises(NoRoom):
        await Loader(store, Needing(2e9, [os.getpid()]), memory_gb=2.0, seconds=5.0).load(
            version("v1"), list, lambda _: None
        )
