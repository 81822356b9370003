"""`retort erase`: a person's records are removed, and whoever asked learns which data sets and versions held them."""

import json
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from collector import Entry, EventLog, Stream, open_log, open_subjects
from retort.studies import forget
from retrainer import CycleBusy, CycleError, Cycles
from retrainer.data.dataset import examples
from retrainer.data.suite import remove, suite_files
from retrainer.state import BUILDING
from router import Config, Registry, Version, open_registry

SCOUR_SECONDS = 5.0
UNFINISHED = "unfinished"


def erase(config: Config, *, names: Sequence[str], hashed: Sequence[str], as_json: bool) -> int:
    """Erase subjects, by the names that clients gave them or by their hashes. Returns 0; 1 where some of it can still
    be found in a file, because a reader is in the way.

    The keys go first: from then on nobody can read the records, wherever they stand. Then what the regression suites
    hold of them, and the records in the log; a broker needs until its next compaction. Unfinished evaluations and
    sweeps that hold copies go, too, and what interrupted cycles have read. May be repeated. Raises LogError,
    RouterError, CycleError.
    """
    with (
        closing(open_subjects(config.subjects)) as keys,
        closing(open_log(config.log, kafka=config.kafka)) as log,
        closing(open_registry(config.registry)) as registry,
    ):
        subjects = list(dict.fromkeys((*hashed, *map(keys.hashed, names))))
        had_key = {subject: keys.destroy(subject) for subject in subjects}
        forget(config, _studied(config, subjects))
        erased = {subject: _erased(config, log, subject) for subject in subjects}
        at_work = _stop_building(config)
        files = {"subjects": keys.scour(seconds=SCOUR_SECONDS), "log": log.scour(seconds=SCOUR_SECONDS)}
        held = _held(config, registry, {subject: gone[Stream.INTERACTIONS] for subject, gone in erased.items()})
        report: list[dict[str, Any]] = [
            {
                "subject": subject,
                "key_destroyed": had_key[subject],
                "records": sum(map(len, gone.values())),
                "held_by": held[subject],
            }
            for subject, gone in erased.items()
        ]
    left = [name for name, clean in files.items() if not clean]
    for row in report:
        row["not_overwritten"] = left
    print(json.dumps(report, indent=2) if as_json else "\n".join(line for row in report for line in _lines(row)))
    for name in at_work:
        print(
            f"the cycle {name} is reading the log, and may have read what was erased: run this again when it has ended",
            file=sys.stderr,
        )
    for name in left:
        print(
            f"not overwritten yet: somebody reads the database `{name}` (a backup?), and in its files what was erased "
            "can still be found; the collector overwrites it within ten minutes of their end, or run this again then",
            file=sys.stderr,
        )
    return 1 if left else 0


def _erased(config: Config, log: EventLog, subject: str) -> dict[Stream, list[Entry]]:
    """What the log held of a subject; it is gone now, from the suites and the studies too. What bears her hash goes
    before the log's rows, so that a repetition finds what a kill has left; examples that were made before they bore one
    are found by those rows alone."""
    for path in suite_files(config.state):
        remove(path, subject)
    erased = {stream: log.erase(stream, subject=subject) for stream in Stream}
    entries = [entry for stream in Stream for entry in erased[stream]]
    for path in suite_files(config.state):
        remove(path, subject, {entry.id for entry in entries})
    forget(config, sorted({entry.key for entry in entries}))
    return erased


def _stop_building(config: Config) -> list[str]:
    """Remove the copies of the log of which interrupted cycles were making a data set: they begin it anew. Returns the
    cycles that are at it now."""
    cycles, at_work = Cycles(config.state), []
    for folder in sorted((Path(config.state) / "cycles").glob(f"*/{BUILDING}")):
        try:
            with cycles.lock(folder.parent.name):
                shutil.rmtree(folder)
        except CycleBusy:
            at_work.append(folder.parent.name)
    return at_work


def _studied(config: Config, subjects: Collection[str]) -> list[str]:
    """The routes of which a study's data set holds something of one of these."""
    studies = Path(config.state) / "studies"
    sets = {file.parent for file in studies.rglob("dataset/dataset.json")}
    found = {folder for folder in sets if any(_counts(folder, dict.fromkeys(subjects, ())).values())}
    return sorted({bytes.fromhex(folder.relative_to(studies).parts[0]).decode() for folder in found})


def _held(config: Config, registry: Registry, erased: Mapping[str, Sequence[Entry]]) -> dict[str, list[dict[str, Any]]]:
    """By subject, the versions that learnt from her, also from what the log has long forgotten; not certain where a
    data set is gone, and only its range known. Then the cycles of which no version came and whose data sets hold
    something of hers. Each data set is read once."""
    routes = sorted({*config.routes, *(entry.key for entries in erased.values() for entry in entries)})
    versions = {version.id: version for route in routes for version in registry.versions(route)}
    kept = {folder.parent.name: folder for folder in sorted((Path(config.state) / "cycles").glob("*/dataset"))}
    ids = {subject: {entry.id for entry in entries} for subject, entries in erased.items()}
    held: dict[str, list[dict[str, Any]]] = {subject: [] for subject in erased}
    for name in dict.fromkeys((*versions, *kept)):
        if name in kept:
            counts = _counts(kept[name], ids)
        else:
            counts = {subject: _within(versions[name], entries) for subject, entries in erased.items()}
        for subject in (s for s, count in counts.items() if count):
            held[subject].append(
                {
                    "cycle": name,
                    **(_of_version(versions[name]) if name in versions else _of_cycle(config, name)),
                    "folder": str(kept[name].parent) if name in kept else None,
                    "records": counts[subject],
                    "certain": name in kept,
                }
            )
    return held


def _within(version: Version, entries: Sequence[Entry]) -> int:
    """How many of the records stood where the version's data set was read from."""
    first, end = version.lineage.get("offsets") or (0, 0)
    return sum(entry.key == version.route and first <= entry.offset < end for entry in entries)


def _of_version(version: Version) -> dict[str, Any]:
    return {"version": version.id, "stage": version.stage.value, "dataset": version.lineage.get("dataset")}


def _of_cycle(config: Config, name: str) -> dict[str, Any]:
    """Of one that made no version, or whose version is of a route that is no longer configured."""
    try:
        state = Cycles(config.state).load(name)
    except CycleError:
        state = None
    if state is None:
        return {"version": None, "stage": "unknown", "dataset": None}
    dataset = state.phases.get("dataset") or {}
    return {"version": None, "stage": state.outcome or UNFINISHED, "dataset": dataset.get("digest")}


def _counts(folder: Path, records: Mapping[str, Collection[str]]) -> dict[str, int]:
    """How many of a data set's examples are of each hashed subject, or were made of her records."""
    counts = dict.fromkeys(records, 0)
    for example in examples(folder):
        for subject, ids in records.items():
            counts[subject] += example.is_of(subject, ids)
    return counts


def _lines(row: dict[str, Any]) -> Iterator[str]:
    key = "its key is destroyed" if row["key_destroyed"] else "it had no key"
    yield f"{row['subject']}: {row['records']} records erased, {key}"
    for held in row["held_by"]:
        learnt = "learnt from" if held["certain"] else "may have learnt from (its data set is gone)"
        yield f"  {held['cycle']} ({held['stage']}) {learnt} {held['records']} records; data set {held['dataset']}"
        if held["folder"]:
            yield f"    {held['folder']} still holds them, scrubbed: {_what_to_do(held)}"


def _what_to_do(held: Mapping[str, Any]) -> str:
    if held["version"] is not None:
        return "remove it, and train anew (retort retrain)"
    return "erase again when the cycle has ended" if held["stage"] == UNFINISHED else "remove it"
