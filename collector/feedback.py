"""What clients report, brought together with the exchanges that they report on.

A report may come before its exchange, which waits for its shadow calls: it is kept for EARLY_SECONDS. One that finds
nothing by then, or comes after its time, is counted as unknown. What is compared with right answers stays in memory;
keeping them is collector.right_answers' part.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from collector.frames import Exchange, Feedback
from collector.log import EventLog, Record, Stream
from collector.outcomes import Outcomes
from collector.pairs import Pair
from collector.parse import Completion
from collector.truth import Truths, right_answer
from router import Config, Events, Observation, QualityPolicy

EARLY_SECONDS = 120.0  # shadow calls end within 60
MOST_EARLY = 2000  # of 64 KiB at the most

Truth = tuple[Sequence[Pair], QualityPolicy, Completion]


class _Early(msgspec.Struct, frozen=True):
    feedback: Feedback
    text: str
    until: float


class Reports:
    """Outcomes and right answers. Times in Unix seconds."""

    def __init__(self, config: Config, events: Events, *, most_early: int = MOST_EARLY) -> None:
        self._config = config
        self._events = events
        self._most_early = most_early
        self._outcomes = Outcomes(config.routes, events)
        self._truths = Truths()
        self._early: OrderedDict[tuple[str, str], _Early] = OrderedDict()  # by kind and request

    def take(self, feedback: Feedback, body: bytes, now: float) -> tuple[list[tuple[Stream, Record]], Truth | None]:
        """What is to be appended of a report, and the pairs that it makes comparable."""
        policy = self._config.routes.get(feedback.route)
        if policy is None:
            self._count(feedback, "outcome" if feedback.outcome is not None else "truth", "unknown_route")
            return [], None
        records = []
        if feedback.outcome is not None:
            if policy.outcomes is None:
                self._count(feedback, "outcome", "not_wanted")
            elif not math.isfinite(feedback.outcome) or not 0.0 <= feedback.outcome <= 1.0:
                self._count(feedback, "outcome", "invalid")
            else:
                kept = msgspec.msgpack.encode(feedback)
                record = Record(id=feedback.id, key=feedback.route, at=feedback.at, value=kept)
                records.append((Stream.FEEDBACK, record))
                self._outcome(feedback, now, wait=True)
        if not feedback.truth_bytes:
            return records, None
        if policy.quality.reference != "truth":
            if not feedback.capture:
                self._count(feedback, "truth", "not_wanted")
            return records, None
        try:
            text = body[: feedback.truth_bytes].decode()
        except UnicodeDecodeError:
            self._count(feedback, "truth", "invalid")
            return records, None
        return records, self._truth(feedback, text, now, wait=True)

    def arrived(self, exchange: Exchange, pairs: Sequence[Pair], now: float) -> tuple[list[Observation], Truth | None]:
        """An exchange has come: its exposure, if it is one, and its pairs with the right answer, if that came first.
        What it has to wait for is kept."""
        exposed = self._outcomes.expose(exchange)
        early = self._early.pop(("outcome", exchange.id), None)
        if early is not None:
            self._outcome(early.feedback, now, wait=False)
        policy = self._config.routes[exchange.decision.route]
        if policy.quality.reference != "truth" or not pairs:
            return exposed, None
        calls = (exchange.served, *exchange.shadows)
        size = exchange.request_bytes + sum(call.body_bytes for call in calls)
        pushed = self._truths.keep(exchange.id, pairs, until=exchange.at + policy.quality.truth_within, size=size)
        if pushed:
            self._events.emit("collector.pair_lost", route=exchange.decision.route, reason="truth_memory")
        early = self._early.pop(("truth", exchange.id), None)
        return exposed, None if early is None else self._truth(early.feedback, early.text, now, wait=False)

    def due(self, now: float) -> list[Observation]:
        """The outcomes of windows that have ended; forgets what has waited long enough."""
        self._truths.expire(now)
        while self._early and next(iter(self._early.values())).until < now:
            (kind, _), early = self._early.popitem(last=False)
            self._count(early.feedback, kind, "unknown")
        return self._outcomes.due(now)

    def restore(self, log: EventLog, now: float) -> None:
        """Open again what the log says is open. Raises LogError."""
        self._outcomes.restore(log, now)

    def _outcome(self, feedback: Feedback, now: float, *, wait: bool) -> None:
        if self._outcomes.report(feedback):
            self._count(feedback, "outcome", "taken")
        else:
            self._keep_or_count(feedback, "outcome", "", now, wait=wait)

    def _truth(self, feedback: Feedback, text: str, now: float, *, wait: bool) -> Truth | None:
        pairs = self._truths.take(feedback.request_id, feedback.at)
        if pairs is None:
            self._keep_or_count(feedback, "truth", text, now, wait=wait)
            return None
        self._count(feedback, "truth", "taken")
        return pairs, self._config.routes[feedback.route].quality, right_answer(text)

    def _keep_or_count(self, feedback: Feedback, kind: str, text: str, now: float, *, wait: bool) -> None:
        if not wait:
            self._count(feedback, kind, "unknown")
            return
        key = (kind, feedback.request_id)
        self._early.pop(key, None)  # the last one counts
        self._early[key] = _Early(feedback, text, now + EARLY_SECONDS)
        if len(self._early) > self._most_early:
            (kind, _), dropped = self._early.popitem(last=False)
            self._count(dropped.feedback, kind, "unknown")

    def _count(self, feedback: Feedback, kind: str, result: str) -> None:
        route = feedback.route if feedback.route in self._config.routes else ""
        self._events.emit("collector.feedback", route=route, kind=kind, result=result)
