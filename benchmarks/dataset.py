"""From a log of a million records to a data set: how fast, and in how much memory.

    scripts/bench dataset [--records 100000 1000000] [--data ../shared/data/packages.jsonl.gz]

The records are Debian's packages, each asked about in many ways: words of its description in any order, in a few words
of a user, three to a conversation. Each size is built in a process of its own, with every filter but those that ask a
model (`semantic`, `consistency`, `balance`) and `replay`: all records are kept, there is nothing older to draw. The
logs are kept in out/dataset, and made once. About half an hour on two cores, and the making of the logs; writes
benchmarks/results/dataset.json.
"""

import argparse
import gzip
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import results_file
from recipes_tasks import SECTION

from collector import Interactions, Record, Stream, open_subjects
from collector.log_sqlite import SqliteLog
from collector.record import Answer, Interaction, encode
from retrainer.data.dataset import Options, build, write
from router.decision import Arm
from router.policy_data import DataPolicy

ROOT = Path(__file__).resolve().parent
FOLDER = ROOT.parent / "out" / "dataset"
USERS = ("Where does {} go?", "Please sort this: {}", "{}", "section of {}?", "I have {} here. Which section?")
POLICY = DataPolicy.model_validate(
    {"refusals": "drop", "max_characters": 4000, "deny": {"prompt": ["(?i)obsolete package"]}, "most_alike": 8}
)


def records(data: Path, count: int) -> Iterator[Interaction]:
    """The same ones every time; the first of a longer log are those of a shorter."""
    packages = [json.loads(line) for line in gzip.decompress(data.read_bytes()).splitlines()]
    draw = random.Random(11)
    for n in range(count):
        package = draw.choice(packages)
        words = (package["description"] or package["synopsis"]).split()
        about = f"{package['package']}, {' '.join(draw.choices(words, k=draw.randint(15, 60)))}"
        text = draw.choice(USERS).format(about)
        said = json.dumps({"section": package["section"]})
        status, finish = (500, None) if n % 97 == 0 else (200, "length" if n % 89 == 0 else "stop")
        yield Interaction(
            id=f"r{n}", at=1e9 + n, route="section", kind="chat", arm=Arm.TEACHER, version=None,
            propensity=1.0, answered=1.0 if n < count // 2 else 0.15, eligible=True, policy_version="p",
            rollout_revision=0, consent="opt-out", scrubber="s", cluster=f"c{n // 3}", stream=False,
            request={"messages": [{"role": "system", "content": SECTION}, {"role": "user", "content": text}]},
            answers=(
                Answer(
                    arm=Arm.TEACHER, upstream="up/m", status=status, finish_reason=finish,
                    message={"role": "assistant", "content": said},
                ),
            ),
        )  # fmt: skip


def log_of(data: Path, count: int) -> Path:
    """A log with so many records, made where there is none yet."""
    path = FOLDER / f"{count}.db"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        making = path.with_suffix(".tmp")
        making.unlink(missing_ok=True)
        log = SqliteLog(making)
        batch = []
        for n, r in enumerate(records(data, count), start=1):
            batch.append((Stream.INTERACTIONS, Record(id=r.id, key=r.route, at=r.at, value=encode(r))))
            if len(batch) == 20_000 or n == count:
                log.append(batch)
                batch.clear()
                print(f"log of {count:,}: {n:,} written", flush=True)
        log.close()
        making.rename(path)
    return path


def measure(path: Path, count: int) -> dict[str, object]:
    """Build once; in a process of its own."""
    interactions = Interactions(SqliteLog(path), open_subjects("sqlite:///:memory:"))
    work = FOLDER / f"work-{count}"

    def told(phase: str, done: int, total: int, left: float | None) -> None:
        if done % 50_000 < 1000:
            print(f"{phase} {done:,}/{total:,}, {left or 0:.0f} s left", file=sys.stderr, flush=True)

    began = time.monotonic()
    options = Options(policy=POLICY, work=work, progress=told)
    made = build(interactions, "section", max_examples=count, options=options)
    write(made, FOLDER / f"made-{count}")
    seconds = time.monotonic() - began
    manifest = made.manifest
    return {
        "records": count,
        "seconds": round(seconds, 1),
        "records_per_second": round(count / seconds),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "work_mib": round(sum(f.stat().st_size for f in work.iterdir()) / 2**20),
        "digest": manifest.digest,
        "counts": manifest.counts,
        "dropped": {name: d.count for name, d in manifest.dropped.items()},
        "effective": manifest.weights["effective"],
    }


def child(path: Path, count: int) -> dict[str, object]:
    """`measure` in a process that has done nothing else."""
    shutil.rmtree(FOLDER / f"work-{count}", ignore_errors=True)
    done = subprocess.run(
        [sys.executable, __file__, "--measure", str(path), str(count)], stdout=subprocess.PIPE, check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    shutil.rmtree(FOLDER / f"work-{count}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs=2, default=(100_000, 1_000_000))
    parser.add_argument("--data", type=Path, default=ROOT.parent.parent / "shared" / "data" / "packages.jsonl.gz")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), int(options.measure[1]))))
        return
    small, large = (child(log_of(options.data, count), count) for count in options.records)
    again = child(log_of(options.data, options.records[0]), options.records[0])
    growth = round(float(large["peak_mib"]) / float(small["peak_mib"]), 3)  # type: ignore[arg-type]
    goals = [
        results_file.goal("records a second", float(large["records_per_second"]), ">=", 1500.0),  # type: ignore[arg-type]
        results_file.goal("peak memory, the larger over the smaller", growth, "<=", 1.25),
        results_file.goal("the same bytes when built again", float(again["digest"] == small["digest"]), "==", 1.0),
    ]
    results_file.write("dataset", {"small": small, "large": large}, goals)


if __name__ == "__main__":
    main()
