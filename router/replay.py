"""Recomputing decisions from the log, and comparing them with those that were made."""

from collections.abc import Iterable, Sequence

import msgspec

from router.evidence import Evidence
from router.registry import Transition
from router.rollout import fold
from router.rollout_state import initial


def recompute(route: str, records: Iterable[tuple[int, Evidence]]) -> list[Transition]:
    """All decisions that a route's records (with offsets, in order) make."""
    state, decided = initial(route), list[Transition]()
    for offset, record in records:
        state, more = fold(state, offset, record)
        decided += more
    return decided


def differences(route: str, records: Iterable[tuple[int, Evidence]], decided: Sequence[Transition]) -> list[str]:
    """A line for each decision that the records don't reproduce to the last digit; empty when all agree."""
    again = recompute(route, records)
    found = [
        f"decision {n}: {_fields(before, now)}"
        for n, (before, now) in enumerate(zip(decided, again, strict=False))
        if before != now
    ]
    found += [f"decision {n}: was made, is not reproduced: {_say(t)}" for n, t in enumerate(decided) if n >= len(again)]
    found += [f"decision {n}: was not made: {_say(t)}" for n, t in enumerate(again) if n >= len(decided)]
    return found


def _say(decision: Transition) -> str:
    return f"{decision.version} {decision.before} -> {decision.after} ({decision.cause}) at offset {decision.offset}"


def _fields(before: Transition, now: Transition) -> str:
    a, b = msgspec.structs.asdict(before), msgspec.structs.asdict(now)
    return "; ".join(f"{name}: {a[name]!r} then, {b[name]!r} now" for name in a if a[name] != b[name])
