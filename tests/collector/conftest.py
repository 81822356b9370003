"""The scrubber with its real models, and what lets these tests import what they share."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def scrubber() -> Iterator[Any]:
    """The real one; its models take a second, so a file's tests share it."""
    from real_scrubber import real_scrubber

    with real_scrubber() as made:
        yield made
