"""One engine, from its start to its end: the HTTP server, and the loop that loads what the registry wants."""

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web

from collector import FrameSender, Happened, socket_path
from exporters.models.open_store import open_store
from gateway.engines.errors import CannotListen
from gateway.engines.loading import Loader
from gateway.engines.reconcile import Identity, Reconciler
from gateway.engines.registry_thread import RegistryThread
from gateway.engines.server import create_app
from gateway.engines.starting import Runtimes
from gateway.engines.timing import Timing
from router import Config, Events, Registry, RouteEvent, open_registry

log = logging.getLogger("retort.engine")

SEND_SECONDS = 10.0


class Seams(msgspec.Struct, frozen=True, kw_only=True):
    """What a test may take another of."""

    open_registry: Callable[[str], Registry] = open_registry
    timing: Timing = Timing()


async def run(config: Config, *, name: str, events: Events, stop: asyncio.Event, seams: Seams | None = None) -> None:
    """Serve the engine `name` of the configuration until `stop` is set; then withdraw its versions, finish what is
    in flight, and return. Raises CannotListen."""
    seams = seams or Seams()
    settings = config.engines[name]
    listener = listen(settings.listen)
    host, port = listener.getsockname()[:2]
    own = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    registry = RegistryThread(lambda: seams.open_registry(config.registry))
    sender = FrameSender(socket_path(config.state), events=events)

    runtimes = Runtimes(name, settings, Path(config.state), seconds=settings.load_timeout)

    def send(event: RouteEvent) -> bool:
        return sender.send(Happened(event=event))

    reconciler = Reconciler(
        settings,
        Identity(
            name,
            (settings.advertise or own).rstrip("/"),
            selective=frozenset(route for route, policy in config.routes.items() if policy.selective is not None),
        ),
        loader=Loader(open_store(config), runtimes, memory_gb=settings.memory_gb, seconds=settings.load_timeout),
        registry=registry,
        send=send,
        events=events,
        timing=seams.timing,
    )
    runner = web.AppRunner(
        create_app(reconciler.hosts, events=events),
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=1.0,  # the reconciler has drained by then
        keepalive_timeout=75.0,  # longer than the gateway's: it is the one that closes an idle connection
    )
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await sender.start()
        log.info("engine.listening", extra={"engine": name, "address": own})
        await reconciler.run(stop)
        left = await sender.drain(SEND_SECONDS)
        if left:
            log.error("engine.frames_lost", extra={"count": left})
    finally:
        await runner.cleanup()
        listener.close()
        await runtimes.close()
        await sender.close()
        await registry.close()


def listen(address: str) -> socket.socket:
    """A socket bound to HOST:PORT; port 0 takes a free one. Raises CannotListen."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(1024)
    except (OSError, ValueError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise CannotListen(f"the engine can't listen on {address}: {reason}; change engines.*.listen") from error
    listener.setblocking(False)
    return listener
