"""The scrubber with its real models, and what lets these tests import what they share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.scrub import Scrubber

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def scrubber() -> Iterator[Scrubber]:
    hidden = {name: sys.modules.get(name) for name in ("torch", "transformers")}
    sys.modules.update({name: None for name, module in hidden.items() if module is None})  # type: ignore[misc]
    yield Scrubber(b"salt" * 8, keep={"kept": ("Jane", "Django", "Java", "acme.org")})
    for name, module in hidden.items():
        if module is None:
            del sys.modules[name]
