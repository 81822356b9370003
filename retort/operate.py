"""`retort promote | rollback | pause | resume | pin | unpin`: an operator's word, as an event in the evidence log."""

import time
import uuid
from contextlib import closing

from collector import CollectorUnavailable, EventLog, Happened, Stream, open_log, send_now, socket_path
from retort.errors import StartError
from retort.status import serving
from router import Config, EventKind, Registry, Rollout, RouteEvent, Stage, UnknownVersion, open_registry

ACT_SECONDS = 10.0
PAGE = 1000


def operate(
    config: Config, action: str, route: str, *, version: str | None, who: str, why: str, wait: float = ACT_SECONDS
) -> int:
    """Record the action, wait (at most so many seconds) until the promoter has folded it, and print what came of it;
    returns 0, or 1 where it has not.

    Raises StartError for an unknown route or version, for one that the action can do nothing about, or where no
    collector runs.
    """
    if route not in config.routes:
        raise StartError(f"no route {route!r}; the configuration has: {', '.join(sorted(config.routes))}")
    with closing(open_registry(config.registry)) as registry, closing(open_log(config.log, kafka=config.kafka)) as log:
        versions = _versions(registry, action, route, version)
        for one in versions:
            event = RouteEvent(
                id=f"operator:{uuid.uuid4().hex}",
                at=time.time(),
                route=route,
                kind=EventKind.OPERATOR,
                version=one,
                data={"action": action, "who": who, "why": why},
            )
            before = log.end(Stream.EVIDENCE, key=route)
            try:
                send_now(socket_path(config.state), [Happened(event=event)])
            except CollectorUnavailable as error:
                raise StartError(f"{error} Start Retort first (retort up), then repeat the command.") from error
            offset = _offset(log, event, before)
        if not _folded(registry, route, offset, wait):
            print(f"{action} {route}: recorded; the promoter has not acted within {wait:g} s, it will when it runs")
            return 1
        rollout = registry.checkpoint(route)[0]
        stages = "".join(f"; {one} is {registry.version(one).stage.value}" for one in versions if one)
        share = f"; challenger {rollout.challenger} at {rollout.fraction:.0%} of eligible traffic"
        told = share if rollout.challenger and rollout.fraction else ""
        print(f"{action} {route}: done{stages}; live: {serving(rollout.live, rollout.fraction)}{told}")
        return 0


def _offset(log: EventLog, event: RouteEvent, start: int) -> int:
    """Where an acknowledged event stands in the evidence, from `start` on: other records may have come before it."""
    while entries := log.read(Stream.EVIDENCE, start, PAGE, key=event.route):
        for entry in entries:
            if entry.id == event.id:
                return entry.offset
        start = entries[-1].offset + 1
    raise StartError("the collector took the event, but not into this configuration's log; is it run with another?")


def _versions(registry: Registry, action: str, route: str, version: str | None) -> list[str | None]:
    """The versions that are meant; of a rollback that names none all that answer clients, else the one in shadow. A
    candidate that waits is rejected, where it is named. What the fold would pass over is refused here: it would look
    done."""
    rollout, _, _ = registry.checkpoint(route)
    if version is None and action == "rollback":
        answering = [rollout.live, rollout.challenger if rollout.fraction else None]
        versions = [one for one in (answering if any(answering) else [rollout.challenger]) if one]
        if not versions:
            raise StartError(f"route {route!r} has no version in service; there is nothing to roll back")
        return [_known(registry, rollout, action, one) for one in versions]
    return [_known(registry, rollout, action, version) if version else None]


def _known(registry: Registry, rollout: Rollout, action: str, version: str) -> str:
    route = rollout.route
    try:
        known = registry.version(version)
    except UnknownVersion as error:
        ids = [v.id for v in registry.versions(route)]
        raise StartError(f"no version {version!r}; route {route!r} has: {', '.join(ids) or 'none'}") from error
    if known.route != route:
        raise StartError(f"version {version!r} belongs to route {known.route!r}, not to {route!r}")
    in_service = version in (rollout.live, rollout.challenger)
    if action == "rollback" and not in_service and known.stage is not Stage.CANDIDATE:
        raise StartError(
            f"version {version!r} is {known.stage.value}, neither in service nor a candidate; there is nothing to roll "
            f"back (live: {rollout.live or 'none'}, challenger: {rollout.challenger or 'none'})"
        )
    if version not in registry.status(route).get("versions", {}):
        raise StartError(
            f"the promoter has not heard of version {version!r} yet; repeat the command when `retort status` shows it"
        )
    return version


def _folded(registry: Registry, route: str, event_offset: int, wait: float) -> bool:
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        _, _, next_offset = registry.checkpoint(route)
        if next_offset > event_offset:
            return True
        time.sleep(0.1)
    return False
