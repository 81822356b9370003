"""The scrubber with its real models, for several test files, and what is planted for it."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from collector.scrub import Scrubber
from router import CapturePolicy

CARD, IBAN, PHONE = "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "+1 415 555 2671"
EMAIL, KEY = "jane.doe@acme.org", "sk-proj-aB3dE5fG7hI9jK1lM2nO"
ROUTES = {
    "kept": CapturePolicy(keep=("Jane", "Django", "Java", "acme.org")),
    "placeholders": CapturePolicy(scrub={"default": "placeholder", "CITY": "keep", "EMAIL": "hash"}),
    "dropping": CapturePolicy(scrub={"CARD": "drop", "IBAN": "drop"}),
    "english": CapturePolicy(languages=("en",)),
}


@contextlib.contextmanager
def real_scrubber() -> Iterator[Scrubber]:
    """As in a scrub worker, torch and transformers can't be imported meanwhile."""
    hidden = {name: sys.modules.get(name) for name in ("torch", "transformers")}
    sys.modules.update({name: None for name, module in hidden.items() if module is None})  # type: ignore[misc]
    yield Scrubber(b"salt" * 8, routes=ROUTES)
    for name, module in hidden.items():
        if module is None:
            del sys.modules[name]


def clean(scrubber: Scrubber, value: Any, *, route: str = "r", cluster: str = "c", **more: Any) -> Any:
    return scrubber.scrub([value], route=route, cluster=cluster, **more).values[0]
