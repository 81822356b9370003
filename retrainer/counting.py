"""What a route's log has gained since its last data set: how many examples, and whether its inputs are others now."""

import logging
import time
from collections.abc import Sequence
from itertools import chain

from collector import Interaction, Interactions
from collector.errors import LogError
from retrainer.data.curate import example_of, unserved
from retrainer.data.dataset import Dataset, load
from retrainer.data.render import plain_messages
from retrainer.drift import Drift, Messages
from retrainer.errors import CycleError
from retrainer.state import Cycles
from router.events import Events
from router.policy import RoutePolicy

MOST_KNOWN = 5000  # inputs that a window is compared with
LEAST_KNOWN = 100  # of the log, else what the data set holds has to do

log = logging.getLogger("retort.retrainer")


def is_new(record: Interaction, offset: int, policy: RoutePolicy) -> bool:
    """Whether a record counts as an example, if no cycle has read it yet."""
    kept = example_of(record, offset, tools=policy.learns_tools, teachers=policy.teachers, unserved=unserved(policy))
    return kept.example is not None


class Count:
    """Of one route; reads each record once. `drifted`: whether a window of inputs has shifted away from the data set's
    since then."""

    def __init__(
        self, interactions: Interactions, cycles: Cycles, route: str, policy: RoutePolicy, events: Events
    ) -> None:
        self._interactions, self._cycles, self._route, self._policy = interactions, cycles, route, policy
        self._events = events
        self.anew()

    def anew(self) -> None:
        """Count from where the route's cycles have read to."""
        states = self._cycles.of(self._route)
        self._next, self._count, self.drifted = max((s.read_to for s in states), default=0), 0, False
        made = [s.request.cycle_id for s in states if "dataset" in s.phases and s.outcome != "failed"]
        self._drift: Drift | None = None
        self._unwatched = self._cycles.folder(made[-1]) / "dataset" if made else None

    def count(self) -> int:
        """How many usable answers there are now; the last known number while the log can't be read."""
        try:
            self._begin_watch()
            for offset, record in self._interactions.of(self._route, start=self._next):
                self._count += is_new(record, offset, self._policy)
                self._watch(record)
                self._next = offset + 1
        except LogError as error:
            log.warning("retrainer.log_unreadable", extra={"error": str(error)})
        return self._count

    def _begin_watch(self) -> None:
        folder, self._unwatched = self._unwatched, None
        drift = self._policy.retrain.drift
        if folder is None or drift is None:
            return
        try:
            made = load(folder)
            self._drift = Drift(made, drift, self._known(made))
        except CycleError as error:  # it was removed, say: the next cycle's will do
            log.warning("retrainer.drift_unwatched", extra={"route": self._route, "error": str(error)})
        except LogError:
            self._unwatched = folder
            raise

    def _known(self, made: Dataset) -> Sequence[Messages]:
        """What was asked where the data set's examples come from, as far as the log still has it. Where older ones were
        left out, from its oldest on that weren't drawn to be replayed, and aren't kept for somebody's correction."""
        manifest, start = made.manifest, made.manifest.first
        if "too_old" in manifest.dropped:
            offsets = sorted(e.offset for e in chain(made.train, made.held_out) if not e.corrected)
            start = offsets[manifest.replayed] if manifest.replayed < len(offsets) else start
        records = self._interactions.spread(self._route, start=start, end=manifest.end, most=MOST_KNOWN)
        asked = [plain_messages(record.request, tools=self._policy.learns_tools) for record in records]
        known = [messages for messages in asked if messages is not None]
        return known if len(known) >= LEAST_KNOWN else [e.messages for e in made.held_out]

    def _watch(self, record: Interaction) -> None:
        """All inputs of live traffic, whoever answered them."""
        if self._drift is None or record.source:
            return
        messages = plain_messages(record.request, tools=self._policy.learns_tools)
        shift = self._drift.add(messages) if messages is not None else None
        if shift is not None:
            self.drifted = self.drifted or shift.found
            measured = {"route": self._route, "psi": shift.psi, "bound": shift.bound}
            log.info("retrainer.drift", extra=measured)
            self._events.emit("retrainer.drift", **measured, at=time.time())
