"""One version behind the engine's HTTP server, for `engine.py` and `engine_encoders.py`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from gateway.engines.child import Child
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.server import create_app
from router import Events, TaskKind, Version


@asynccontextmanager
async def served(folder: Path, runtime: str, threads: int) -> AsyncIterator[str]:
    """Its address."""
    child = await Child.start(folder, runtime=runtime, threads=threads, timeout=120)
    version = Version(id="bench", route="r", kind=TaskKind.CHAT, base="b", engine="e", artefact="bench", created_at=0.0)
    hosts = Hosts()
    hosts.add(Hosted(version, child, queue=1000))
    runner = web.AppRunner(create_app(hosts, events=Events()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}/versions/bench/v1".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()
        await child.close()
