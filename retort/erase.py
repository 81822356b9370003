"""`retort erase`: a person's records are removed, and whoever asked learns which data sets and versions held them."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from collector import Entry, Stream, open_log, open_subjects
from retort.studies import forget
from retrainer.data.dataset import ids
from retrainer.data.suite import remove, suite_file
from router import Config, Version, open_registry

SCOUR_SECONDS = 5.0


def erase(config: Config, *, names: Sequence[str], hashed: Sequence[str], as_json: bool) -> int:
    """Erase subjects, by the names that clients gave them or by their hashes. Returns 0; 1 where some of it can still
    be found in a file, because a reader is in the way.

    The keys go first: from then on nobody can read the records, wherever they stand. Then they are removed from the
    log; a broker needs until its next compaction. What a route's regression suite holds of them goes, too, and
    unfinished evaluations and sweeps of these routes, which hold copies. May be repeated. Raises LogError, RouterError,
    CycleError.
    """
    with (
        closing(open_subjects(config.subjects)) as keys,
        closing(open_log(config.log, kafka=config.kafka)) as log,
        closing(open_registry(config.registry)) as registry,
    ):
        report = []
        for subject in dict.fromkeys((*hashed, *map(keys.hashed, names))):
            had_key = keys.destroy(subject)
            entries = [entry for stream in Stream for entry in log.erase(stream, subject=subject)]
            routes = sorted({entry.key for entry in entries})
            forget(config, routes)
            versions = [version for route in routes for version in registry.versions(route)]
            held = list(_held(config, entries, versions))
            for route in routes:
                remove(suite_file(config.state, route), {entry.id for entry in entries if entry.key == route})
            report.append({"subject": subject, "key_destroyed": had_key, "records": len(entries), "held_by": held})
        files = {"subjects": keys.scour(seconds=SCOUR_SECONDS), "log": log.scour(seconds=SCOUR_SECONDS)}
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


def _held(config: Config, entries: Sequence[Entry], versions: Sequence[Version]) -> Iterator[dict[str, Any]]:
    """The versions that learnt from one of these; not certain where a data set is gone, and only its range known."""
    for version in versions:
        offsets = version.lineage.get("offsets")
        within = [e.id for e in entries if e.key == version.route and offsets and offsets[0] <= e.offset < offsets[1]]
        folder = Path(config.state) / "cycles" / version.id / "dataset"
        found = set(within).intersection(ids(folder)) if folder.exists() else None
        if within and (found is None or found):
            yield {
                "version": version.id,
                "stage": version.stage.value,
                "dataset": version.lineage.get("dataset"),
                "folder": str(folder) if found else None,
                "records": len(within if found is None else found),
                "certain": found is not None,
            }


def _lines(row: dict[str, Any]) -> Iterator[str]:
    key = "its key is destroyed" if row["key_destroyed"] else "it had no key"
    yield f"{row['subject']}: {row['records']} records erased, {key}"
    for held in row["held_by"]:
        learnt = "learnt from" if held["certain"] else "may have learnt from (its data set is gone)"
        yield f"  {held['version']} ({held['stage']}) {learnt} {held['records']} of them; data set {held['dataset']}"
        if held["folder"]:
            yield f"    {held['folder']} still holds them, scrubbed: remove it, and train anew (retort retrain)"
