"""How much memory versions take, and who goes first where it runs out."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_fakes import Tiny
from idle_instance import IdleInstance

from exporters.models import CLOSED, CorruptArtefact, ExportFailed, Manifest
from exporters.models.rows import Rows
from gateway.engines.child import Child
from gateway.engines.errors import NoRoom, Unfit, WorkerGone
from gateway.engines.loading import Loader
from gateway.engines.memory import AROUND_WEIGHTS, FirstToGo, check, lacking, needs, resident


def manifest(**sizes: int) -> Manifest:
    return Manifest(
        id="v2", route="r", kind="chat", runtime="onnxruntime-genai", base="b", base_revision="1", quantization="int8",
        created_at=1.0, files={}, sizes={f"model.{name}": size for name, size in sizes.items()},
    )  # fmt: skip


def test_a_version_needs_its_weights_what_is_around_them_and_its_cache(tiny: Tiny, tmp_path: Path) -> None:
    made = manifest(onnx=10**8, data=6 * 10**8, html=10**12)
    cache = Rows(tiny.onnx, threads=1)
    token = sum(array.nbytes for array in cache._cache.arrays) / (cache.count * cache.context_length)
    whole = token * cache.count * cache.context_length
    assert needs(tiny.onnx, made, cache_gb=1.0) == 7e8 + AROUND_WEIGHTS + whole
    assert needs(tiny.onnx, made, cache_gb=whole / 2e9) == 7e8 + AROUND_WEIGHTS + whole / 2
    closed = msgspec.structs.replace(made, runtime=CLOSED)
    assert needs(tmp_path, closed, cache_gb=1.0) == 7e8 + AROUND_WEIGHTS
    with pytest.raises(ExportFailed, match=r"genai_config\.json can't be read"):
        needs(tmp_path, made, cache_gb=1.0)


def test_a_version_that_needs_too_much_is_refused_and_one_that_needs_what_others_hold_waits() -> None:
    check("v2", 0.0, needed=1e9, most_gb=1.0)
    with pytest.raises(Unfit, match=r"v2 takes about 1\.00 GB, more than memory_gb: 0\.9 of this engine"):
        check("v2", 0.0, needed=1e9, most_gb=0.9)
    with pytest.raises(NoRoom, match=r"v2 takes about 1\.00 GB and 0\.60 are in use, of memory_gb: 1\.5") as caught:
        check("v2", 6e8, needed=1e9, most_gb=1.5)
    assert caught.value.retryable
    assert caught.value.lacks == pytest.approx(1e8)


def test_what_a_version_frees_is_what_it_takes_unless_its_process_outlives_it() -> None:
    class Servers:
        def pids(self) -> list[int | None]:
            return [7]

    loader = Loader(Any, Servers(), memory_gb=1.0, seconds=1.0)  # type: ignore[arg-type]
    child = IdleInstance()
    assert loader.frees(child) == 0.0, "it takes none here"
    child.pid = os.getpid()
    assert loader.frees(child) == pytest.approx(resident(child.pid), rel=0.2)
    child.pid = 7
    assert loader.frees(child) == 0.0, "an adapter's"


def test_what_is_held_is_what_is_there_or_what_was_said_to_be_needed() -> None:
    loader = Loader(Any, Any, memory_gb=1.0, seconds=1.0)  # type: ignore[arg-type]
    own = os.getpid()
    assert 10**7 < resident(own) < 10**10
    assert loader._held({own, None}) == pytest.approx(resident(own), rel=0.2)
    loader._needs = {own: 1e12, 2**30: 1e12}
    assert loader._held({own, None}) == 1e12
    assert loader._needs == {own: 1e12}, "the other has ended"


def test_memory_that_ends_is_known_below_what_a_loader_makes_of_it() -> None:
    said = CorruptArtefact("v1 holds no encoder that can be run: ")
    said.__cause__ = MemoryError()
    assert lacking(said)
    assert lacking(ValueError("Unable to allocate 1.2 GiB for an array with shape (9, 9) and data type float32"))
    said.__cause__ = ValueError("its shape")
    assert not lacking(said)


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        assert resident(ended.pid) == 0


def test_who_loads_goes_first_and_then_no_sooner_than_before() -> None:
    file = Path("/proc/self/oom_score_adj")
    before = file.read_text()
    with FirstToGo():
        assert file.read_text().strip() == "1000"
    assert file.read_text() == before


async def test_a_version_that_the_machine_has_no_memory_for_is_worth_another_try(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries and weights are as large as the runtime says; what fails first depends on how little there is, and how
    little is too little on the machine."""
    child = await Child.start(tiny.onnx, threads=1, timeout=60)
    peak = int(Path(f"/proc/{child.pid}/status").read_text().partition("VmPeak:")[2].split()[0])
    await child.close()
    found: list[NoRoom | WorkerGone] = []
    for share in (0.9, 0.87, 0.84, 0.81, 0.78, 0.75, 0.72, 0.69, 0.66):
        limited = tmp_path / f"limited-{share}"
        limited.write_text(f'#!/bin/sh\nulimit -v {int(peak * share)}\nexec {sys.executable} "$@"\n')
        limited.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(limited))
            try:
                started = await Child.start(tiny.onnx, threads=1, timeout=60)
            except (NoRoom, WorkerGone) as error:
                found.append(error)
            else:
                await started.close()
    assert all(error.retryable for error in found)
    assert any("there is no memory left to load it" in str(error) for error in found), found
