"""A child process ends with its parent, however that went; with `python -m exporters.child COMMAND...` a whole program
does, with all the processes that it has started."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

PATIENCE = 5.0  # seconds; who ends this process with SIGTERM waits longer, or the group stays
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


def remove(folder: str) -> None:
    """With what those still write into it who are being killed."""
    until = time.monotonic() + 1.0
    while Path(folder).exists() and time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.01)


def main(arguments: Sequence[str]) -> int:
    """`PARENT_PID COMMAND...`: run the command in a process group of its own, until it ends, this process gets a
    SIGTERM, or the parent is gone; then end the whole group. The command gets a SIGTERM first, and PATIENCE seconds to
    remove what it has outside of itself; its temporary files are in a folder that goes with it. Returns the command's
    status, 128 + N for a signal N."""
    parent, *command = arguments
    group: list[int] = []

    def end(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for leader in group:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(leader, signal.SIGTERM)
                until = time.monotonic() + PATIENCE
                while time.monotonic() < until and os.waitpid(leader, os.WNOHANG) == (0, 0):
                    time.sleep(0.02)
            with suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGKILL)
        remove(scratch)
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C: who started this ends it
    blocked = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # until there is a group to end
    signal.signal(signal.SIGTERM, end)
    ending_with(int(parent), by=signal.SIGTERM)()
    scratch = tempfile.mkdtemp(prefix="retort-")  # short: it may hold sockets
    end_with_this = ending_with(os.getpid())

    def first() -> None:
        end_with_this()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)

    try:
        process = subprocess.Popen(  # noqa: S603 - what the caller names
            command,
            env={**os.environ, "TMPDIR": scratch},
            start_new_session=True,
            preexec_fn=first,
        )
        group.append(process.pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        status = process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    finally:
        remove(scratch)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
