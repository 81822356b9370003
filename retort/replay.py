"""`retort replay`: every decision recomputed from the evidence log, and compared with what was decided."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from collector import EventLog, Stream, open_log
from retort.errors import StartError
from router import Config, Evidence, decode_evidence, differences, open_registry

BATCH = 5000


def replay(config: Config, *, route: str | None, as_json: bool) -> int:
    """Print one line a route, or JSON; returns 1 where a decision differs."""
    if route is not None and route not in config.routes:
        raise StartError(f"no route {route!r}; the configuration has: {', '.join(sorted(config.routes))}")
    registry = open_registry(config.registry)
    log = open_log(config.log)
    report: dict[str, dict[str, Any]] = {}
    try:
        for name in [route] if route else sorted(config.routes):
            decided = registry.transitions(name)
            _, _, until = registry.checkpoint(name)
            found = differences(name, evidence(log, name, until=until), decided)
            report[name] = {"decisions": len(decided), "records_until": until, "differences": found}
    finally:
        log.close()
        registry.close()
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        for name, row in report.items():
            print(f"{name}: {row['decisions']} decisions, {len(row['differences'])} differ")
            for line in row["differences"]:
                print(f"  {line if isinstance(line, str) else json.dumps(line)}")
    return int(any(row["differences"] for row in report.values()))


def evidence(log: EventLog, route: str, *, until: int) -> Iterator[tuple[int, Evidence]]:
    """A route's evidence in order, with offsets, up to but without `until`."""
    offset = 0
    while entries := log.read(Stream.EVIDENCE, offset, BATCH, key=route):
        for entry in entries:
            if entry.offset >= until:
                return
            yield entry.offset, decode_evidence(entry.value)
        offset = entries[-1].offset + 1
