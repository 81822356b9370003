"""Where the tests find vLLM."""

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


def python() -> str:
    """The interpreter of vLLM's environment."""
    if not (_ROOT / ".vllm/.installed").is_file():
        if os.environ.get("CI"):
            pytest.fail("no vLLM: scripts/install_vllm did not run")
        pytest.skip("scripts/install_vllm installs vLLM")
    return str(_ROOT / ".vllm/bin/python")
