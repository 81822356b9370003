"""What an engine tells the collector of its versions: that one is ready, or is not, and why."""

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable

from router.evidence import EventKind, RouteEvent
from router.registry import Version

log = logging.getLogger("retort.engine")

_MOST_UNSENT = 1000


class Reports:
    """Of the engine `name`. `send(event)` hands one over; False when it can't be taken now: it is kept, and sent again
    at the next `flush`."""

    def __init__(self, name: str, send: Callable[[RouteEvent], bool]) -> None:
        self._name, self._send = name, send
        self._unsent: deque[RouteEvent] = deque(maxlen=_MOST_UNSENT)

    def ready(self, version: Version, url: str) -> None:
        """It is served, and published."""
        log.info("engine.ready", extra={"version": version.id, "url": url})
        self._tell(version, EventKind.READY, url=url)

    def refused(self, version: Version, reason: str, *, hopeless: bool = False) -> None:
        """It can't be served. `hopeless`: trying again would not help, so the version should be rejected."""
        log.error("engine.unready", extra={"version": version.id, "reason": reason})
        self._tell(version, EventKind.UNREADY, reason=reason, hopeless=hopeless)

    def withdrawn(self, version: Version, reason: str) -> None:
        """It is no longer served, which is nobody's fault."""
        self._tell(version, EventKind.UNREADY, reason=reason)

    def flush(self) -> None:
        """Send what is still owed."""
        while self._unsent and self._send(self._unsent[0]):
            self._unsent.popleft()

    def _tell(self, version: Version, kind: EventKind, **data: str | bool) -> None:
        """The event's id is unique, and sending it again harmless."""
        event = RouteEvent(
            id=f"{kind}:{self._name}:{version.id}:{uuid.uuid4().hex}",
            at=time.time(),
            route=version.route,
            kind=kind,
            version=version.id,
            data={"engine": self._name, **data},
        )
        self._unsent.append(event)
        self.flush()
