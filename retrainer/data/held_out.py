"""What an operator brings along, as JSON lines: records to judge candidates by, safety data ({"messages": [...],
"answer": "..."}), and right answers to logged requests ({"id": "...", "answer": "..."})."""

import codecs
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
    for number, line in _read(path, what, _Line, _EXAMPLE):
        if wrong := _wrong(line.messages):
            raise CycleError(f"{what}: {path} line {number}: {wrong}; a line is {_EXAMPLE}")
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
    return {line.id: line.answer for _, line in lines}


def digest_of(what: str, path: Path) -> str:
    """sha256 of a file. Raises CycleError."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise CycleError(f"{what}: {path} can't be read: {error.strerror}") from error


def _wrong(messages: list[dict[str, str]]) -> str:
    for message in messages:
        if message.keys() != {"role", "content"} or message["role"] not in ("system", "user", "assistant"):
            return "a message has a role (system, user or assistant) and a content"
    return "" if messages and messages[-1]["role"] == "user" else "the last message is the user's"


def _read(path: Path, what: str, kind: type[T], form: str) -> list[tuple[int, T]]:
    """By their numbers; empty lines are none."""
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise CycleError(f"{what}: {path} can't be read: {error.strerror}") from error
    decoder = msgspec.json.Decoder(kind)
    found = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            found.append((number, decoder.decode(text)))
        except msgspec.MsgspecError as error:
            raise CycleError(f"{what}: {path} line {number}: {error}; a line is {form}") from error
    return found
