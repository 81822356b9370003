"""The promoter: the only writer of rollout state. It folds the evidence log into decisions, and commits both at once.

State, decisions and the offset reached are one transaction in the registry, so that a promoter that is killed at any
moment goes on exactly where it was, and two can never both write.
"""

import asyncio
import json
import logging
import os
import time
import uuid

import msgspec

from collector.errors import CollectorError
from collector.frames import Happened, socket_path
from collector.log import EventLog, Stream
from collector.open_log import open_log
from collector.send import FrameSender
from router import (
    Config,
    Conflict,
    EventKind,
    Events,
    Registry,
    Rollout,
    RouteEvent,
    RoutePolicy,
    RouterError,
    RouteState,
    Transition,
    batches,
    decode_evidence,
    decode_state,
    encode_state,
    fold,
    initial,
    open_registry,
    parse_policy,
    stages,
    status,
    view,
)

log = logging.getLogger("retort.promoter")

LEASE = "promoter"
LEASE_SECONDS = 10.0
POLL_SECONDS = 0.2
TICK_SECONDS = 1.0
BATCH = 2000
LAG_SECONDS = 1.0


async def run(config: Config, *, events: Events, stop: asyncio.Event) -> None:
    """Fold until stopped. Waits while another promoter holds the lease, and while the databases can't be reached."""
    holder = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    registry = open_registry(config.registry)
    evidence = open_log(config.log, kafka=config.kafka)
    sender = FrameSender(socket_path(config.state), events=events)
    await sender.start()
    routes = [
        RouteFold(name, policy, registry, evidence, events) for name, policy in config.routes.items() if policy.student
    ]
    failing = False
    try:
        while not stop.is_set():
            try:
                if await asyncio.to_thread(registry.lease, LEASE, holder=holder, seconds=LEASE_SECONDS):
                    await _turn(routes, sender)
                failing = False
            except (RouterError, CollectorError) as error:
                if not failing:
                    log.warning("promoter.waits", extra={"error": str(error)})
                failing = True
            await _pause(stop, POLL_SECONDS)
    finally:
        await sender.drain(2.0)
        await sender.close()
        try:
            registry.release(LEASE, holder=holder)
        except RouterError:
            log.warning("promoter.lease_kept")  # it expires by itself
        registry.close()
        evidence.close()


async def _turn(routes: "list[RouteFold]", sender: FrameSender) -> None:
    for route in routes:
        await asyncio.to_thread(route.advance)
        for event in route.owed(time.time()):
            sender.send(Happened(event=event))


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


class RouteFold:
    """One route's fold, from the last commit on."""

    def __init__(self, name: str, policy: RoutePolicy, registry: Registry, evidence: EventLog, events: Events) -> None:
        self._name = name
        self._policy = json.dumps(policy.model_dump(mode="json"), sort_keys=True)
        self._registry = registry
        self._log = evidence
        self._events = events
        self._state: RouteState | None = None
        self._revision = 0
        self._offset = 0
        self._announced = False
        self._ticked = 0.0
        self._measured = 0.0

    def advance(self) -> int:
        """Fold the complete batches that are new and commit them; returns how many records. Raises RouterError,
        LogError."""
        state = self._state if self._state is not None else self._load()
        entries = self._log.read(Stream.EVIDENCE, self._offset, BATCH, key=self._name)
        self._measure(bool(entries))
        if not entries:
            return 0
        made: list[Transition] = []
        offset = self._offset
        for batch in batches((entry.offset, decode_evidence(entry.value)) for entry in entries):
            state, more = fold(state, batch)
            made += more
            offset = batch[-1][0] + 1
        if offset == self._offset:
            return 0  # a batch is open; its end comes with the next tick
        rollout, shown = view(state), status(state)
        try:
            self._registry.commit(
                self._name,
                expected=(self._revision, self._offset),
                rollout=rollout,
                stages=stages(state),
                transitions=made,
                state=encode_state(state),
                offset=offset,
                status=shown,
            )
        except Conflict:
            self._state = None  # another promoter was faster: go on from its commit
            log.warning("promoter.conflict", extra={"route": self._name})
            return 0
        self._state, self._revision, self._offset = state, rollout.revision, offset
        self._tell(rollout, made, shown)
        return sum(entry.offset < offset for entry in entries)

    def _measure(self, more: bool) -> None:
        """Tell how far behind this fold is, now and then; `more`: whether there is anything to fold at all."""
        now = time.monotonic()
        if now - self._measured >= LAG_SECONDS:
            self._measured = now
            behind = max(self._log.end(Stream.EVIDENCE, key=self._name) - self._offset, 0) if more else 0
            self._events.emit("log.lag", reader="promoter", route=self._name, offsets=behind)

    def owed(self, now: float) -> list[RouteEvent]:
        """The events that this route's evidence needs from the promoter: its policy once, and clock ticks."""
        state, found = self._state, list[RouteEvent]()
        if state is None:
            return found
        if not self._announced:
            self._announced = True
            if state.policy != self._policy:
                found.append(self._event(EventKind.POLICY, now, {"policy": json.loads(self._policy)}))
        if state.guards and now - self._ticked >= TICK_SECONDS:
            self._ticked = now
            found.append(self._event(EventKind.TICK, now, {}))
        return found

    def _event(self, kind: EventKind, at: float, data: dict[str, object]) -> RouteEvent:
        return RouteEvent(id=f"{kind}:{uuid.uuid4().hex}", at=at, route=self._name, kind=kind, data=data)

    def _load(self) -> RouteState:
        rollout, state, offset = self._registry.checkpoint(self._name)
        self._state = decode_state(state) if state is not None else initial(self._name)
        self._revision, self._offset = rollout.revision, offset
        return self._state

    def _tell(self, rollout: Rollout, made: list[Transition], shown: dict[str, object]) -> None:
        for t in made:
            log.info(
                "router.stage_changed", extra={k: v for k, v in msgspec.structs.asdict(t).items() if k != "evidence"}
            )
            self._events.emit(
                "router.stage_changed",
                route=self._name,
                version=t.version,
                before=t.before.value,
                after=t.after.value,
                cause=t.cause,
            )
        if rollout.challenger:
            self._events.emit("router.traffic", route=self._name, version=rollout.challenger, fraction=rollout.fraction)
        if rollout.live:
            rest = max(1.0 - parse_policy(self._policy).rollout.holdback - rollout.fraction, 0.0)
            self._events.emit("router.traffic", route=self._name, version=rollout.live, fraction=rest)
        evidence = shown.get("evidence")
        for version, rows in evidence.items() if isinstance(evidence, dict) else ():
            selective = rows.get("selective", {})
            if "coverage" in selective:
                fields = {name: selective[name] for name in ("threshold", "coverage", "risk", "risk_bound")}
                self._events.emit("router.selective", route=self._name, version=version, **fields)
            for group in ("tests", "alarms"):
                for test, row in rows.get(group, {}).items():
                    self._events.emit(
                        "router.evidence",
                        route=self._name,
                        version=version,
                        test=test if group == "tests" else f"{test}_alarm",
                        value=row["log_e"],
                        boundary=row["log_boundary"],
                    )
