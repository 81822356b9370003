"""Batches: the units in which evidence is judged.

A batch is a route's records up to and with the next event (a clock tick comes every second while a version is
watched), or MOST observations. Within it the observations are put into one order, by time and id, and each counts
once, so that neither the order in which a batch's observations arrived nor a repetition in it changes any decision.
Where batches end is decided by the log alone: every reader finds the same ones.
"""

from collections.abc import Iterable, Iterator, Sequence

from router.evidence import Evidence, Observation, RouteEvent

MOST = 1000

Records = Sequence[tuple[int, Evidence]]


def batches(records: Iterable[tuple[int, Evidence]]) -> Iterator[list[tuple[int, Evidence]]]:
    """The complete batches of a route's records (with offsets, in order); an open one at the end is left out."""
    batch: list[tuple[int, Evidence]] = []
    for offset, record in records:
        batch.append((offset, record))
        if len(batch) >= MOST or isinstance(record, RouteEvent):
            yield batch
            batch = []


def observations(batch: Records) -> list[Observation]:
    """A batch's observations in their one order, each once."""
    found = {record.id: record for _, record in reversed(batch) if isinstance(record, Observation)}
    return sorted(found.values(), key=lambda seen: (seen.at, seen.id))


def event(batch: Records) -> RouteEvent | None:
    """The event that closes a batch; None where MOST observations did."""
    last = batch[-1][1]
    return last if isinstance(last, RouteEvent) else None
