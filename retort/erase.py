"""`retort erase`: a person's records are removed, and whoever asked learns which data sets and versions held them."""

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from collector import Entry, EventLog, Stream, open_log, open_subjects
from retort.studies import forget
from retrainer.data.dataset import examples
from retrainer.data.suite import remove, suite_files
from router import Config, Registry, open_registry

SCOUR_SECONDS = 5.0


def erase(config: Config, *, names: Sequence[str], hashed: Sequence[str], as_json: bool) -> int:
    """Erase subjects, by the names that clients gave them or by their hashes. Returns 0; 1 where some of it can still
    be found in a file, because a reader is in the way.

    The keys go first: from then on nobody can read the records, wherever they stand. Then what the regression suites
    hold of them, and the records in the log; a broker needs until its next compaction. Unfinished evaluations and
    sweeps that hold copies go, too. May be repeated. Raises LogError, RouterError, CycleError.
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


def _studied(config: Config, subjects: Collection[str]) -> list[str]:
    """The routes of which a study's data set holds something of one of these."""
    studies = Path(config.state) / "studies"
    sets = {file.parent for file in studies.rglob("dataset/dataset.json")}
    found = {folder for folder in sets if any(_counts(folder, dict.fromkeys(subjects, ())).values())}
    return sorted({bytes.fromhex(folder.relative_to(studies).parts[0]).decode() for folder in found})


def _held(config: Config, registry: Registry, erased: Mapping[str, Sequence[Entry]]) -> dict[str, list[dict[str, Any]]]:
    """By subject, the versions that learnt from her, also from what the log has long forgotten; not certain where a
    data set is gone, and only its range known. Each data set is read once."""
    routes = sorted({*config.routes, *(entry.key for entries in erased.values() for entry in entries)})
    held: dict[str, list[dict[str, Any]]] = {subject: [] for subject in erased}
    for version in (v for route in routes for v in registry.versions(route)):
        offsets = version.lineage.get("offsets")
        within = {
            subject: {
                e.id for e in entries if e.key == version.route and offsets and offsets[0] <= e.offset < offsets[1]
            }
            for subject, entries in erased.items()
        }
        folder = Path(config.state) / "cycles" / version.id / "dataset"
        certain = folder.exists()
        counts = _counts(folder, within) if certain else {subject: len(ids) for subject, ids in within.items()}
        for subject in (s for s, count in counts.items() if count):
            held[subject].append(
                {
                    "version": version.id,
                    "stage": version.stage.value,
                    "dataset": version.lineage.get("dataset"),
                    "folder": str(folder) if certain else None,
                    "records": counts[subject],
                    "certain": certain,
                }
            )
    return held


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
        yield f"  {held['version']} ({held['stage']}) {learnt} {held['records']} records; data set {held['dataset']}"
        if held["folder"]:
            yield f"    {held['folder']} still holds them, scrubbed: remove it, and train anew (retort retrain)"
