"""How long what broke is left alone."""

import time
from collections.abc import Hashable


class Pause:
    """Twice as long after each failure."""

    def __init__(self) -> None:
        self.times, self.seconds = 0, 0.0
        self._until = 0.0
        self._at: Hashable = None

    @property
    def lasts(self) -> bool:
        """Whether it is too early to try again."""
        return time.monotonic() < self._until

    def grow(self, least: float, *, most: float, at: Hashable = None) -> None:
        """Something failed: wait from now on. Where it had come further than the last time (`at` is another), as after
        its first failure."""
        if at != self._at:
            self.times, self.seconds, self._at = 0, 0.0, at
        self.times += 1
        self.seconds = min(max(least, 2 * self.seconds), most)
        self._until = time.monotonic() + self.seconds
