"""What a route's log has gained since its last data set: how many examples, and whether its inputs are others now."""

import logging
import time

from collector import Interaction, Interactions
from collector.errors import LogError
from retrainer.data.curate import example_of
from retrainer.data.dataset import load
from retrainer.data.render import plain_messages
from retrainer.drift import Drift
from retrainer.errors import CycleError
from retrainer.state import Cycles
from router.events import Events
from router.policy import RoutePolicy

log = logging.getLogger("retort.retrainer")


class Count:
    """Of one route; reads each record once. `drifted`: whether a window of inputs has shifted away from the data set's
    since then."""

    def __init__(
        self, interactions: Interactions, cycles: Cycles, route: str, policy: RoutePolicy, events: Events
    ) -> None:
        self._interactions, self._cycles, self._route, self._policy = interactions, cycles, route, policy.retrain
        self._events, self._tools, self._teachers = events, policy.learns_tools, policy.teachers
        self.anew()

    def anew(self) -> None:
        """Count from where the route's cycles have read to."""
        states = self._cycles.of(self._route)
        self._next, self._count, self.drifted = max((s.read_to for s in states), default=0), 0, False
        self._drift = None
        made = [s.request.cycle_id for s in states if "dataset" in s.phases]
        if self._policy.drift is not None and made:
            try:
                self._drift = Drift(load(self._cycles.folder(made[-1]) / "dataset"), self._policy.drift)
            except CycleError as error:  # it was removed, say: the next cycle's will do
                log.warning("retrainer.drift_unwatched", extra={"route": self._route, "error": str(error)})

    def count(self) -> int:
        """How many usable answers there are now; the last known number while the log can't be read."""
        try:
            for offset, record in self._interactions.of(self._route, start=self._next):
                kept = example_of(record, offset, tools=self._tools, teachers=self._teachers)
                self._count += kept.example is not None
                self._watch(record)
                self._next = offset + 1
        except LogError as error:
            log.warning("retrainer.log_unreadable", extra={"error": str(error)})
        return self._count

    def _watch(self, record: Interaction) -> None:
        """All inputs of live traffic, whoever answered them."""
        if self._drift is None or record.source:
            return
        messages = plain_messages(record.request, tools=self._tools)
        shift = self._drift.add(messages) if messages is not None else None
        if shift is not None:
            self.drifted = self.drifted or shift.found
            measured = {"route": self._route, "psi": shift.psi, "bound": shift.bound}
            log.info("retrainer.drift", extra=measured)
            self._events.emit("retrainer.drift", **measured, at=time.time())
