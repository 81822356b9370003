"""Recomputing decisions from the log, and comparing them with those that were made, or with another policy's."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from pydantic import ValidationError

from router.batch import batches
from router.errors import ConfigError
from router.evidence import EventKind, Evidence, RouteEvent
from router.policy import ErrorPolicy, LatencyPolicy, RoutePolicy
from router.policy_fields import Strict
from router.policy_quality import OutcomePolicy, QualityPolicy, SelectivePolicy
from router.policy_rollout import RolloutPolicy
from router.registry import Transition
from router.rollout import fold
from router.rollout_state import RouteState, initial

SECTIONS: Mapping[str, type[Strict]] = {
    "quality": QualityPolicy,
    "latency": LatencyPolicy,
    "errors": ErrorPolicy,
    "rollout": RolloutPolicy,
    "selective": SelectivePolicy,
    "outcomes": OutcomePolicy,
}


# What decided which evidence there is, or what it says: another value would need other evidence.
FIXED = (
    *(f"quality.{key}" for key in ("score", "reference", "judge", "shadow_rate", "audit_rate", "truth_within")),
    "rollout.holdback",
    "rollout.parallel",
    "rollout.probe",
    "outcomes.window",
)


def recompute(route: str, records: Iterable[tuple[int, Evidence]], state: RouteState | None = None) -> list[Transition]:
    """All decisions that a route's records (with offsets, in order) make; `state`: before the first of them, where
    that isn't the route's first."""
    state, decided = state or initial(route), list[Transition]()
    for batch in batches(records):
        state, more = fold(state, batch)
        decided += more
    return decided


def differences(
    route: str,
    records: Iterable[tuple[int, Evidence]],
    decided: Sequence[Transition],
    state: RouteState | None = None,
) -> list[str]:
    """A line for each decision that the records don't reproduce to the last digit; empty when all agree."""
    again = recompute(route, records, state)
    found = [
        f"decision {n}: {_fields(before, now)}"
        for n, (before, now) in enumerate(zip(decided, again, strict=False))
        if before != now
    ]
    found += [f"decision {n}: was made, is not reproduced: {_say(t)}" for n, t in enumerate(decided) if n >= len(again)]
    found += [f"decision {n}: was not made: {_say(t)}" for n, t in enumerate(again) if n >= len(decided)]
    return found


def what_if(records: Iterable[tuple[int, Evidence]], changes: Mapping[str, Any]) -> Iterator[tuple[int, Evidence]]:
    """The records with every policy in them changed: `changes` maps a key, `margin` or `quality.margin`, to its value.

    What follows from them is exploratory: the evidence was gathered under the decisions that were really made, so that
    a version which went out then has no evidence for what it would have done later.

    Raises ConfigError for a key that no policy has, one of FIXED, or a value that it can't have.
    """
    for offset, record in records:
        if isinstance(record, RouteEvent) and record.kind is EventKind.POLICY:
            data = {**record.data, "policy": _changed(record.data["policy"], changes)}
            record = msgspec.structs.replace(record, data=data)
        yield offset, record


def _changed(policy: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    made = {**policy}
    for name, value in sorted(changes.items(), key=lambda change: not change[0].endswith("preset")):
        section, key = _place(name)
        old = {**(made.get(section) or {})}
        if key == "preset":
            old = {own: kept for own, kept in old.items() if own not in ("steps", "min_dwell")}
        made[section] = {**old, key: value}
    try:
        return RoutePolicy.model_validate(made).model_dump(mode="json")
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"no policy could say so: {said}") from error


def _place(name: str) -> tuple[str, str]:
    """The section and key that a name means: of several sections that have the key, the first."""
    section, dot, key = name.rpartition(".")
    keys = {section: [*rules.model_fields] for section, rules in SECTIONS.items()}
    keys["rollout"].append("preset")
    for candidate in [section] if dot else SECTIONS:
        if candidate in SECTIONS and key in keys[candidate]:
            if f"{candidate}.{key}" in FIXED:
                raise ConfigError(
                    f"{candidate}.{key} decides which evidence is gathered, so the log can't say what another value "
                    "would have led to"
                )
            return candidate, key
    known = ", ".join(
        f"{section}.{key}" for section, own in keys.items() for key in own if f"{section}.{key}" not in FIXED
    )
    raise ConfigError(f"{name!r} is no key of a policy that decides; there are: {known}")


def _say(decision: Transition) -> str:
    return f"{decision.version} {decision.before} -> {decision.after} ({decision.cause}) at offset {decision.offset}"


def _fields(before: Transition, now: Transition) -> str:
    a, b = msgspec.structs.asdict(before), msgspec.structs.asdict(now)
    return "; ".join(f"{name}: {a[name]!r} then, {b[name]!r} now" for name in a if a[name] != b[name])
