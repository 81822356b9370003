"""How long what broke is left alone."""

import time


class Pause:
    """Twice as long after each failure."""

    def __init__(self) -> None:
        self.times, self.seconds = 0, 0.0
        self._until = 0.0

    @property
    def lasts(self) -> bool:
        """Whether it is too early to try again."""
        return time.monotonic() < self._until

    def grow(self, least: float, *, most: float) -> None:
        """Something failed: wait from now on."""
        self.times += 1
        self.seconds = min(max(least, 2 * self.seconds), most)
        self._until = time.monotonic() + self.seconds
