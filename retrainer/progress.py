"""How far a long phase is: what the demo draws and the daemon logs."""

import time
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called now and then. `done` of `total` units of work; `seconds_left` is an estimate, None while unknown."""

    def __call__(self, phase: str, done: int, total: int, seconds_left: float | None) -> None:
        """`phase` stands at `done`."""


def silent(phase: str, done: int, total: int, seconds_left: float | None) -> None:
    """Progress that nobody watches."""


class Meter:
    """Turns counts into an estimate: the time so far, scaled by the work that is left.

    Work that was done before (a resumed training) doesn't count as speed.
    """

    def __init__(
        self,
        progress: Progress,
        phase: str,
        total: int,
        *,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress, self._phase, self._total = progress, phase, total
        self._clock = clock
        self._began, self._start = clock(), done
        progress(phase, done, total, None)

    def __call__(self, done: int) -> None:
        """`done` units in all have been done."""
        new = done - self._start
        left = (self._clock() - self._began) / new * (self._total - done) if new > 0 else None
        self._progress(self._phase, done, self._total, left)
