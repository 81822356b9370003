"""Four bits from end to end: QLoRA, merged, AWQ, registered, canary, live and swapped in vLLM; and the same weights in
the ONNX engine. A tiny model, really trained; real processes, a real vLLM."""

from pathlib import Path

import pytest
import vllm_service
from whole_loop import EXAMPLES, running, stage, swap

from exporters.models import Store, to_onnx
from gateway.engines.child import Child
from gateway.engines.probe import probe
from router import Stage, open_registry

pytestmark = [pytest.mark.e2e, pytest.mark.quiet, pytest.mark.train, pytest.mark.service, pytest.mark.timeout(900)]

START = 400.0  # seconds: a vLLM server takes 30 to 45 on a quiet machine


async def test_from_nf4_in_training_to_awq_in_vllm_and_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    vllm = {"python": vllm_service.python(), "max_model_len": 256}
    four_bits = {
        "engine": {"runtime": "vllm", "vllm": vllm},
        "student": {"recipe": "qlora"},
        "retrain": {"quantization": "awq"},
    }
    async with running(tmp_path, f"sqlite:///{tmp_path}/log.db", heads=2, **four_bits) as loop:
        registry = open_registry(loop.config.registry)
        await loop.traffic(lambda: loop.sent >= EXAMPLES, most=EXAMPLES)
        await loop.until(lambda: stage(registry) is not None, START)
        await loop.until(lambda: (stage(registry) or ("", None))[1] is Stage.SHADOW, START)
        await loop.traffic(lambda: (stage(registry) or ("", None))[1] is Stage.LIVE, most=2000)
        found = stage(registry)
        assert found is not None
        version, now = found
        assert now is Stage.LIVE, loop.output.read_text()[-4000:]
        assert loop.failed == []
        await swap(loop, registry, version, seconds=START)
        artefact = registry.version(version).artefact
        registry.close()

    store = Store(loop.config.artefacts)
    manifest = store.verify(artefact)
    assert (manifest.runtime, manifest.quantization.split()[0].lower()) == ("vllm", "awq")
    out = tmp_path / "onnx"
    out.mkdir()
    to_onnx(store.path(artefact), out, quantization="awq", log=tmp_path / "export.log")
    child = await Child.start(out, threads=1, timeout=120)
    try:
        await probe(child, manifest)  # its golden answers, within what other kernels may differ by
    finally:
        await child.close()
