"""A child process ends with its parent, however that went."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # of sys/prctl.h


def ending_with(parent: int, *, by: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What the child of process `parent` calls first, also as `preexec_fn`: it gets the signal `by` when the parent
    is gone, and ends at once where that has happened already. On Linux alone; elsewhere a child outlives a parent
    that was killed."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def ask() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:
            os._exit(1)

    return ask
