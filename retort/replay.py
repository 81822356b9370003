"""`retort replay`: every decision recomputed from the evidence log, and compared with what was decided; or, with
`--what-if`, what another policy would have decided on the same evidence."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec
import yaml

from collector import EventLog, Stream, open_log
from retort.errors import StartError
from router import (
    Config,
    ConfigError,
    Evidence,
    Registry,
    Transition,
    decode_evidence,
    decode_state,
    differences,
    open_registry,
    recompute,
    what_if,
)

BATCH = 5000
EXPLORATORY = (
    "exploratory: the evidence was gathered under the decisions that were really made; a version that went out then "
    "has none for what it would have done later"
)


def replay(
    config: Config, *, route: str | None, start: int = 0, changes: Sequence[str] = (), as_json: bool = False
) -> int:
    """Print one line a route, or JSON; returns 1 where a decision differs, and 0 for a what-if.

    `start`: begin at the last decision at or before this offset. `changes`: `KEY=VALUE`, another policy's.
    Raises StartError for an unknown route or an impossible change.
    """
    if route is not None and route not in config.routes:
        raise StartError(f"no route {route!r}; the configuration has: {', '.join(sorted(config.routes))}")
    if changes and start:
        raise StartError("--what-if replays from the beginning; leave --from out")
    other = dict(map(_change, changes))
    names = [route] if route else sorted(config.routes)
    with closing(open_registry(config.registry)) as registry, closing(open_log(config.log, kafka=config.kafka)) as log:
        try:
            report = {
                name: _what_if(registry, log, name, other) if other else _compare(registry, log, name, start)
                for name in names
            }
        except ConfigError as error:
            raise StartError(f"--what-if: {error}") from error
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        for name, row in report.items():
            print("\n".join(_lines(name, row)))
    return int(any(row.get("differences") for row in report.values()))


def evidence(log: EventLog, route: str, *, start: int = 0, until: int) -> Iterator[tuple[int, Evidence]]:
    """A route's evidence in order, with offsets, from `start` up to but without `until`."""
    offset = start
    while entries := log.read(Stream.EVIDENCE, offset, BATCH, key=route):
        for entry in entries:
            if entry.offset >= until:
                return
            yield entry.offset, decode_evidence(entry.value)
        offset = entries[-1].offset + 1


def _compare(registry: Registry, log: EventLog, name: str, start: int) -> dict[str, Any]:
    _, _, until = registry.checkpoint(name)
    state, offset = registry.kept_before(name, start)
    decided = [t for t in registry.transitions(name) if offset <= t.offset < until]  # the promoter may be at work
    records = evidence(log, name, start=offset, until=until)
    found = differences(name, records, decided, decode_state(state) if state is not None else None)
    return {"decisions": len(decided), "records_from": offset, "records_until": until, "differences": found}


def _what_if(registry: Registry, log: EventLog, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    _, _, until = registry.checkpoint(name)
    made = recompute(name, what_if(evidence(log, name, until=until), changes))
    decided = registry.transitions(name)
    return {
        "exploratory": EXPLORATORY,
        "what_if": changes,
        "decided": [_row(t) for t in decided],
        "would_have_decided": [_row(t) for t in made],
    }


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise StartError(f"--what-if {text!r}: write KEY=VALUE, for example margin=0.03")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise StartError(f"--what-if {text!r}: {value!r} can't be read as YAML ({error})") from error


def _row(made: Transition) -> dict[str, Any]:
    names = ("version", "before", "after", "step", "fraction", "cause", "offset", "at")
    return {name: getattr(made, name) for name in names}


def _lines(name: str, row: Mapping[str, Any]) -> list[str]:
    if "what_if" not in row:
        said = f"{name}: {row['decisions']} decisions, {len(row['differences'])} differ"
        return [said, *(f"  {line}" for line in row["differences"])]
    lines = [f"{name}: {row['exploratory']}"]
    for title, key in (("decided", "decided"), ("would have been decided", "would_have_decided")):
        lines.append(f"  {title}:")
        lines += [
            f"    offset {t['offset']}: {t['version']} {t['before']} -> {t['after']} "
            f"({t['fraction']:.0%}, {t['cause']})"
            for t in row[key]
        ] or ["    nothing"]
    return lines
