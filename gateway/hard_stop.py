"""The worker's hard stop: a version whose requests keep failing gets no more of them, at once."""

import time
from collections import deque
from collections.abc import Callable, Collection

from collector import Happened
from gateway.capture import Sender
from router import EventKind, Events, Rollout, RouteEvent, Snapshot

WINDOW = 20
ERRORS = 10


class HardStop:
    """Counts the last outcomes of each version that served in this worker.

    At ERRORS failures in the last WINDOW the version is held out and the promoter is told, which rolls it back; it is
    let in again when the route's rollout has a new revision. Shadow calls don't count; rescued requests do.
    """

    def __init__(self, sender: Sender, events: Events, *, clock: Callable[[], float] = time.time) -> None:
        self._sender = sender
        self._events = events
        self._clock = clock
        self._outcomes: dict[str, deque[bool]] = {}
        self._held: dict[str, int] = {}

    def ready(self, snapshot: Snapshot, rollout: Rollout) -> Collection[str]:
        """The versions that may get requests of the rollout's route."""
        if not self._held:
            return snapshot.endpoints.keys()
        for version in (rollout.live, rollout.challenger):
            if version is not None and self._held.get(version, rollout.revision) != rollout.revision:
                del self._held[version]
                self._outcomes.pop(version, None)
        return snapshot.endpoints.keys() - self._held.keys()

    def count(self, route: str, version: str, revision: int, *, failed: bool) -> None:
        """Note an outcome of a version that was to serve a user. `revision`: of the rollout that the request saw."""
        outcomes = self._outcomes.get(version)
        if outcomes is None:
            while len(self._outcomes) >= 64:  # long gone versions
                del self._outcomes[next(iter(self._outcomes))]
            outcomes = self._outcomes[version] = deque(maxlen=WINDOW)
        outcomes.append(failed)
        errors = sum(outcomes) if failed else 0
        if errors >= ERRORS and version not in self._held:
            self._held[version] = revision
            self._tell(route, version, revision, errors)

    def _tell(self, route: str, version: str, revision: int, errors: int) -> None:
        # One id per version and revision: when several workers stop it, the log holds it once.
        event = RouteEvent(
            id=f"hard_stop:{version}:{revision}",
            at=self._clock(),
            route=route,
            kind=EventKind.HARD_STOP,
            version=version,
            data={"errors": errors, "window": WINDOW, "revision": revision},
        )
        self._sender.send(Happened(event=event))
        self._events.emit("gateway.hard_stop", route=route, version=version)
