"""What is to be done for one request: the decision, who is called in which order, and what they are sent."""

from collections.abc import Mapping, Sequence

import msgspec

from gateway.attempt import Attempt, Outgoing
from gateway.body import Body, Scope, with_model
from gateway.capture import SUBJECT_HEADER, consent
from gateway.cluster import cluster_key
from gateway.hard_stop import HardStop
from gateway.headers import to_upstream
from gateway.masking import Masker, Masking
from gateway.routes import Callee, Route, Routes
from gateway.snapshots import Snapshots
from router import (
    Arm,
    Decision,
    Events,
    RequestFacts,
    Rollout,
    RoutePolicy,
    Snapshot,
    decide,
    ineligible,
    uses_tools,
)

SESSION_HEADER = b"x-retort-session"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A request's plan. `callees`: the one to serve, then those to fall back to. `shadows`: to be called besides.
    `masking`: where the route masks what goes to teachers."""

    route: Route
    body: Body
    decision: Decision
    cluster: str
    consent: str | None
    subject: str | None
    callees: tuple[Callee, ...]
    shadows: tuple[Callee, ...]
    client_headers: dict[bytes, bytes]
    masking: Masking | None = None

    async def outgoing(self, callee: Callee) -> Outgoing:
        """What this callee is sent: the client's bytes, with the teacher's own model name where the client used
        another one (a student knows by its path which version is meant), and masked for teachers where the route asks
        for it. Raises NotMasked."""
        body, originals, spent = self.body.raw, None, 0.0
        if self.masking is not None and callee.arm is Arm.TEACHER:
            masked = await self.masking.masked()
            body, originals, spent = masked.body, masked.originals, masked.spent
        if callee.model is not None and callee.model != self.body.model:
            body = with_model(body, callee.model_json)
        headers = to_upstream(self.client_headers, callee.fixed, passthrough=callee.passthrough)
        return Outgoing(headers, body, self.body.stream, originals, spent)

    async def again(self, callee: Callee) -> Outgoing:
        """What this callee is sent besides: under the client's own key an upstream may repeat the answer that it gave
        before. Raises NotMasked."""
        outgoing = await self.outgoing(callee)
        headers = {name: value for name, value in outgoing.headers.items() if name != "idempotency-key"}
        return msgspec.structs.replace(outgoing, headers=headers)

    def besides(self, served: Callee, *, deferred: Sequence[Attempt] = ()) -> Sequence[Callee]:
        """Whom is left to call as a shadow once `served` has answered.

        Where a teacher answered in the student's place, its answer is the one that an audit would have asked for. A
        second answer of the teacher is asked of the same teacher as the first, and only where there is a student's
        answer to compare both with.
        """
        planned: Sequence[Callee] = self.shadows
        if served.arm is Arm.TEACHER:
            students = [callee for callee in planned if callee.arm is Arm.STUDENT]
            had = 1 if self.decision.arm is Arm.STUDENT else 0
            compared = students or any(answer.content for answer in deferred)
            left = len(planned) - len(students) - had if compared else 0
            planned = [*students, *[served] * left]
        return planned


class Planner:
    """Makes plans. Pure but for the snapshot, which may be renewed at any time between two requests."""

    def __init__(
        self,
        routes: Routes,
        snapshots: Snapshots,
        hard_stop: HardStop,
        *,
        salt: bytes,
        masker: Masker,
        events: Events,
    ) -> None:
        self._routes = routes
        self._masker = masker
        self._events = events
        self._snapshots = snapshots
        self._hard_stop = hard_stop
        self._salt = salt

    @property
    def whole_up_to(self) -> int:
        """See `body.parse`."""
        return self._routes.whole_up_to

    def plan(self, request_id: str, scope: Scope, body: Body) -> Plan:
        """Raises UnknownModel."""
        route = self._routes.find(body.model)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        cluster = cluster_key(self._salt, body, headers.get(SESSION_HEADER))
        snapshot = self._snapshots.current
        rollout = snapshot.rollouts.get(route.name, route.unrolled)
        ready = self._hard_stop.ready(snapshot, rollout)
        tools = calls_tools(route.policy, rollout, snapshot)
        reason = ineligible(route.policy, body.top, len(body.raw), tools=tools)
        facts = RequestFacts(request_id=request_id, cluster=cluster, ineligible=reason)
        if tools and uses_tools(body.top):
            ready = [version for version in ready if version in snapshot.tools]
        decision = decide(route.policy, rollout, facts, ready=ready)
        masks = route.policy.capture.mask_teachers
        callees = route.teachers
        if decision.arm is Arm.STUDENT and decision.version is not None:
            callees = (route.student(decision.version, snapshot.endpoints[decision.version]), *callees)
        return Plan(
            route=route,
            body=body,
            decision=decision,
            cluster=cluster,
            consent=consent(route.policy.capture, request_id, headers),
            subject=subject.decode("latin-1") if (subject := headers.get(SUBJECT_HEADER)) else None,
            callees=callees,
            shadows=_shadows(route, decision, snapshot.endpoints) if decision.shadows else (),
            client_headers=headers,
            masking=Masking(self._masker, self._events, route, cluster, body) if masks else None,
        )


def calls_tools(policy: RoutePolicy, rollout: Rollout, snapshot: Snapshot) -> bool:
    """Whether a request with tools may go to a student: the version under test, else the live one, else any that will
    come, has learnt to call them. (While one that hasn't is under test, they would owe it pairs that it can't give.)"""
    version = rollout.challenger or rollout.live
    return policy.learns_tools and (version is None or version in snapshot.tools)


def _shadows(route: Route, decision: Decision, endpoints: Mapping[str, str]) -> tuple[Callee, ...]:
    found: list[Callee] = []
    for shadow in decision.shadows:
        if shadow.arm is Arm.TEACHER:
            found.append(route.teachers[0])
        elif shadow.version is not None and shadow.version in endpoints:
            found.append(route.student(shadow.version, endpoints[shadow.version]))
    return tuple(found)
