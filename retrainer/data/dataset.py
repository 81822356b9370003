"""A log range becomes a data set: filtered, deduplicated, grouped, split, and written with its lineage.

Everything on the way stands in a work file: memory doesn't grow with the log.
"""

import shutil
import tempfile
import weakref
from pathlib import Path

from collector.interactions import Interactions
from collector.log import Stream
from retrainer.data.filters import Fits
from retrainer.data.held_out import digest_of
from retrainer.data.joined import Joined
from retrainer.data.options import PLAIN, Options
from retrainer.data.reading import Reading
from retrainer.data.selection import select
from retrainer.data.stored import Dataset, DatasetManifest, Dropped, Lines, digest, examples, load, write
from retrainer.data.work import Work
from retrainer.data.writing import LEAST, Writing
from retrainer.errors import NotEnoughExamples

__all__ = ["Dataset", "DatasetManifest", "Dropped", "Lines", "Options", "build", "digest", "examples", "load", "write"]


def build(
    interactions: Interactions,
    route: str,
    *,
    max_examples: int,
    fits: Fits = lambda _: True,
    end: int | None = None,
    feedback_end: int | None = None,
    options: Options = PLAIN,
) -> Dataset:
    """Read the route's interactions up to `end`, and the right answers to them that clients reported up to
    `feedback_end`, and make the data set of them, with `max_examples` at the most.

    `fits`: whether an example is short enough, in tokens. The same log range and settings give the same data set, byte
    for byte. Its examples are read from the work folder; `write` it to keep it. Raises NotEnoughExamples, CycleError,
    and what the log raises.
    """
    folder, owner = _folder(options.work)
    policy = options.policy
    settings = {"max_examples": max_examples, **policy.model_dump(mode="json")}
    settings |= {"tools": True} if options.tools else {}
    settings |= {"teachers": sorted(options.teachers)} if options.teachers is not None else {}
    files = {name: digest_of(name, Path(file)) for name, file in _files(options).items()}
    with Joined(options.joined) as joined:
        work = Work(
            folder / "work.db",
            settings=[route, settings, {name: found for name, found in files.items() if name != "joined"}],
            ends=(end, feedback_end),
            log_ends=(interactions.end(route), interactions.log.end(Stream.FEEDBACK, key=route)),
            joined=joined,
        )
        try:
            Reading(work, options, fits).all(interactions, route)
            selected = select(work.db, policy, max_examples=max_examples, second=options.second)
            made = Writing(work, options, folder, owner).all(selected, route=route, settings=settings, files=files)
            work.groups.remember()
            few = len(made.train) < LEAST or len(made.validation) + len(made.test) < LEAST
            end, largest = work.tally.end, work.groups.largest() if few else 0
        finally:
            work.close()  # what was read is kept; the selection, which wasn't committed, is made anew next time
    if few:
        lineage = made.manifest
        raise NotEnoughExamples(
            f"route {route!r}: {len(made.train)} examples to train on and {len(made.validation) + len(made.test)} held "
            f"out, of {lineage.read} records; at least {LEAST} of each are needed (in {lineage.groups} groups of "
            f"conversations and near-duplicates, each on one side, the largest of {largest} distinct prompts; dropped: "
            f"{', '.join(f'{k} {v.count}' for k, v in lineage.dropped.items()) or 'none'})",
            end=end,
        )
    return made


def _files(options: Options) -> dict[str, str | Path]:
    """The files that have a say in a data set: the operator's, and as they are before this one the frozen suite and
    which groups conversations stand in."""
    policy = options.policy
    safety = policy.safety.file if policy.safety else None
    named = {"corrections": policy.corrections, "safety": safety, "held_out": options.held_out}
    kept = {"suite": options.suite, "joined": options.joined}
    named |= {name: file for name, file in kept.items() if file is not None and file.is_file()}
    return {name: file for name, file in named.items() if file is not None}


class _Owner:
    """Lives as long as somebody reads from a temporary folder."""


def _folder(wanted: Path | None) -> tuple[Path, object]:
    """Where to work, and what keeps it."""
    if wanted is not None:
        return wanted, None
    folder, owner = Path(tempfile.mkdtemp(prefix="retort-dataset-")), _Owner()
    weakref.finalize(owner, shutil.rmtree, folder, True)
    return folder, owner
