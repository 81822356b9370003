"""From a foreign exchange to the frame that the collector gets: the raw bytes of a chat request and of its answer."""

import re
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from collector import IMPORTED, Call, Exchange
from gateway.body import parse
from gateway.cluster import cluster_key
from gateway.errors import InvalidRequest
from retort.imports.foreign import Foreign, Unusable, number_of
from router import Arm, Decision, RoutePolicy

MOST_BYTES = 8 << 20  # of a request or an answer: as the gateway keeps them
_PATH = "/v1/chat/completions"
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")  # gpt-4o-2024-08-06 is a gpt-4o


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where imported exchanges go. `teacher`: whose the answers are where a record names no model, or one of `aliases`.
    `allowed`: the teachers from whose answers a student may learn. `salt`: of the state folder. `now`: Unix seconds,
    for records without a time."""

    route: str
    policy: RoutePolicy
    format: str
    teacher: str
    allowed: Collection[str]
    aliases: Collection[str] = ()
    any_model: bool = False
    salt: bytes
    now: float


def frame(foreign: Foreign, to: Target) -> tuple[Exchange, bytes, bytes]:
    """The header, the request and the answer. The same record always gives the same id. Raises Unusable."""
    if foreign.consent is False:
        raise Unusable("no_consent")
    if not any(foreign.answer.get(name) for name in ("content", "tool_calls", "function_call", "refusal")):
        raise Unusable("no_answer")
    teacher = _teacher(foreign.models, to)
    model = to.teacher.partition("/")[2] if teacher == to.teacher or not foreign.models else foreign.models[0]
    try:
        request = msgspec.json.encode({"model": model, "messages": foreign.messages, **foreign.parameters})
        answer = msgspec.json.encode(_completion(foreign, foreign.models[-1] if foreign.models else model))
        body = parse(request, whole_up_to=len(request))
        cluster = cluster_key(to.salt, body, foreign.session.encode())
        name = _id(foreign, to)
    except (UnicodeEncodeError, InvalidRequest, RecursionError) as error:
        raise Unusable("unreadable") from error
    if max(len(request), len(answer)) > MOST_BYTES:
        raise Unusable("too_large")
    exchange = Exchange(
        id=name,
        at=to.now if foreign.at is None else foreign.at,
        path=_PATH,
        decision=_decision(to),
        cluster=cluster,
        stream=body.stream,
        capture=True,
        request_bytes=len(request),
        served=Call(arm=Arm.TEACHER, upstream=teacher, status=200, body_bytes=len(answer)),
        total_ms=0.0,
        imported=to.format,
    )
    return exchange, request, answer


def _teacher(models: Sequence[str], to: Target) -> str | None:
    """Which teacher a record's answer is from; None for another model, where any may be. The most exact name decides:
    another may be what was asked for, and did not answer. (A model's name is the source's text: it is not in a frame's
    header, which nobody scrubs.)"""
    if not models or any(model in to.aliases for model in models):
        found: str | None = to.teacher
    else:
        found = next((t for t in to.policy.teachers if _same(models[-1], t)), None)
        if found is None and not to.any_model:
            raise Unusable("other_model")
    if found is not None and found not in to.allowed:
        raise Unusable("distillation_not_allowed")
    return found


def _same(model: str, teacher: str) -> bool:
    """Whether a name, with or without a provider before it and a snapshot's date behind it, is a teacher's model."""
    wanted = teacher.partition("/")[2]
    names = {model, model.partition("/")[2]}
    return wanted in names | {_SNAPSHOT.sub("", name) for name in names}


def _completion(foreign: Foreign, model: str) -> dict[str, Any]:
    message = {"role": "assistant", **foreign.answer}
    choice = {"index": 0, "message": message, "finish_reason": foreign.finish_reason or _ending(foreign)}
    found: dict[str, Any] = {"object": "chat.completion", "model": model, "choices": [choice]}
    if foreign.usage is not None:
        found["usage"] = foreign.usage
    if foreign.system_fingerprint:
        found["system_fingerprint"] = foreign.system_fingerprint
    return found


def _ending(foreign: Foreign) -> str:
    """How an answer ended, of which the source does not say it: by itself, unless it is as long as it might be."""
    if foreign.answer.get("tool_calls"):
        return "tool_calls"
    limits = (number_of(foreign.parameters.get(name)) for name in ("max_tokens", "max_completion_tokens"))
    used = foreign.usage.completion_tokens if foreign.usage else 0
    return "length" if any(limit is not None and 0 < limit <= used for limit in limits) else "stop"


def _decision(to: Target) -> Decision:
    return Decision(
        route=to.route,
        kind=to.policy.kind,
        arm=Arm.TEACHER,
        version=None,
        propensity=1.0,
        eligible=False,
        reason="imported",
        policy_version=to.policy.version,
        rollout_revision=0,
    )


def _id(foreign: Foreign, to: Target) -> str:
    """A keyed hash of the record's id, or else of what it says; so that the log, which leaves out ids that it has,
    takes each record once."""
    says = foreign.id or msgspec.json.encode([foreign.messages, foreign.answer, foreign.parameters])
    named = msgspec.msgpack.encode([to.route, to.format, says])
    return IMPORTED + blake2b(named, key=to.salt, digest_size=16).hexdigest()
