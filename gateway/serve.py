"""One gateway worker: one process, one uvicorn server, started and drained here."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator

import uvicorn

from collector import FrameSender, MaskClient, mask_socket, open_spool, socket_path
from gateway.app import create_app
from gateway.cluster import load_salt
from gateway.errors import CannotListen, PortInUse
from gateway.snapshots import Snapshots
from gateway.upstream import AiohttpUpstream
from router import Config, Events, open_registry

log = logging.getLogger("retort.gateway")

FINISH_SECONDS = 25
SHADOW_SECONDS = 15.0
DRAIN_SECONDS = 45.0  # without any acknowledgement: one text may take 30 to scrub, and another worker some to load
# Longer than the clients' own, so that it is they who close an idle connection.
KEEPALIVE_SECONDS = 75


async def run(
    config: Config, *, events: Events, stop: asyncio.Event, host: str, port: int, reuse_port: bool = False
) -> None:
    """Serve on host:port (0 takes a free one) until `stop` is set; then finish the requests in flight and their
    shadows, hand everything to the collector, and return.

    `reuse_port`: let several workers share the port. Raises PortInUse.
    """
    listener = listen(host, port, reuse_port=reuse_port)
    upstream = AiohttpUpstream()
    snapshots = Snapshots(lambda: open_registry(config.registry))
    spool = open_spool(config.state, config.spool) if config.spool else None
    sender = FrameSender(socket_path(config.state), events=events, spool=spool)
    masker = MaskClient(mask_socket(config.state))
    app = create_app(
        config,
        upstream=upstream,
        snapshots=snapshots,
        sender=sender,
        salt=load_salt(config.state),
        masker=masker,
        events=events,
    )
    try:
        await snapshots.start()
        await sender.start()
        server = _Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEPALIVE_SECONDS,
                timeout_graceful_shutdown=FINISH_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        app.draining = True
        server.should_exit = True
        await serving
        await app.shadows.join(timeout=SHADOW_SECONDS)
        left = await sender.drain(DRAIN_SECONDS)
        if left:
            log.error("gateway.frames_lost", extra={"count": left})
    finally:
        listener.close()
        await snapshots.close()
        await upstream.close()
        await masker.close()
        await sender.close()


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A socket bound to host:port. Raises PortInUse, which says what to do, or CannotListen."""
    host = host.strip("[]")
    # The protocol is named because asyncio turns Nagle's algorithm off only where it reads TCP.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise CannotListen(f"{host}:{port} can't be listened on: {error.strerror}") from error
        raise PortInUse(
            f"{host}:{port} is already in use; stop what listens there, or choose another port with --port or "
            "listen: in the configuration"
        ) from error
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """Leaves the process's signals to the process: `stop` is the only way to end it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            log.info("gateway.listening", extra={"address": "{}:{}".format(*listener.getsockname()[:2])})
