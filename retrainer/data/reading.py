"""The log, read once and in order, into a build's work file."""

import hashlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import msgspec

from collector.interactions import Interactions
from collector.record import Interaction
from retrainer.data.curate import Example, Kept, example_of
from retrainer.data.filters import Filters, Fits
from retrainer.data.frames import Frames
from retrainer.data.groups import Place, side
from retrainer.data.held_out import read_corrections
from retrainer.data.meanings import Meanings, Vectors
from retrainer.data.minhash import sketch
from retrainer.data.options import Options
from retrainer.data.render import plain_text
from retrainer.data.suite import guards
from retrainer.data.weights import chance, inverse
from retrainer.data.work import Work
from retrainer.errors import CycleError
from retrainer.progress import Meter
from router.scores import answer_text

Messages = list[dict[str, str]]

PAGE = 100  # records that are read together
COMMIT = 200  # pages


class Reading:
    """One reading, which may go on with an earlier one."""

    def __init__(self, work: Work, options: Options, fits: Fits) -> None:
        policy = options.policy
        self._work, self._options = work, options
        self._filters = Filters(policy, fits)
        self._corrections = read_corrections(Path(policy.corrections)) if policy.corrections else {}
        if self._corrections:
            work.tally.corrections = {"found": 0, **work.tally.corrections, "given": len(self._corrections)}
        self._frames = Frames(work.tally.frames)
        self._guards = guards(options.suite, options.held_out, self._frames)
        self._meanings: Meanings | None = None
        if policy.semantic is not None:
            if options.encode is None:
                raise CycleError("retrain.data.semantic needs an encoder")
            self._meanings = Meanings(work.db, options.encode, policy.semantic)

    def all(self, interactions: Interactions, route: str) -> None:
        """Read to the end. Raises what the log raises."""
        self._right_answers(interactions, route)
        tally = self._work.tally
        records = interactions.of(route, start=tally.next, end=tally.end)
        meter: Meter | None = None
        pages = 0
        while page := list(islice(records, PAGE)):
            if tally.read == 0:
                tally.first = page[0][0]
            meter = meter or Meter(
                self._options.progress, "dataset", tally.end - tally.first, done=max(0, tally.next - tally.first)
            )
            self._page(page)
            tally.next = page[-1][0] + 1
            pages += 1
            if pages % COMMIT == 0:
                self._work.commit()
            meter(tally.next - tally.first)
        self._work.commit()

    def _right_answers(self, interactions: Interactions, route: str) -> None:
        """What clients reported comes later than what it is about, so it is read first."""
        tally = self._work.tally
        for offset, right in interactions.right_answers(route, start=tally.feedback_next, end=tally.feedback_end):
            self._work.right.take(right)
            tally.feedback_next = offset + 1
        self._work.commit()

    def _page(self, page: Sequence[tuple[int, Interaction]]) -> None:
        tally = self._work.tally
        found: list[tuple[Interaction, int, Kept]] = []
        reported = {name: plain_text(said) or "" for name, said in self._work.right.of([r.id for _, r in page]).items()}
        keeps = self._options.policy.reasoning == "keep"
        for offset, record in page:
            tally.read += 1
            if record.id in self._corrections:
                tally.corrections["found"] += 1
            if record.answers and record.answers[0].status == 200 and not record.source:
                tally.production.add(answer_text(record.answers[0].message))
            kept = example_of(
                record,
                offset,
                correction=self._corrections.get(record.id, reported.get(record.id)),
                keep_reasoning=keeps,
                tools=self._options.tools,
                teachers=self._options.teachers,
                unserved=self._options.unserved,
            )
            found.append((record, offset, kept))
        if len(page) == PAGE:
            self._frames.learn({r.cluster: kept.messages for r, _, kept in found if kept.messages is not None})
        vectors = self._vectors([kept.messages for _, _, kept in found if kept.messages is not None])
        for record, offset, kept in found:
            if kept.messages is None:
                tally.drop(kept.reason or "", record.id, offset, part=None)
                continue
            # What is left out takes part in the grouping, and so does what has no answer yet that could be learnt:
            # nothing that is set, or told later, may move a record to another side.
            key = _key(kept.messages)
            place, kept_out = self._place(key, kept.messages, record.cluster, vectors.get(key))
            part = side(place.group)
            if kept.example is None or (reason := self._filters.reason(kept, part)):
                tally.drop(kept.reason or reason or "", record.id, offset, part=part)
            else:
                self._keep(record, kept.example, place, key, kept_out=kept_out)

    def _place(self, key: bytes, messages: Messages, cluster: str, vector: Vectors | None) -> tuple[Place, str]:
        """Where a prompt stands, and to what that is too near to be learnt from, "" to nothing."""
        groups = self._work.groups
        place = groups.known(key)
        if place is not None:
            groups.again(place, key, cluster)
            if not self._guards:
                return place, ""
        found = sketch(self._frames.text(messages))
        if place is None:
            alike = self._meanings.near(vector) if self._meanings and vector is not None else ()
            place = groups.place(key, cluster, found, near=alike)
            if self._meanings and vector is not None:
                self._meanings.add(place.seq, vector, index=not place.torn)
        return place, next((reason for reason, guard in self._guards.items() if guard.near(found)), "")

    def _keep(self, record: Interaction, example: Example, place: Place, key: bytes, *, kept_out: str) -> None:
        tally = self._work.tally
        tally.scrubbers[record.scrubber] = tally.scrubbers.get(record.scrubber, 0) + 1
        self._work.put(
            example,
            place,
            # What is corrected is there whoever answered it.
            weight=1.0 if example.corrected else inverse(chance(record), self._options.policy.propensity_clip),
            corrected=example.corrected,
            kept_out=kept_out,
            draw=key,
        )

    def _vectors(self, prompts: Sequence[Messages]) -> dict[bytes, Vectors]:
        """By prompt, of those that aren't known yet."""
        if self._meanings is None:
            return {}
        new = {key: messages for messages in prompts if self._work.groups.known(key := _key(messages)) is None}
        if not new:
            return {}
        encoded = self._meanings.encode([self._frames.text(messages) for messages in new.values()])
        return dict(zip(new, encoded, strict=True))


def _key(messages: Messages) -> bytes:
    """A prompt's digest [16 bytes]."""
    return hashlib.sha256(msgspec.json.encode(messages)).digest()[:16]
