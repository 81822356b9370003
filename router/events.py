"""In-process events: the rooms emit them, `retort` subscribes the exporters. Names are constants, fields are few.

Never a prompt, a header's value or anything else that came from a client: labels are made from these fields.
"""

import logging
from collections.abc import Callable
from typing import Any

Subscriber = Callable[[str, dict[str, Any]], None]

log = logging.getLogger("retort")


class Events:
    """A list of subscribers. A subscriber that raises is logged and does not stop the others."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber(name, fields)` for every event from now on."""
        self._subscribers.append(subscriber)

    def emit(self, name: str, **fields: Any) -> None:
        """Tell every subscriber, in the order of subscription."""
        for subscriber in self._subscribers:
            try:
                subscriber(name, fields)
            except Exception:
                log.exception("events.subscriber_failed", extra={"event": name})
