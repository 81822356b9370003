"""Four bits from end to end on a CUDA device, with SmolLM2: NF4 by bitsandbytes' kernels there, AWQ computed there, and
vLLM's own kernels."""

from pathlib import Path

import pytest
import torch
import vllm_service
from four_bits import from_nf4_to_awq

from gateway.engines.vllm_environment import ask

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.e2e,
    pytest.mark.quiet,
    pytest.mark.train,
    pytest.mark.smollm,
    pytest.mark.service,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


async def test_smollm2_from_nf4_in_training_to_awq_in_vllm_and_onnx(tmp_path: Path) -> None:
    environment = await ask(vllm_service.python())
    if environment.device != "cuda":
        pytest.skip("scripts/install_vllm --gpu installs vLLM for CUDA")
    manifest = await from_nf4_to_awq(
        tmp_path,
        student={"base": "SmolLM2-135M-Instruct"},
        retrain={"learning_rate": 8e-4},  # the demo's
        arguments=("--gpu-memory-utilization", "0.2"),  # of four servers at most: the next student learns meanwhile
    )
    assert (manifest.base, manifest.training["device"]) == ("SmolLM2-135M-Instruct", "cuda")
