"""From a build's work file to the data set's files and its manifest."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from retrainer.data.curate import SIMILAR, Example, Side
from retrainer.data.frames import Frames
from retrainer.data.held_out import read_examples
from retrainer.data.labels import Labels, shift
from retrainer.data.minhash import Sketch, sketch
from retrainer.data.options import Options
from retrainer.data.secrets import planted_in
from retrainer.data.selection import Selected
from retrainer.data.stored import Dataset, DatasetManifest, Lines, digest
from retrainer.data.suite import Guard, guards
from retrainer.data.work import Work
from router.policy_data import SafetyPolicy

LEAST = 8  # examples on the training side and in the held-out part, under which nothing can be learnt or measured
_KEPT = "FROM examples WHERE dropped IS NULL"


class Writing:
    """One data set, in the folder of its build. `owner`: what keeps that folder."""

    def __init__(self, work: Work, options: Options, folder: Path, owner: object) -> None:
        self._work, self._options, self._folder, self._owner = work, options, folder, owner
        self._made = {part: Labels() for part in Side}
        self._newest_from = self._newest_offset()
        self._newest = 0
        self._upstreams: Counter[str] = Counter()

    def all(self, selected: Selected, *, route: str, settings: dict[str, Any], files: dict[str, str]) -> Dataset:
        """Write what was selected. Raises CycleError."""
        added: dict[str, int] = {}
        learnt, measured = self._weights("side = 'train'"), self._weights("side != 'train'")
        for part in Side:
            mean = (learnt if part is Side.TRAIN else measured).get("mean", 1.0)
            with (self._folder / f"{part.value}.jsonl").open("wb") as file:
                count = 0
                for example in self._examples(part, mean):
                    file.write(msgspec.json.encode(example) + b"\n")
                    count += 1
                if part is Side.TRAIN and self._options.policy.safety is not None:
                    for example in self._safety(self._options.policy.safety, count):
                        file.write(msgspec.json.encode(example) + b"\n")
                        added["safety"] = added.get("safety", 0) + 1
        parts = {part: Lines(self._folder / f"{part.value}.jsonl", owner=self._owner) for part in Side}
        tally, labels = self._work.tally, self._made
        manifest = DatasetManifest(
            route=route,
            digest=digest(parts),
            first=tally.first,
            end=tally.end,
            read=tally.read,
            counts={part.value: len(parts[part]) - (part is Side.TRAIN) * added.get("safety", 0) for part in Side},
            groups=self._one(f"SELECT count(DISTINCT grp) {_KEPT}"),
            dropped=self._work.dropped(),
            upstreams=dict(sorted(self._upstreams.items())),
            scrubbers=dict(sorted(tally.scrubbers.items())),
            similar=SIMILAR,
            settings=settings,
            files=files,
            newest_from=self._newest_from,
            newest=self._newest,
            replayed=selected.replayed,
            corrected=self._one(f"SELECT count(*) {_KEPT} AND corrected"),
            corrections=tally.corrections,
            imported=self._one(f"SELECT count(*) {_KEPT} AND imported"),
            feedback_end=tally.feedback_end,
            added=added,
            labels={part.value: shift(tally.production, labels[part]) for part in Side},
            consistency=selected.consistency,
            weights={**learnt, **{f"held_out_{name}": value for name, value in measured.items()}},
        )
        return Dataset(
            train=parts[Side.TRAIN], validation=parts[Side.VALIDATION], test=parts[Side.TEST], manifest=manifest
        )

    def _examples(self, part: Side, mean: float) -> Any:
        """A side's examples; those to train on weigh 1 in the mean, and so do those to measure with."""
        for kept, raw in self._work.chosen(part):
            example = msgspec.structs.replace(kept, weight=round(raw / mean, 6))
            if part is not Side.TRAIN and not example.imported and example.offset >= self._newest_from:
                self._newest += 1
            if not example.corrected:
                self._upstreams[example.teacher or "?"] += 1
            self._made[part].add(example.answer, example.weight)
            yield example

    def _newest_offset(self) -> int:
        """From where the newest share of the chosen examples of this gateway's own traffic begins."""
        own = self._one(f"SELECT count(*) {_KEPT} AND NOT imported")
        skipped = own - round(self._options.policy.newest * own)
        query = f"SELECT log_offset {_KEPT} AND NOT imported ORDER BY log_offset LIMIT 1 OFFSET ?"
        found = self._work.db.execute(query, (skipped,)).fetchone()
        return self._work.tally.end if found is None else int(found[0])

    def _weights(self, part: str) -> dict[str, float]:
        """Of the examples there: the raw mean, the least and the greatest weight, and Kish's effective share of the
        examples, (sum w)^2 / (n sum w^2)."""
        query = f"SELECT count(*), sum(weight), sum(weight * weight), min(weight), max(weight) {_KEPT} AND {part}"
        count, total, squares, least, most = self._work.db.execute(query).fetchone()
        if not count:
            return {}
        mean = total / count
        effective = total * total / (count * squares)
        found = {"mean": mean, "least": least / mean, "most": most / mean, "effective": effective}
        return {name: round(value, 6) for name, value in found.items()}

    def _safety(self, policy: SafetyPolicy, count: int) -> list[Example]:
        """So many that they are that share of all; none that is near to what is measured with, or holds a secret."""
        wanted = int(count * policy.share / (1.0 - policy.share))
        frames = Frames(self._work.tally.frames)
        apart = guards(self._options.suite, self._options.held_out, frames).values()
        given = read_examples(Path(policy.file), "safety")
        drawn = sorted(given, key=lambda e: hashlib.sha256(msgspec.json.encode([e.messages, e.answer])).digest())
        taken = (e for e in drawn if self._is_apart(e, sketch(frames.text(e.messages)), apart))
        return list(itertools.islice(filter(self._is_safe, taken), wanted))

    def _is_safe(self, example: Example) -> bool:
        """The operator's own answers go by the route's filter, too."""
        if self._options.policy.secrets == "keep" or not planted_in(example):
            return True
        self._work.tally.drop("secret", example.id, example.offset, part=Side.TRAIN)
        return False

    def _is_apart(self, example: Example, found: Sketch, apart: Collection[Guard]) -> bool:
        if not any(guard.near(found) for guard in apart) and self._work.groups.sides(found) <= {Side.TRAIN}:
            return True
        self._work.tally.drop("near_measured", example.id, example.offset, part=Side.TRAIN)
        return False

    def _one(self, query: str) -> int:
        return int(self._work.db.execute(query).fetchone()[0])
