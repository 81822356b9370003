"""A worker says that it works where its answers take long: who owes an answer and ends no pass is taken to hang."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.engines import worker
from gateway.engines.protocol import LENGTH, Loaded, Report, Working, report


class Long:
    """An answer that takes very many passes."""

    idle = False

    def take(self, order: Any) -> None:
        """Nothing else is asked."""

    def turn(self) -> None:
        time.sleep(0.01)


def heard(connection: socket.socket) -> Report:
    (length,) = LENGTH.unpack(connection.recv(LENGTH.size, socket.MSG_WAITALL))
    return report(connection.recv(length, socket.MSG_WAITALL))


def test_a_worker_says_now_and_then_that_its_passes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "load", lambda *_, **__: (Loaded(), Long()))
    monkeypatch.setattr(worker, "_receive", lambda *_: None)
    monkeypatch.setattr(worker, "WORD_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    status: list[int] = []

    def serve() -> None:
        status.append(worker.serve(theirs, Path("/nowhere"), runtime="onnx", threads=1, cache_gb=1.0))

    thread = threading.Thread(target=serve)
    thread.start()
    with ours, theirs:
        assert [heard(ours) for _ in range(4)] == [Loaded(), Working(), Working(), Working()]
        ours.close()
        thread.join(10)
    assert status == [0]
