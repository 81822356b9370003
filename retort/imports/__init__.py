"""Other systems' logs, record by record."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from retort.imports import fine_tuning, langfuse, litellm, stored
from retort.imports.foreign import Foreign, Unusable
from retort.imports.reading import WRONG, Broken, Source, Value, opened, values

__all__ = [
    "FORMATS",
    "WRONG",
    "Broken",
    "Foreign",
    "Format",
    "Source",
    "Unusable",
    "Value",
    "format_of",
    "opened",
    "values",
]


class Format(msgspec.Struct, frozen=True):
    """How one system's records are told from others', and read: `read` raises Unusable. `tables`: whether it writes
    CSV, too."""

    is_one: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], list[Foreign]]
    tables: bool = False


# In the order in which they are tried: the last is the least particular.
FORMATS = {
    "litellm": Format(litellm.is_one, litellm.read, tables=True),
    "stored": Format(stored.is_one, stored.read),
    "langfuse": Format(langfuse.is_one, langfuse.read, tables=True),
    "openai": Format(fine_tuning.is_one, fine_tuning.read),
}


def format_of(record: Mapping[str, Any]) -> str | None:
    """The name of the format that a record is of, as far as it shows."""
    return next((name for name, known in FORMATS.items() if known.is_one(record)), None)
