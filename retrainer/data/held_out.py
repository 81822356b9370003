"""What an operator brings along, as JSON lines: records to judge candidates by, safety data ({"messages": [...],
"answer": "..."}), and right answers to logged requests ({"id": "...", "answer": "..."})."""

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec

from retrainer.data.curate import Example
from retrainer.errors import CycleError

T = TypeVar("T")


class _Line(msgspec.Struct):
    messages: list[dict[str, str]]
    answer: str
    id: str = ""


class _Correction(msgspec.Struct):
    id: str
    answer: str


_EXAMPLE = '{"messages": [{"role": ..., "content": ...}], "answer": "..."}'


def read_held_out(path: Path) -> list[Example]:
    """The records to judge by. Raises CycleError, which names the line that is wrong."""
    return read_examples(path, "held_out")


def read_examples(path: Path, what: str) -> list[Example]:
    """The records of a file. `what`: the setting that names it. Raises CycleError, which names the line that is
    wrong."""
    prefix = what.replace("_", "-")
    found = []
    for number, line in enumerate(_read(path, what, _Line, _EXAMPLE), start=1):
        name = line.id or f"{prefix}-{number}"
        found.append(
            Example(
                id=name,
                offset=number,
                at=0.0,
                cluster=name,
                messages=line.messages,
                answer=line.answer,
                group=name,
                corrected=what == "safety",  # an operator's word; a file to judge by may hold the teacher's
            )
        )
    if not found:
        raise CycleError(f"{what}: {path} holds no record")
    return found


def read_corrections(path: Path) -> dict[str, str]:
    """Right answers by request id; of several to one request the last counts. Raises CycleError."""
    lines = _read(path, "corrections", _Correction, '{"id": "...", "answer": "..."}')
    return {line.id: line.answer for line in lines}


def digest_of(what: str, path: Path) -> str:
    """sha256 of a file. Raises CycleError."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise CycleError(f"{what}: {path} can't be read: {error.strerror}") from error


def _read(path: Path, what: str, kind: type[T], form: str) -> list[T]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise CycleError(f"{what}: {path} can't be read: {error.strerror}") from error
    decoder = msgspec.json.Decoder(kind)
    found = []
    for number, text in enumerate(lines, start=1):
        try:
            found.append(decoder.decode(text))
        except msgspec.MsgspecError as error:
            raise CycleError(f"{what}: {path} line {number}: {error}; a line is {form}") from error
    return found
