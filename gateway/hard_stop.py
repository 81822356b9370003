"""The worker's hard stop: a version whose requests keep failing gets no more of them, at once."""

import time
from collections import deque
from collections.abc import Callable, Collection

import msgspec

from collector import Happened
from gateway.attempt import Attempt
from gateway.capture import Sender
from gateway.errors import ConnectFailed, Cut, ErrorInStream
from router import EventKind, Events, Rollout, RouteEvent, Snapshot

WINDOW = 20
ERRORS = 10
MOST_VERSIONS = 64
AWAY_SECONDS = 1.0
LOST_SECONDS = 5.0  # within which what was in flight is lost together
AWAY_ERRORS = (ConnectFailed.constant, "http_404")  # nobody is there, or an engine that has not loaded it yet
# What a process's end does to the requests that it holds, and its next one's start to those that wait for it.
LOST_ERRORS = (*AWAY_ERRORS, Cut.constant, ErrorInStream.constant, "http_502")


class _Record(msgspec.Struct):
    """A version's last outcomes in one time of service, of requests decided under revision `since` or a later one.
    `lost`: when a request was lost that had none to be lost along with."""

    outcomes: deque[bool]
    since: int = 0
    lost: float = float("-inf")


class HardStop:
    """Counts the last outcomes of each version that served in this worker.

    At ERRORS failures in the last WINDOW the version is held out and the promoter is told, which rolls it back; it is
    let in again when the route's rollout has a new revision, with a clean record: requests that were decided before
    and end only now are of its earlier time, as after any change of its place in the rollout. Shadow calls don't
    count; rescued requests do.

    A process that ends takes all requests with it that it holds, however many these are, and one that starts may refuse
    many at once: what was in flight when a request was lost (LOST_ERRORS), and is lost too within LOST_SECONDS, is not
    counted. (`over` says so, for others that count.)

    A version that is not where the registry says is left alone for AWAY_SECONDS after each try, and until it has
    answered a call there is one try in that time at most, since an engine that starts may take long to refuse: it is
    back before ten of them have failed, one that stays away is not.
    """

    def __init__(
        self,
        sender: Sender,
        events: Events,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender = sender
        self._events = events
        self._clock = clock
        self._monotonic = monotonic
        self._records: dict[str, _Record] = {}
        self._seen: dict[str, Rollout] = {}  # by route: the latest
        self._held: dict[str, int] = {}  # by version: the revision that was in force
        self._away: dict[str, float] = {}  # by version that has not answered since it was away: until when to leave it
        self._untold: deque[Happened] = deque()  # the sender had no room for them

    def ready(self, snapshot: Snapshot, rollout: Rollout) -> Collection[str]:
        """The versions that may get requests of the rollout's route."""
        if self._seen.get(rollout.route) is not rollout:
            self._see(rollout)
        if self._untold:
            self._tell()
        if not self._held and not self._away:
            return snapshot.endpoints.keys()
        self._away = {version: until for version, until in self._away.items() if version in snapshot.endpoints}
        return snapshot.endpoints.keys() - self._held.keys() - {version for version in self._away if self.away(version)}

    def away(self, version: str | None) -> bool:
        """Whether it is to be left alone now. (None: a teacher, who is not watched.)"""
        return version in self._away and self._away[version] > self._monotonic()

    def calling(self, version: str | None) -> None:
        """A call begins. If its version was away it is the one try."""
        if version in self._away:
            self._away[version] = self._monotonic() + AWAY_SECONDS

    def answers(self, version: str | None) -> None:
        """A call has begun to be answered: its version is there."""
        if version in self._away:
            del self._away[version]

    def over(self, attempt: Attempt) -> None:
        """A call has ended, just now: notes in it whether it was lost along with another of its version."""
        version = attempt.callee.version
        if version is None or attempt.error == "cancelled":
            return
        if attempt.error in AWAY_ERRORS:
            self._away[version] = self._monotonic() + AWAY_SECONDS
        record = self._records.get(version) or self._new_record(version, since=0)
        if attempt.error in LOST_ERRORS:
            ended = attempt.began + (attempt.total_ms or 0.0) / 1000.0
            attempt.along = attempt.began < record.lost and ended < record.lost + LOST_SECONDS
            record.lost = record.lost if attempt.along else ended

    def count(self, route: str, version: str, revision: int, *, failed: bool) -> None:
        """Note an outcome of a version that was to serve a user, not lost along with another. `revision`: of the
        rollout that the request saw."""
        if self._untold:
            self._tell()
        record = self._records.get(version) or self._new_record(version, since=0)
        if revision < record.since:
            return
        record.outcomes.append(failed)
        errors = sum(record.outcomes) if failed else 0
        if errors >= ERRORS and version not in self._held:
            seen = self._seen.get(route)
            self._held[version] = max(revision, seen.revision) if seen else revision
            self._stop(route, version, self._held[version], errors)

    def _see(self, rollout: Rollout) -> None:
        """Where the rollout has changed: whoever was held, or has another place in it, starts with a clean record."""
        before, self._seen[rollout.route] = self._seen.get(rollout.route), rollout
        places = ((rollout.live, before and before.live), (rollout.challenger, before and before.challenger))
        for version, was in places:
            if version is None:
                continue
            released = self._held.get(version, rollout.revision) != rollout.revision
            if released:
                del self._held[version]
            if released or (before is not None and version != was):
                self._new_record(version, since=rollout.revision)

    def _new_record(self, version: str, *, since: int) -> _Record:
        self._records.pop(version, None)
        while len(self._records) >= MOST_VERSIONS:  # long gone versions
            del self._records[next(iter(self._records))]
        record = self._records[version] = _Record(deque(maxlen=WINDOW), since)
        return record

    def _stop(self, route: str, version: str, revision: int, errors: int) -> None:
        # One id per version and revision: when several workers stop it, the log holds it once.
        event = RouteEvent(
            id=f"hard_stop:{version}:{revision}",
            at=self._clock(),
            route=route,
            kind=EventKind.HARD_STOP,
            version=version,
            data={"errors": errors, "window": WINDOW, "revision": revision},
        )
        self._untold.append(Happened(event=event))
        self._tell()
        self._events.emit("gateway.hard_stop", route=route, version=version)

    def _tell(self) -> None:
        """Hand over what has not been taken yet; the rest waits for the next request's beginning or end."""
        while self._untold and self._sender.send(self._untold[0]):
            self._untold.popleft()
