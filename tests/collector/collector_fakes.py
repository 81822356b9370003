"""Exchanges as a gateway would report them, and a scrub pool that needs no model."""

import json
from collections.abc import Sequence
from typing import Any

from collector import Answer, Call, Entry, EventLog, Exchange, Interaction, ScrubError, Stream, open_subjects
from collector.log_sqlite import SqliteLog
from collector.scrubbed import Beside, Scrubbed
from collector.sealing import Sealing
from router import Arm, Decision, Events, TaskKind


def decision(**changes: Any) -> Decision:
    made: dict[str, Any] = {
        "route": "support", "kind": TaskKind.CHAT, "arm": Arm.TEACHER, "version": None, "propensity": 1.0,
        "policy_version": "p1", "rollout_revision": 2,
    }  # fmt: skip
    return Decision(**{**made, **changes})


def call(arm: Arm, body: bytes = b"", **changes: Any) -> Call:
    made: dict[str, Any] = {"arm": arm, "status": 200, "ttft_ms": 10.0, "total_ms": 20.0, "body_bytes": len(body)}
    made |= {"version": "v1"} if arm is Arm.STUDENT else {"upstream": "openai/gpt-4o"}
    return Call(**{**made, **changes})


def exchange(
    number: int = 0,
    *,
    request: bytes = b"",
    served: Call,
    shadows: Sequence[Call] = (),
    failed: Sequence[Call] = (),
    **changes: Any,
) -> Exchange:
    made: dict[str, Any] = {
        "id": f"x{number}", "at": 1000.0 + number, "path": "/v1/chat/completions", "decision": decision(),
        "cluster": f"c{number}", "stream": False, "capture": True, "request_bytes": len(request), "total_ms": 20.0,
    }  # fmt: skip
    return Exchange(**{**made, **changes}, served=served, shadows=tuple(shadows), failed=tuple(failed))


def question(text: str = "hello", **more: Any) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}).encode()


def answer(text: str = "hi", *, finish: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return json.dumps({"id": "i", "model": "gpt-4o-2024", "choices": [choice], "usage": usage}).encode()


def stream(*pieces: str, finish: str = "stop") -> bytes:
    deltas: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
    deltas += [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    deltas.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "model": "gpt-4o-2024"})
    deltas.append({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    return b"".join(b"data: " + json.dumps(d).encode() + b"\n\n" for d in deltas) + b"data: [DONE]\n\n"


class PlainPool:
    """Masks the word SECRET; fails on the word POISON, and in an unforeseen way on UNFORESEEN."""

    async def scrub(
        self,
        values: list[Any],
        *,
        route: str,
        cluster: str,
        untouchable: frozenset[str] = frozenset(),
        compared: frozenset[int] = frozenset(),
        beside: Beside | None = None,
    ) -> Scrubbed:
        text = json.dumps(values)
        if "POISON" in text:
            raise ScrubError("poisoned")
        if "UNFORESEEN" in text:
            raise RuntimeError(text)
        return Scrubbed(json.loads(text.replace("SECRET", "hidden")), {"SECRET": text.count("SECRET")})


class MemoryLog(SqliteLog):
    """A log that goes with the test."""

    def __init__(self) -> None:
        super().__init__(":memory:")


def interaction(number: int, **changes: Any) -> Interaction:
    """A record as it stands in the log, of route `colours`."""
    made: dict[str, Any] = {
        "id": f"x{number}", "at": 1000.0 + number, "route": "colours", "kind": "chat", "arm": Arm.TEACHER,
        "version": None, "propensity": 1.0, "eligible": True, "policy_version": "p", "rollout_revision": 0,
        "consent": "opt-out", "scrubber": "s", "cluster": f"c{number}", "stream": False,
        "request": {"messages": [{"role": "user", "content": f"question {number}"}]},
        "answers": (Answer(arm=Arm.TEACHER, upstream="up/m", status=200, message={"content": f"answer {number}"}),),
    }  # fmt: skip
    return Interaction(**{**made, **changes})


def sealing() -> Sealing:
    """With a database that goes with the test."""
    return Sealing(open_subjects("sqlite:///:memory:"), Events())


def everything(log: EventLog, stream: Stream) -> list[Entry]:
    """All entries of a stream, in the order of their offsets."""
    found = [entry for key in log.keys(stream) for entry in log.read(stream, 0, 100_000, key=key)]
    return sorted(found, key=lambda entry: entry.offset)
