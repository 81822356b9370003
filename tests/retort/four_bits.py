"""Four bits from end to end: QLoRA, merged, AWQ, registered, canary, live and swapped in vLLM; and the same weights in
the ONNX engine. Real processes, a real vLLM."""

from pathlib import Path
from typing import Any

import vllm_service
from whole_loop import EXAMPLES, running, stage, swap

from exporters.models import Manifest, Store, to_onnx
from gateway.engines.child import Child
from gateway.engines.probe import probe
from gateway.engines.vllm_environment import ask
from router import Stage, open_registry

START = 400.0  # seconds: a vLLM server takes 30 to 45 on a quiet machine, and a GPU's compiles


async def from_nf4_to_awq(
    folder: Path, *, student: dict[str, Any] | None = None, retrain: dict[str, Any] | None = None,
    arguments: tuple[str, ...] = (),
) -> Manifest:  # fmt: skip
    """A whole loop in `folder`; the manifest of the student that it came to. `student`, `retrain`: more of the route's
    policy, by default a tiny model's; `arguments`: more of vLLM's."""
    vllm = {"python": vllm_service.python(), "max_model_len": 256, "arguments": list(arguments)}
    policy: dict[str, Any] = {
        "engine": {"runtime": "vllm", "vllm": vllm},
        "student": {"recipe": "qlora", **(student or {})},
        "retrain": {"quantization": "awq", **(retrain or {})},
    }
    async with running(folder, f"sqlite:///{folder}/log.db", heads=2, **policy) as loop:
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
        # four bits are served where they can be
        served_dense = "engine.four_bits_unsupported" in loop.output.read_text()
        assert served_dense is not (await ask(vllm_service.python())).four_bits
        artefact = registry.version(version).artefact
        registry.close()

    store = Store(loop.config.artefacts)
    manifest = store.verify(artefact)
    assert (manifest.runtime, manifest.quantization) == ("vllm", "awq")
    out = folder / "onnx"
    out.mkdir()
    to_onnx(store.path(artefact), out, quantization="awq", log=folder / "export.log")
    child = await Child.start(out, threads=1, timeout=120)
    try:
        await probe(child, manifest)  # its golden answers, within what other kernels may differ by
    finally:
        await child.close()
    return manifest
