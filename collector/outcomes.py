"""What conversations come to: an exposure at a conversation's first answer, an outcome at the end of its window.

A conversation (a cluster) counts once for each version in service: by its first eligible exchange, with the arm and the
propensity that were decided for it, whether or not the call then succeeded (intention to treat). The last outcome that
is reported of any of its requests within the window counts; silence is 0. An outcome belongs to the arm of the
exposure, also where a later request of the conversation went elsewhere.

Reports are appended to the log too (stream `feedback`), so that a restart finds open windows, and what was reported in
them, again. It does not find which later requests belong to a conversation: of these, reports after the restart are
counted as unknown. Windows end by the wall clock.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import msgspec

from collector.frames import Exchange, Feedback
from collector.log import Entry, EventLog, Stream
from router import Arm, Events, Metric, Observation, RoutePolicy, decode_evidence

MOST_OPEN = 100_000  # windows; about 100 MB
MOST_REQUESTS = 200_000
MOST_CLOSED = 100_000
DOWN_SECONDS = 7 * 86400.0  # a window that ended while no collector ran is closed at the next start, so long after
PAGE = 10_000
MOST_READ = 5_000_000  # entries of a stream at a start; about 20 s

Key = tuple[str, str]  # version, cluster


class _Window(msgspec.Struct):
    """`value`: what was reported last."""

    exposure: Observation
    until: float
    value: float = 0.0


class Outcomes:
    """The windows of all routes. Times in Unix seconds."""

    def __init__(self, routes: Mapping[str, RoutePolicy], events: Events, *, most_open: int = MOST_OPEN) -> None:
        self._seconds = {name: p.outcomes.window for name, p in routes.items() if p.outcomes is not None}
        self._events = events
        self._most_open = most_open
        self._open: dict[Key, _Window] = {}
        self._ends: list[tuple[float, Key]] = []  # a heap
        self._requests: OrderedDict[str, Key] = OrderedDict()
        self._closed: OrderedDict[Key, None] = OrderedDict()

    def expose(self, exchange: Exchange) -> list[Observation]:
        """The exposure that an exchange is, if it is one."""
        decision = exchange.decision
        if decision.route not in self._seconds or not decision.eligible or not decision.in_service:
            return []
        key = (decision.in_service, exchange.cluster)
        if key in self._closed or not exchange.cluster:
            return []
        if key in self._open:
            self._remember(exchange.id, key)
            return []
        if len(self._open) >= self._most_open:
            self._events.emit("collector.exposure_dropped", route=decision.route)
            return []
        made = Observation(
            id=f"exposure:{key[0]}:{key[1]}",
            at=exchange.at,
            route=decision.route,
            version=key[0],
            metric=Metric.EXPOSURE,
            arm=Arm.STUDENT if decision.arm is Arm.STUDENT and decision.version == key[0] else Arm.TEACHER,
            propensity=decision.propensity,
            value=0.0,
            cluster=exchange.cluster,
            request_id=exchange.id,
        )
        self._begin(made)
        return [made]

    def report(self, feedback: Feedback) -> bool:
        """Take an outcome; False where no open window has its request."""
        window = self._open.get(self._requests.get(feedback.request_id, ("", "")))
        if window is None or feedback.outcome is None or feedback.at > window.until:
            return False
        window.value = feedback.outcome
        return True

    def due(self, now: float) -> list[Observation]:
        """The outcomes of the windows that have ended."""
        found = []
        while self._ends and self._ends[0][0] <= now:
            window = self._close(heapq.heappop(self._ends)[1])
            if window is not None:
                version, cluster = window.exposure.version, window.exposure.cluster
                changes = {"id": f"outcome:{version}:{cluster}", "metric": Metric.OUTCOME}
                found.append(msgspec.structs.replace(window.exposure, **changes, at=window.until, value=window.value))
        return found

    def restore(self, log: EventLog, now: float) -> None:
        """Open again what the log says is open. Raises LogError."""
        if not self._seconds:
            return
        for route, seconds in self._seconds.items():
            self._restore_route(log, route, now - seconds - DOWN_SECONDS)

    def _restore_route(self, log: EventLog, route: str, since: float) -> None:
        found: list[Observation] = []
        ended: set[str] = set()
        for entry in _backwards(log, Stream.EVIDENCE, route, since):  # an outcome is met before its exposure
            if entry.at < since:
                continue
            kind, _, key = entry.id.partition(":")
            if kind == "outcome":
                ended.add(key)
            elif kind == "exposure" and len(self._open) + len(found) < self._most_open:
                record = decode_evidence(entry.value)
                if isinstance(record, Observation):
                    found.append(record)
        for exposure in reversed(found):  # the oldest first
            if f"{exposure.version}:{exposure.cluster}" in ended:
                self._forget_as_closed((exposure.version, exposure.cluster))
            else:
                self._begin(exposure)
        reports = [entry.value for entry in _backwards(log, Stream.FEEDBACK, route, since)]
        for report in reversed(reports):
            self.report(msgspec.msgpack.decode(report, type=Feedback))

    def _begin(self, exposure: Observation) -> None:
        key = (exposure.version, exposure.cluster)
        until = exposure.at + self._seconds[exposure.route]
        self._open[key] = _Window(exposure, until)
        heapq.heappush(self._ends, (until, key))
        if exposure.request_id is not None:
            self._remember(exposure.request_id, key)

    def _remember(self, request_id: str, key: Key) -> None:
        self._requests[request_id] = key
        if len(self._requests) > MOST_REQUESTS:
            self._requests.popitem(last=False)

    def _close(self, key: Key) -> _Window | None:
        self._forget_as_closed(key)
        return self._open.pop(key, None)

    def _forget_as_closed(self, key: Key) -> None:
        self._closed[key] = None
        if len(self._closed) > MOST_CLOSED:
            self._closed.popitem(last=False)  # should it come again, the log drops its exposure by its id


def _backwards(log: EventLog, stream: Stream, route: str, since: float) -> Iterator[Entry]:
    """A route's entries, the newest first, to the first page that is all older than `since`; MOST_READ at the most."""
    stop = log.end(stream, key=route)
    least = max(stop - MOST_READ, 0)
    while stop > least:
        start = max(stop - PAGE, 0)
        page = [entry for entry in log.read(stream, start, PAGE, key=route) if entry.offset < stop]
        yield from reversed(page)
        if page and max(entry.at for entry in page) < since:
            return
        stop = start
