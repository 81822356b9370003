"""Records that an operator sets aside for judging candidates: JSON lines of {"messages": [...], "answer": "..."}."""

from pathlib import Path

import msgspec

from retrainer.data.curate import Example
from retrainer.errors import CycleError


class _Line(msgspec.Struct):
    messages: list[dict[str, str]]
    answer: str
    id: str = ""


def read_held_out(path: Path) -> list[Example]:
    """The records of a file. Raises CycleError, which names the line that is wrong."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise CycleError(f"held_out: {path} can't be read: {error.strerror}") from error
    decoder = msgspec.json.Decoder(_Line)
    found = []
    for number, text in enumerate(lines, start=1):
        try:
            line = decoder.decode(text)
        except msgspec.MsgspecError as error:
            raise CycleError(
                f'held_out: {path} line {number}: {error}; a line is {{"messages": [{{"role": ..., "content": ...}}], '
                '"answer": "..."}'
            ) from error
        name = line.id or f"held-out-{number}"
        found.append(
            Example(
                id=name, offset=number, at=0.0, cluster=name, messages=line.messages, answer=line.answer, group=name
            )
        )
    if not found:
        raise CycleError(f"held_out: {path} holds no record")
    return found
