"""What a route's log has gained since its last data set."""

import logging

from collector import Interactions
from collector.errors import LogError
from retrainer.data.curate import example_of

log = logging.getLogger("retort.retrainer")


class Count:
    """Usable answers that a route's log has gained since its last data set; reads each record once."""

    def __init__(self, interactions: Interactions, route: str, *, since: int) -> None:
        self._interactions, self._route = interactions, route
        self._next, self._count = since, 0

    def since(self, offset: int) -> None:
        """Count anew from an offset."""
        self._next, self._count = offset, 0

    def count(self) -> int:
        """How many there are now; the last known number while the log can't be read."""
        try:
            for offset, record in self._interactions.of(self._route, start=self._next):
                self._count += example_of(record, offset).example is not None
                self._next = offset + 1
        except LogError as error:
            log.warning("retrainer.log_unreadable", extra={"error": str(error)})
        return self._count
