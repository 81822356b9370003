"""Processes that a benchmark starts and ends."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[int]:
    """A process while inside; its id. `options`: of subprocess.Popen. It is told to end, and killed after 30 s."""
    process = subprocess.Popen(command, **options)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int) -> None:
    """Until somebody listens there. Raises SystemExit after 30 s."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")
