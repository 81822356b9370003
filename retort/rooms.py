"""Which function runs which room. Only the chosen room's modules are imported."""

import argparse
import asyncio
from importlib import import_module
from typing import Any

from retort.errors import StartError
from retort.process import Room
from router import Config, Events

_MODULES = {
    "gateway": "gateway.serve",
    "collector": "collector.receive",
    "promoter": "collector.promote",
    "retrainer": "retrainer.daemon",
    "engine": "gateway.engines.agent",
}


def room(options: argparse.Namespace, config: Config) -> Room:
    """The room that the command line names, with its own arguments bound. Raises StartError."""
    run = import_module(_MODULES[options.room]).run
    arguments: dict[str, Any] = {}
    if options.room == "gateway":
        host, _, port = config.listen.rpartition(":")
        arguments = {
            "host": options.host or host,
            "port": int(port) if options.port is None else options.port,
            "reuse_port": options.reuse_port,
        }
    elif options.room == "collector":
        arguments = {"gateway": options.gateway}
    elif options.room == "engine":
        if options.name not in config.engines:
            known = ", ".join(sorted(config.engines)) or "none"
            raise StartError(f"engine: {options.name!r} is not one of: {known}")
        arguments = {"name": options.name}

    async def start(config: Config, events: Events, stop: asyncio.Event) -> None:
        await run(config, events=events, stop=stop, **arguments)

    return start
