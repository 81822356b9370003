"""The process that serves one version: `python -m gateway.engines.worker SOCKET_FD FOLDER RUNTIME THREADS CACHE_GB
PARENT_PID`.

A process of its own, because onnxruntime-genai holds the interpreter's lock while it loads and decodes, and because
little memory comes back when a model is unloaded. It talks with the engine over an inherited socket, and ends with
it: when the socket closes, or when the kernel says that the parent is gone.
"""

import contextlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from exporters.child import ending_with
from exporters.models import ArtefactError
from gateway.engines.errors import NotReady, Unfit
from gateway.engines.memory import FirstToGo, lacking
from gateway.engines.protocol import LENGTH, Cancel, Encode, Order, Refused, Report, Unloadable, Working, order, pack
from gateway.engines.turns import load

log = logging.getLogger("retort.engine")

WORD_SECONDS = 5.0  # between two words of a worker whose turns end, and whose answers don't


def serve(connection: socket.socket, folder: Path, *, runtime: str, threads: int, cache_gb: float) -> int:
    """Load, say so, and answer until the connection closes. Returns the exit status."""

    def send(report: Report) -> None:
        connection.sendall(pack(report))

    try:
        with FirstToGo():
            loaded, turns = load(runtime, folder, threads=threads, cache_gb=cache_gb, send=send)
    except Exception as error:
        # The edge of the process: what is neither the artefact's nor the memory's fault is told by a traceback.
        if lacking(error):
            send(Unloadable(f"there is no memory left to load it: {error}", lacks="memory"))
        elif isinstance(error, ImportError | Unfit):
            send(Unloadable(str(error), lacks="package"))
        elif isinstance(error, NotReady | ArtefactError):
            send(Unloadable(str(error)))
        else:
            raise
        return 1
    send(loaded)
    orders: queue.SimpleQueue[Order | Encode] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, orders), daemon=True).start()

    def take(order: Order | Encode) -> None:
        turns.take(order)
        if isinstance(order, Cancel):  # an engine that hears nothing takes this process to hang
            send(Refused(id=order.id, code="cancelled", message="It was given up."))

    told = time.monotonic()
    try:
        while True:
            if turns.idle:
                take(orders.get())
            with contextlib.suppress(queue.Empty):
                while True:
                    take(orders.get_nowait())
            turns.turn()
            if time.monotonic() - told > WORD_SECONDS and not turns.idle:
                told = time.monotonic()
                send(Working())
    except (BrokenPipeError, ConnectionResetError):
        return 0


def _receive(connection: socket.socket, orders: "queue.SimpleQueue[Order | Encode]") -> None:
    """Read orders; end the process with the connection, also while a pass is running."""
    try:
        with connection.makefile("rb") as stream:
            while len(head := stream.read(LENGTH.size)) == LENGTH.size:
                orders.put(order(stream.read(*LENGTH.unpack(head))))
    except Exception:
        log.exception("engine.worker_failed")
        os._exit(1)
    os._exit(0)


def main(arguments: list[str]) -> int:
    """Run with the command line's arguments."""
    descriptor, folder, runtime, threads, cache_gb, parent = arguments
    ending_with(int(parent))()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C: the engine drains first
    logging.basicConfig(format="%(asctime)s %(levelname)-7s engine    %(name)s %(message)s")
    with socket.socket(fileno=int(descriptor)) as connection:
        return serve(connection, Path(folder), runtime=runtime, threads=int(threads), cache_gb=float(cache_gb))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
