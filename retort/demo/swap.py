"""A hot swap: a twin of the live version is registered as a training cycle would register it, and takes its place."""

import time

import msgspec

from collector import Happened, send_now, socket_path
from router import Config, EventKind, Registry, RouteEvent


def register_twin(config: Config, registry: Registry, version: str) -> str:
    """Another candidate with the same weights, beside which the swap alone can be noticed; returns its id."""
    twin = msgspec.structs.replace(registry.version(version), id=f"{version}-twin", created_at=time.time())
    registry.add_version(twin)
    event = RouteEvent(
        id=f"candidate:{twin.id}", at=twin.created_at, route=twin.route, kind=EventKind.CANDIDATE, version=twin.id,
        data={"gate": "passed"},
    )  # fmt: skip
    send_now(socket_path(config.state), [Happened(event=event)])
    return twin.id
