"""`retort promote | rollback | pause | resume | pin | unpin`: an operator's word, as an event in the evidence log."""

import time
import uuid

from collector import CollectorUnavailable, Happened, send_now, socket_path
from retort.errors import StartError
from router import Config, EventKind, Registry, RouteEvent, UnknownVersion, open_registry

ACT_SECONDS = 10.0


def operate(config: Config, action: str, route: str, *, version: str | None, who: str, why: str) -> int:
    """Record the action, wait until the promoter has acted on it, and print what came of it.

    Raises StartError for an unknown route or version, or where no collector runs.
    """
    if route not in config.routes:
        raise StartError(f"no route {route!r}; the configuration has: {', '.join(sorted(config.routes))}")
    registry = open_registry(config.registry)
    try:
        version = _version(registry, action, route, version)
        _, _, before = registry.checkpoint(route)
        event = RouteEvent(
            id=f"operator:{uuid.uuid4().hex}",
            at=time.time(),
            route=route,
            kind=EventKind.OPERATOR,
            version=version,
            data={"action": action, "who": who, "why": why},
        )
        try:
            send_now(socket_path(config.state), [Happened(event=event)])
        except CollectorUnavailable as error:
            raise StartError(f"{error} Start Retort first (retort up), then repeat the command.") from error
        return _report(registry, action, route, version, before)
    finally:
        registry.close()


def _version(registry: Registry, action: str, route: str, version: str | None) -> str | None:
    if version is None and action == "rollback":
        rollout, _, _ = registry.checkpoint(route)
        version = rollout.live or rollout.challenger
        if version is None:
            raise StartError(f"route {route!r} has no version in service; there is nothing to roll back")
    if version is not None:
        try:
            known = registry.version(version)
        except UnknownVersion as error:
            ids = [v.id for v in registry.versions(route)]
            raise StartError(f"no version {version!r}; route {route!r} has: {', '.join(ids) or 'none'}") from error
        if known.route != route:
            raise StartError(f"version {version!r} belongs to route {known.route!r}, not to {route!r}")
    return version


def _report(registry: Registry, action: str, route: str, version: str | None, before: int) -> int:
    deadline = time.monotonic() + ACT_SECONDS
    while time.monotonic() < deadline:
        rollout, _, offset = registry.checkpoint(route)
        if offset > before:
            stage = f"; {version} is {registry.version(version).stage.value}" if version else ""
            print(f"{action} {route}: done{stage}; live: {rollout.live or 'none (the teacher answers)'}")
            return 0
        time.sleep(0.1)
    print(f"{action} {route}: recorded; the promoter has not acted within {ACT_SECONDS:.0f} s, it will when it runs")
    return 1
