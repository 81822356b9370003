"""A benchmark in parts, over processes: progress with an estimate, and parts that are done are kept until their key,
the digest of what makes them, changes."""

import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from exporters.models import write_atomic

OUT = Path(__file__).resolve().parents[1] / "out"


def run(
    name: str, costs: Mapping[str, float], make: Callable[[str], Any], *, key: str, processes: int, anew: bool
) -> tuple[float, dict[str, Any]]:
    """What `make` gives for each part, in the order of `costs` (about how many seconds each takes), and the seconds
    that they took, divided by the processes. Parts are kept in out/NAME/; `anew` makes every one again. Each is made in
    a process of its own, so `make` must be picklable, and what it gives JSON; infinity becomes null. A part that fails
    ends the run once the others are done."""
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    done: dict[str, tuple[float, Any]] = {}
    for part in costs:
        file = _file(folder, part)
        if not anew and file.exists() and (kept := json.loads(file.read_text()))["key"] == key:
            done[part] = (kept["seconds"], kept["result"])
    left = {part: cost for part, cost in costs.items() if part not in done}
    failed: list[BaseException] = []
    with ProcessPoolExecutor(processes) as pool:
        running = {pool.submit(timed, make, part): part for part in sorted(left, key=lambda part: -left[part])}
        for part, took, result in _progress(running, left, processes, failed):
            kept = {"key": key, "seconds": took, "result": finite(result)}
            write_atomic(_file(folder, part), json.dumps(kept).encode())
            done[part] = (took, kept["result"])
    if failed:
        raise failed[0]
    return sum(took for took, _ in done.values()) / processes, {part: done[part][1] for part in costs}


def timed(make: Callable[[str], Any], part: str) -> tuple[float, Any]:
    """The seconds that a part takes, and what it gives."""
    began = time.monotonic()
    result = make(part)
    return round(time.monotonic() - began, 2), result


def digest(files: Iterable[Path], *settings: object) -> str:
    """Changes with the files' contents and with the settings (JSON)."""
    text = b"".join(file.read_bytes() for file in files) + json.dumps(settings).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def finite(value: Any) -> Any:
    """JSON knows no infinity: null in its place."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _progress(
    running: dict[Future[tuple[float, Any]], str], costs: dict[str, float], processes: int, failed: list[BaseException]
) -> Iterator[tuple[str, float, Any]]:
    """Parts as they are done, each with a line on stderr: done, of how many, and the minutes that are left."""
    left, spent, of = dict(costs), [0.0, 0.0], len(costs)
    for number, future in enumerate(as_completed(running), start=1):
        part = running[future]
        if error := future.exception():
            print(f"{number:3d}/{of}  failed  {part}: {error!r}", file=sys.stderr, flush=True)
            failed.append(error)
            left.pop(part)
            continue
        took, result = future.result()
        spent = [spent[0] + took, spent[1] + left.pop(part)]
        minutes = sum(left.values()) * spent[0] / spent[1] / processes / 60
        print(f"{number:3d}/{of}  {took:6.1f} s  about {minutes:4.1f} min left  {part}", file=sys.stderr, flush=True)
        yield part, took, result


def _file(folder: Path, part: str) -> Path:
    return folder / (re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") + ".json")
