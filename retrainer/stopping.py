"""SIGTERM, as a machine's owner sends it before taking it back: a training saves where it stands, and ends in time."""

import os
import signal
import threading
from types import FrameType

from retrainer.errors import Interrupted
from retrainer.progress import Progress

EXIT_AGAIN = 75  # sysexits' EX_TEMPFAIL
GRACE_SECONDS = 20.0  # clouds give 30 s (Google, Azure) to 120 s (AWS)


class Stoppable:
    """Progress that raises Interrupted once the process was told to stop while it trained, so that the loop saves a
    checkpoint after the step that runs. Between such steps nothing would be gained: every file is complete or was never
    there, so the process ends at once; and it does so, too, where a step takes longer than GRACE_SECONDS."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._training = self._told = False

    def listen(self) -> None:
        """Take SIGTERM from now on. Only in a process's main thread."""
        signal.signal(signal.SIGTERM, self._stop)

    def __call__(self, phase: str, done: int, total: int, seconds_left: float | None) -> None:
        """See Progress. Raises Interrupted."""
        self._training = phase == "train" and done < total
        self._progress(phase, done, total, seconds_left)
        if self._told:
            raise Interrupted

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self._training:
            os._exit(EXIT_AGAIN)
        if not self._told:
            self._told = True
            timer = threading.Timer(GRACE_SECONDS, os._exit, (EXIT_AGAIN,))
            timer.daemon = True
            timer.start()
