"""Which logged exchanges become examples, which of them belong together, and on which side of the split they fall.

Pure. A record's side never changes: groups are formed in the log's order, each record joining the earliest one that
it resembles, and a group's side is a hash of its first record's conversation. (After erasure or retention has removed
a group's first record, the next one gives the key; every cycle trains from the base, so nothing leaks by it.)
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec

from collector.record import Answer, Interaction, TokenLogprob
from retrainer.data.render import plain_messages, plain_text
from router.decision import Arm
from router.scores import Asked, asked

SIMILAR = 0.8  # Jaccard index of 5-character shingles from which two prompts are near-duplicates
PERMUTATIONS = 64
SHINGLE = 5

# What a masking scrubber would have written in place of personal data; surrogates never look like this.
PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]{2,}(?:_?[0-9a-f]+)?>")


class Side(StrEnum):
    """Where a group's examples go."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Example(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prompt ({role, content} messages ending with the user's) and the teacher's answer to it.

    `offset`: in the interaction log. `group`: records that must not be separated by a split. `asked`: what the request
    asked for besides, for scoring. `rejected`: a student's whole answer to the same, where it gave another. `logprobs`:
    the answer's tokens with the teacher's alternatives, where they were told.
    """

    id: str
    offset: int
    at: float
    cluster: str
    messages: list[dict[str, str]]
    answer: str
    group: str = ""
    asked: Asked = Asked()
    rejected: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class Kept(msgspec.Struct, frozen=True):
    """An example, or the reason (a short constant) why a record gave none."""

    example: Example | None
    reason: str | None


def example_of(record: Interaction, offset: int) -> Kept:
    """The example that one exchange gives: the teacher's answer, whoever served the user. A student's answer never
    becomes one. (Whose texts may not be kept never reaches the log.)"""
    answer = next((a for a in record.answers if a.arm is Arm.TEACHER), None)
    if answer is None:
        return Kept(None, "no_teacher_answer")
    if reason := _unusable(answer):
        return Kept(None, reason)
    messages = plain_messages(record.request)
    text = plain_text(answer.message)
    if messages is None or text is None:
        return Kept(None, "not_text")
    if not text.strip():
        return Kept(None, "empty_answer")
    if PLACEHOLDER.search(text):
        return Kept(None, "placeholder")
    example = Example(
        id=record.id,
        offset=offset,
        at=record.at,
        cluster=record.cluster,
        messages=messages,
        answer=text,
        asked=asked(record.request),
        rejected=_rejected(record, text),
        logprobs=answer.logprobs,
    )
    return Kept(example, None)


def _rejected(record: Interaction, text: str) -> str | None:
    """A student's whole answer that is not the teacher's."""
    students = (a for a in record.answers if a.arm is Arm.STUDENT and _unusable(a) is None)
    said = (plain_text(a.message) for a in students)
    return next((s for s in said if s and s != text and not PLACEHOLDER.search(s)), None)


def _unusable(answer: Answer) -> str | None:
    if answer.status != 200 or answer.error is not None:
        return "teacher_failed"
    if answer.finish_reason != "stop":
        return "unfinished"
    return None


def newest_of_each(examples: Iterable[Example]) -> tuple[list[Example], list[Example]]:
    """Of examples with the same prompt the newest answer, in the place and conversation of the first (so that its
    group stays what it was); and those that were dropped for it."""
    first: dict[bytes, Example] = {}
    newest: dict[bytes, Example] = {}
    dropped = []
    for example in examples:
        key = hashlib.sha256(msgspec.json.encode(example.messages)).digest()
        first.setdefault(key, example)
        if key in newest:
            dropped.append(newest[key])
        newest[key] = example
    return [msgspec.structs.replace(newest[k], cluster=e.cluster) for k, e in first.items()], dropped


def group(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Give each example its group: one conversation, or near-duplicates. Examples come in the log's order.

    An example that resembles groups on two sides of the split would leak from one to the other: it is returned in
    the second list and belongs to neither. MinHash estimates the Jaccard index (Broder 1997), with a standard error
    of 1/sqrt(64) at most.
    """
    from datasketch import MinHash, MinHashLSH  # noqa: PLC0415 - heavy (scipy): only a cycle pays for it

    index = MinHashLSH(threshold=SIMILAR, num_perm=PERMUTATIONS)
    groups: dict[str, str] = {}  # by example id
    conversations: dict[str, str] = {}  # by cluster
    place = {example.id: n for n, example in enumerate(examples)}
    kept, torn = [], []
    for example in examples:
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch(list(_shingles(example)))
        alike = sorted(index.query(sketch), key=place.__getitem__)
        candidates = [groups[i] for i in alike]
        if example.cluster in conversations:
            candidates.insert(0, conversations[example.cluster])
        if len({side(g) for g in candidates}) > 1:
            torn.append(example)
            continue
        chosen = candidates[0] if candidates else _key(example)
        groups[example.id] = chosen
        conversations.setdefault(example.cluster, chosen)
        index.insert(example.id, sketch)
        kept.append(msgspec.structs.replace(example, group=chosen))
    return kept, torn


def side(group_key: str) -> Side:
    """80% train, 10% validation, 10% test, by a hash of the group."""
    u = int.from_bytes(hashlib.sha256(f"split:{group_key}".encode()).digest()[:8]) / 2**64
    if u < 0.8:
        return Side.TRAIN
    return Side.VALIDATION if u < 0.9 else Side.TEST


def _key(example: Example) -> str:
    return hashlib.sha256(f"group:{example.cluster}".encode()).hexdigest()[:16]


def _shingles(example: Example) -> Iterator[bytes]:
    """The system prompt is left out: all of a route's requests share it."""
    text = "\n".join(m["content"] for m in example.messages if m["role"] != "system").casefold()
    text = " ".join(text.split())
    for start in range(max(1, len(text) - SHINGLE + 1)):
        yield text[start : start + SHINGLE].encode()
