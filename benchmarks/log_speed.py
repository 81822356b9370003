"""A million records of 1 KB in the log: how fast they come in and out, what they take, and that memory stays flat.

    scripts/bench log_speed [--records 1000000]     some minutes; writes benchmarks/results/log_speed.json

On SQLite, and on one Kafka broker on the same machine (scripts/services fetches it), unreplicated. Batches of 500, as
the collector appends when it is busy; each append is durable, or acknowledged by the broker, before the next.
On SQLite, and on one Kafka broker on the same machine (scripts/services fetches it), unreplicated. Batches of 500, as
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import results_file

from collector import LogError, Record, Stream, open_log
from retort.demo.settings import free_ports

ROOT = Path(__file__).resolve().parents[1]
BATCH, PAGE, SIZE = 500, 1000, 1000
EARLY = 100_000
NOISE = os.urandom(1 << 20)


def batch(start: int) -> list[tuple[Stream, Record]]:
    return [
        (
            Stream.INTERACTIONS,
            Record(
                id=f"record-{n:012d}", key="route", at=1e9 + n, value=NOISE[n % 1000 : n % 1000 + SIZE], subject="s"
            ),
        )
        for n in range(start, start + BATCH)
    ]


def memory() -> dict[str, float]:
    """MB: now, and at the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}
    return {"now": round(kilobytes["VmRSS"] / 1024, 1), "peak": round(kilobytes["VmHWM"] / 1024, 1)}


def append(url: str, records: int) -> dict[str, Any]:
    log, early, began = open_log(url, appender="bench"), {}, time.perf_counter()
    for start in range(0, records, BATCH):
        log.append(batch(start))
        if start + BATCH == EARLY:
            early = memory()
    took = time.perf_counter() - began
    log.close()
    return {"records_per_s": round(records / took), "memory_mb_at_100k": early, "memory_mb_at_the_end": memory()}


def read(url: str, records: int) -> dict[str, Any]:
    log, offset, count, early, began = open_log(url), 0, 0, {}, time.perf_counter()
    while page := log.read(Stream.INTERACTIONS, offset, PAGE, key="route"):
        offset, count = page[-1].offset + 1, count + len(page)
        if count == EARLY:
            early = memory()
    took = time.perf_counter() - began
    log.close()
    if count != records:
        raise SystemExit(f"{count} records came back, of {records}")
    return {"records_per_s": round(records / took), "memory_mb_at_100k": early, "memory_mb_at_the_end": memory()}


def restart(url: str, records: int) -> dict[str, Any]:
    began = time.perf_counter()
    log = open_log(url, appender="bench")
    log.append(batch(records - BATCH))  # all there already
    took = time.perf_counter() - began
    log.close()
    return {"seconds": round(took, 2), "memory_mb": memory()}


PARTS = {"append": append, "read": read, "restart": restart}


def measure(url: str, records: int, place: Path) -> dict[str, Any]:
    """Each part in a process of its own."""
    figures: dict[str, Any] = {}
    for part in PARTS:
        command = [sys.executable, __file__, "--part", part, "--url", url, "--records", str(records)]
        figures[part] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if part == "append":
            size = sum(file.stat().st_blocks * 512 for file in place.rglob("*") if file.is_file())
            figures["disk_bytes_per_record"] = round(size / records)
        print(url, part, figures[part], flush=True)
    return figures


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    port, controller = free_ports(2)
    process = subprocess.Popen(
        [ROOT / "scripts/kafka", folder, str(port), str(controller)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    url = f"kafka://127.0.0.1:{port}/bench"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                open_log(url, appender="ready").close()
                break
            except LogError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
        yield url
    finally:
        process.terminate()
        process.wait()


def goals(name: str, found: dict[str, Any], least: int) -> list[dict[str, Any]]:
    made = [results_file.goal(f"{name}: records appended a second", found["append"]["records_per_s"], ">=", least)]
    for part in ("append", "read"):
        grown = round(found[part]["memory_mb_at_the_end"]["peak"] - found[part]["memory_mb_at_100k"]["peak"], 1)
        made.append(results_file.goal(f"{name}: MB more at a million than at 100,000, {part}", grown, "<=", 64.0))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options.url, options.records)))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "sqlite"
        sqlite = measure(f"sqlite:///{place}/log.db", options.records, place)
        data = Path(folder) / "kafka"
        with broker(data) as url:
            kafka = measure(url, options.records, data / "data" / "bench.interactions.route-0")
    figures = {"records": options.records, "bytes_of_value": SIZE, "batch": BATCH, "sqlite": sqlite, "kafka": kafka}
    made = [*goals("sqlite", sqlite, 20_000), *goals("kafka", kafka, 5_000)]
    made.append(results_file.goal("kafka: seconds to start the appender anew", kafka["restart"]["seconds"], "<=", 20.0))
    results_file.write("log_speed", figures, made)


if __name__ == "__main__":
    main()
