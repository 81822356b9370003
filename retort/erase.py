"""`retort erase`: a person's records are removed, and whoever asked learns which data sets and versions held them."""

import json
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from collector import Entry, EventLog, Stream, open_log, open_subjects
from retort.studies import forget, route_of
from retrainer import CycleBusy, CycleError, Cycles
from retrainer.data.dataset import examples
from retrainer.data.suite import read_suite, remove, suite_files
from retrainer.state import BUILDING
from router import Config, Registry, Version, open_registry

SCOUR_SECONDS = 5.0
END_SECONDS = 60.0  # that is waited for a study to end; its longest step may be an export
UNFINISHED = "unfinished"


def erase(config: Config, *, names: Sequence[str], hashed: Sequence[str], as_json: bool) -> int:
    """Erase subjects, by the names that clients gave them or by their hashes. Returns 0; 1 where some of it can still
    be found in a file, because a reader is in the way, or a study that has not ended yet.

    The keys go first: from then on nobody can read the records, wherever they stand. Then what the regression suites
    hold of them, and the records in the log; a broker needs until its next compaction. Evaluations and sweeps that
    hold copies go, too (those at work end), and what interrupted cycles have read. May be repeated. Raises LogError,
    RouterError, CycleError.
    """
    with (
        closing(open_subjects(config.subjects)) as keys,
        closing(open_log(config.log, kafka=config.kafka)) as log,
        closing(open_registry(config.registry)) as registry,
    ):
        subjects = list(dict.fromkeys((*hashed, *map(keys.hashed, names))))
        had_key = {subject: keys.destroy(subject) for subject in subjects}
        studies = forget(config, _studied(config, subjects), wait=END_SECONDS)
        erased = {subject: _erased(config, log, subject) for subject in subjects}
        routes = {entry.key for gone in erased.values() for entries in gone.values() for entry in entries}
        studies += forget(config, routes, wait=0.0 if studies else END_SECONDS)
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
    for name in dict.fromkeys(studies):
        print(
            f"{name} may hold copies of what was erased, and has not ended yet; it removes them when it does: run this "
            "again then",
            file=sys.stderr,
        )
    for name in left:
        print(
            f"not overwritten yet: somebody reads the database `{name}` (a backup?), and in its files what was erased "
            "can still be found; the collector overwrites it within ten minutes of their end, or run this again then",
            file=sys.stderr,
        )
    return 1 if left or studies else 0


def _erased(config: Config, log: EventLog, subject: str) -> dict[Stream, list[Entry]]:
    """What the log held of a subject; it is gone now, from the suites too. What bears her hash goes before the log's
    rows, so that a repetition finds what a kill has left; examples that were made before they bore one are found by
    those rows alone."""
    for path in suite_files(config.state):
        remove(path, subject)
    erased = {stream: log.erase(stream, subject=subject) for stream in Stream}
    entries = [entry for stream in Stream for entry in erased[stream]]
    for path in suite_files(config.state):
        remove(path, subject, {entry.id for entry in entries})
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


def _studied(config: Config, subjects: Collection[str]) -> set[str]:
    """The routes of which a study may hold something of one of these."""
    found = set()
    for folder in (Path(config.state) / "studies").glob("*/*"):
        try:
            if _holds(folder, subjects):
                found.add(route_of(config, folder))
        except (CycleError, FileNotFoundError):
            if folder.exists():  # else it has just ended
                raise
    return found


def _holds(study: Path, subjects: Collection[str]) -> bool:
    """Whether its data set, or its copy of the regression suite, holds something; while a data set is made of the log,
    it may."""
    if any(study.rglob(BUILDING)):  # looked for first: where it has just gone, the data set is there
        return True
    sets = [file.parent for file in study.rglob("dataset/dataset.json")]
    suites = [example for path in suite_files(study) for example in read_suite(path)]
    return any(any(_counts(folder, dict.fromkeys(subjects, ())).values()) for folder in sets) or any(
        example.is_of(subject, ()) for example in suites for subject in subjects
    )


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
