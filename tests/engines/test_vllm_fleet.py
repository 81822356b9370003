"""The servers of an engine: launched and ended, found and left, adapters loaded and unloaded; vLLM is played."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_fakes import until
from fake_vllm import FakeVllm, write_tokenizer

from exporters.models import VLLM, Manifest
from gateway.engines.errors import DecodeFailed, NotReady, Unfit, WorkerGone
from gateway.engines.protocol import Options, Piece
from gateway.engines.vllm_child import VllmChild
from gateway.engines.vllm_environment import ask
from gateway.engines.vllm_fleet import Fleet

MESSAGES = [{"role": "user", "content": "what colour?"}]
Make = Callable[..., Fleet]


def whole(folder: Path, name: str = "v1") -> Path:
    made = folder / "artefacts" / name
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    write_tokenizer(made)
    return made


def adapter(folder: Path, name: str = "v1") -> Path:
    made = folder / "artefacts" / name
    made.mkdir(parents=True)
    (made / "adapter_config.json").write_text("{}")
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    write_tokenizer(made)
    return made


def manifest(name: str = "v1", quantization: str = "none") -> Manifest:
    return Manifest(
        id=name,
        route="support",
        kind="chat",
        runtime=VLLM,
        base="tiny",
        base_revision="0",
        quantization=quantization,
        created_at=1.0,
        files={},
    )


async def says(child: VllmChild) -> str:
    return "".join([e.text async for e in child.generate(MESSAGES, Options()) if isinstance(e, Piece)])


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_a_version_has_a_server_of_its_own_which_ends_with_all_that_it_started(
    fleets: Make, program: Any, tmp_path: Path
) -> None:
    child = await fleets(python=program("well")).start(whole(tmp_path), manifest(), timeout=30)
    assert await says(child) == "red as a rose"
    below = int((tmp_path / "v1.pid").read_text())
    assert alive(below)
    own = Path("/proc/self/oom_score_adj").read_text()
    started = Path(tmp_path / "v1.oom").read_text()
    assert int(started) == 1000 > int(own), "where memory ends, who loads goes first"
    assert Path(f"/proc/{below}/oom_score_adj").read_text() == own, "and who serves no sooner than others"
    await child.close()
    await until(lambda: not alive(below), seconds=5)
    assert child.gone.is_set()


async def test_a_launched_server_that_is_killed_is_gone_and_what_it_started_is_too(
    fleets: Make, program: Any, tmp_path: Path
) -> None:
    child = await fleets(python=program("well")).start(whole(tmp_path), manifest(), timeout=30)
    below = int((tmp_path / "v1.pid").read_text())
    child.kill()
    await asyncio.wait_for(child.gone.wait(), 5)
    assert child.ending == "it answered nothing"
    await until(lambda: not alive(below), seconds=5)
    await child.close()


@pytest.mark.parametrize(
    ("how", "kind", "why"),
    [
        ("model", NotReady, "ValueError: Model architectures .* are not supported"),
        ("memory", WorkerGone, "ValueError: No available memory"),
        ("killed", WorkerGone, "status 137"),
        ("never", WorkerGone, "was not well within 4 s"),
    ],
)
async def test_why_a_server_does_not_start_says_whether_to_try_again(
    fleets: Make, program: Any, tmp_path: Path, how: str, kind: type[Exception], why: str
) -> None:
    with pytest.raises(kind, match=why) as error:
        await fleets(python=program(how)).start(whole(tmp_path), manifest(), timeout=4 if how == "never" else 30)
    assert f"{tmp_path}/state/vllm/local/v1.log" in str(error.value)
    if (tmp_path / "v1.pid").exists():  # a busy machine may not have come so far
        below = int((tmp_path / "v1.pid").read_text())
        await until(lambda: not alive(below), seconds=5)


async def test_where_four_bits_cant_run_the_same_weights_are_served_dense(
    fleets: Make, program: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artefact, made = whole(tmp_path), []

    async def dense(source: Path, cache: Path) -> Path:
        made.append((source, cache))
        return source

    able, unable = (fleets(python=program("well"), dense=dense, four_bits=can) for can in (True, False))
    for fleet in (able, unable):
        child = await fleet.start(artefact, manifest(quantization="awq"), timeout=30)
        await child.close()
    assert made == [(artefact, tmp_path / "state/vllm/local/dense")]
    [record] = [r for r in caplog.records if r.getMessage() == "engine.four_bits_unsupported"]
    assert "AVX-512" in record.reason


@pytest.mark.parametrize(
    ("lacks", "why"),
    [("config.json", "holds no config.json"), ("tokenizer.json", "holds no tokenizer.json")],
)
async def test_a_folder_that_is_no_model_is_refused_before_anything_starts(
    fleets: Make, tmp_path: Path, lacks: str, why: str
) -> None:
    artefact = whole(tmp_path)
    (artefact / lacks).unlink()
    with pytest.raises(NotReady, match=why):
        await fleets(python="/nowhere").start(artefact, manifest(), timeout=5)


async def test_a_tokenizer_whose_bytes_cant_be_told_is_refused(fleets: Make, tmp_path: Path) -> None:
    artefact = whole(tmp_path)
    (artefact / "tokenizer.json").write_text(json.dumps({"decoder": {"type": "WordPiece"}, "model": {"vocab": {}}}))
    async with FakeVllm().running() as fake:
        with pytest.raises(NotReady, match="is neither a byte-level BPE nor"):
            await fleets(urls=[fake.url]).start(artefact, manifest(), timeout=5)


async def test_where_vllm_is_not_installed_is_told_and_tried_again(tmp_path: Path) -> None:
    with pytest.raises(WorkerGone, match=r"nowhere/python can't be run .*scripts/install_vllm"):
        await ask("nowhere/python")
    with pytest.raises(WorkerGone, match=r"vLLM does not load in .*No module named 'vllm'"):
        await ask(sys.executable)


async def test_of_the_found_servers_the_one_that_serves_the_version_is_taken(fleets: Make, tmp_path: Path) -> None:
    async with FakeVllm("other").running() as other, FakeVllm("v1", b"blue").running() as right:
        fleet = fleets(urls=["http://127.0.0.1:9", other.url, right.url])
        child = await fleet.start(whole(tmp_path), manifest(), timeout=5)
        assert await says(child) == "blue"
        await child.close()
        missing = whole(tmp_path, "v2")
        with pytest.raises(WorkerGone, match=r"no server of vllm.urls serves v2 .*serves other models"):
            await fleet.start(missing, manifest("v2"), timeout=5)


async def test_an_adapter_is_loaded_under_a_new_name_from_a_new_path_and_unloaded(fleets: Make, tmp_path: Path) -> None:
    artefact = adapter(tmp_path)
    async with FakeVllm("base").running() as fake:
        fake.adapters["local.old.00000000"] = fake.adapters["others.adapter"] = "/elsewhere"
        fleet = fleets(urls=[fake.url], adapters_on="/models/base")
        children = [await fleet.start(artefact, manifest(), timeout=5) for _ in range(2)]
        assert fake.calls[0] == ("unload", "local.old.00000000"), "an earlier process of this engine left it"
        names = [name for kind, name in fake.calls if kind == "load"]
        assert len(set(names)) == 2
        assert len({fake.adapters[name] for name in names}) == 2
        assert [await says(child) for child in children] == ["red as a rose"] * 2
        assert [body["model"] for body in fake.bodies] == names
        for child in children:
            await child.close()
        assert set(fake.adapters) == {"others.adapter"}
        assert not list((tmp_path / "state/vllm/local/adapters").iterdir())


async def test_adapters_are_spread_over_the_found_servers(fleets: Make, tmp_path: Path) -> None:
    async with FakeVllm("base").running() as one, FakeVllm("base").running() as two:
        fleet = fleets(urls=[one.url, two.url], adapters_on="/models/base")
        children = [await fleet.start(adapter(tmp_path, f"v{n}"), manifest(f"v{n}"), timeout=5) for n in range(4)]
        assert (len(one.adapters), len(two.adapters)) == (2, 2)
        for child in children:
            await child.close()


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, "it is loaded already", NotReady),
        (404, "there is no such file", WorkerGone),
        (500, "size mismatch", DecodeFailed),
        (500, "LoRA rank 256 is greater than max_lora_rank 64", Unfit),
        (500, "CUDA out of memory", WorkerGone),
    ],
)
async def test_an_adapter_that_vllm_refuses(
    fleets: Make, tmp_path: Path, status: int, said: str, kind: type[Exception]
) -> None:
    async with FakeVllm("base").running() as fake:
        fake.refusal = (status, {"message": said})
        with pytest.raises(kind, match=f"refuses the adapter .status {status}.: {said}"):
            await fleets(urls=[fake.url], adapters_on="/models/base").start(adapter(tmp_path), manifest(), timeout=5)
        assert not list((tmp_path / "state/vllm/local/adapters").iterdir())


async def test_an_engine_serves_adapters_or_whole_models_and_says_which(fleets: Make, tmp_path: Path) -> None:
    with pytest.raises(Unfit, match=r"set vllm.adapters_on of this engine, or merge it"):
        await fleets(urls=["http://127.0.0.1:9"]).start(adapter(tmp_path, "v1"), manifest(), timeout=5)
    with pytest.raises(Unfit, match=r"this engine has vllm.adapters_on"):
        await fleets(adapters_on="/models/base").start(whole(tmp_path, "v2"), manifest("v2"), timeout=5)


async def test_a_launched_base_outlives_its_adapters_and_one_that_has_ended_is_launched_again(
    fleets: Make, program: Any, tmp_path: Path
) -> None:
    fleet = fleets(python=program("well"), adapters_on="/models/base")
    artefact = adapter(tmp_path)
    below = []
    for _ in range(2):
        child = await fleet.start(artefact, manifest(), timeout=30)
        below.append((tmp_path / "local-base.pid").read_text())
        await child.close()
    assert below[0] == below[1]
    child = await fleet.start(artefact, manifest(), timeout=30)
    os.kill(int(below[0]), 0)
    child.kill()
    await asyncio.wait_for(child.gone.wait(), 5)
    await child.close()
    child = await fleet.start(artefact, manifest(), timeout=30)
    assert (tmp_path / "local-base.pid").read_text() != below[0]
    assert await says(child) == "red as a rose"
    await child.close()
