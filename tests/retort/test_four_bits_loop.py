"""Four bits from end to end on a CPU, with a tiny model that is really trained."""

from pathlib import Path

import pytest
from four_bits import from_nf4_to_awq

pytestmark = [pytest.mark.e2e, pytest.mark.quiet, pytest.mark.train, pytest.mark.service, pytest.mark.timeout(900)]


async def test_from_nf4_in_training_to_awq_in_vllm_and_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    manifest = await from_nf4_to_awq(tmp_path)
    assert manifest.base == "base"
