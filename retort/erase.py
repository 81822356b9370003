"""`retort erase`: a person's records are removed, and whoever asked learns which data sets and versions held them."""

import json
import sys
from collections.abc import Iterator, Sequence
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
        erased = []
        for subject in dict.fromkeys((*hashed, *map(keys.hashed, names))):
            had_key = keys.destroy(subject)
            erased.append((subject, had_key, _erased(config, log, subject)))
        files = {"subjects": keys.scour(seconds=SCOUR_SECONDS), "log": log.scour(seconds=SCOUR_SECONDS)}
        report: list[dict[str, Any]] = [
            {
                "subject": subject,
                "key_destroyed": had_key,
                "records": sum(map(len, gone.values())),
                "held_by": list(_held(config, registry, subject, gone[Stream.INTERACTIONS])),
            }
            for subject, had_key, gone in erased
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
    forget(config, _studied(config, subject))
    erased = {stream: log.erase(stream, subject=subject) for stream in Stream}
    entries = [entry for stream in Stream for entry in erased[stream]]
    for path in suite_files(config.state):
        remove(path, subject, {entry.id for entry in entries})
    forget(config, sorted({entry.key for entry in entries}))
    return erased


def _studied(config: Config, subject: str) -> list[str]:
    """The routes of which a study's data set holds something of hers."""
    studies = Path(config.state) / "studies"
    sets = {file.parent for file in studies.rglob("dataset/dataset.json")}
    found = {folder for folder in sets if any(example.is_of(subject, ()) for example in examples(folder))}
    return sorted({bytes.fromhex(folder.relative_to(studies).parts[0]).decode() for folder in found})


def _held(config: Config, registry: Registry, subject: str, entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """The versions that learnt from her, also from what the log has long forgotten; not certain where a data set is
    gone, and only its range known."""
    for version in (
        v for route in sorted({*config.routes, *(e.key for e in entries)}) for v in registry.versions(route)
    ):
        offsets = version.lineage.get("offsets")
        within = {e.id for e in entries if e.key == version.route and offsets and offsets[0] <= e.offset < offsets[1]}
        folder = Path(config.state) / "cycles" / version.id / "dataset"
        certain = folder.exists()
        records = sum(e.is_of(subject, within) for e in examples(folder)) if certain else len(within)
        if records:
            yield {
                "version": version.id,
                "stage": version.stage.value,
                "dataset": version.lineage.get("dataset"),
                "folder": str(folder) if certain else None,
                "records": records,
                "certain": certain,
            }


def _lines(row: dict[str, Any]) -> Iterator[str]:
    key = "its key is destroyed" if row["key_destroyed"] else "it had no key"
    yield f"{row['subject']}: {row['records']} records erased, {key}"
    for held in row["held_by"]:
        learnt = "learnt from" if held["certain"] else "may have learnt from (its data set is gone)"
        yield f"  {held['version']} ({held['stage']}) {learnt} {held['records']} records; data set {held['dataset']}"
        if held["folder"]:
            yield f"    {held['folder']} still holds them, scrubbed: remove it, and train anew (retort retrain)"
