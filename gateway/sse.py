"""Server-sent events of a chat stream: is there a real chunk yet, is it over, and what must not reach the client."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec

_DONE_TEXT = b"[DONE]"
_MARKERS = (b"data: [DONE]", b"data:[DONE]")
_TAIL_BYTES = 4096
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")
_CONTENT = re.compile(rb'"delta"\s*:\s*\{[^{}]*"content"\s*:\s*"[^"]')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_ERROR = re.compile(rb'(?:^|[\r\n])(?:data:\s*\{\s*"error"\s*:\s*[^n\s]|event:\s*error\b)')

CONFIDENCE_HEADER = "x-retort-confidence"
_CONFIDENCE = b": retort-confidence"


class Opening(StrEnum):
    """What a stream's beginning amounts to."""

    WAITING = "waiting"  # comments, a role, nothing that a user could see
    REAL = "real"
    ERROR = "error"
    DONE = "done"  # over, with nothing in it


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct):
    error: Any = None
    choices: list[_Choice] = []


_chunk = msgspec.json.Decoder(_Chunk)


def opening(events: bytes) -> Opening:
    """Judge a stream's beginning, given as complete events.

    A role without content, an empty list of choices and comments are no real chunk: after them a failure can still be
    rescued. What can't be read is taken for real, and passed on.
    """
    if b"error" not in events and _CONTENT.search(events):
        return Opening.REAL  # as nearly all are; the rest is for what begins otherwise
    at = 0
    for end in _END.finditer(events):
        found = _judge(events[at : end.start()])
        if found is not Opening.WAITING:
            return found
        at = end.end()
    return Opening.WAITING


def _judge(event: bytes) -> Opening:
    data: list[bytes] = []
    for line in _LINE.split(event):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event" and value.strip() == b"error":
            return Opening.ERROR
    if not data:
        return Opening.WAITING
    text = b"\n".join(data)
    if text.strip() == _DONE_TEXT:
        return Opening.DONE
    try:
        chunk = _chunk.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return Opening.REAL
    if chunk.error:
        return Opening.ERROR
    for choice in chunk.choices:
        delta = choice.delta or {}
        if choice.finish_reason is not None or any(value for key, value in delta.items() if key != "role"):
            return Opening.REAL
    return Opening.WAITING


class Ending:
    """Keeps the last bytes of a stream, to say at its end whether it was whole."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes."""
        self._tail = (self._tail + piece)[-_TAIL_BYTES:] if len(piece) < _TAIL_BYTES else piece[-_TAIL_BYTES:]

    @property
    def done(self) -> bool:
        """Whether the end marker has come."""
        tail = self._tail.rstrip()
        for marker in _MARKERS:
            if tail.endswith(marker):
                # JSON escapes its line ends, so at a line's beginning the marker is no part of an answer's text.
                return tail[: -len(marker)][-1:] in (b"\n", b"\r", b"")
        return False

    @property
    def whole(self) -> bool:
        """Whether the answer was complete: the end marker came, or, as some servers leave it out, a finish reason."""
        return self.done or _FINISHED.search(self._tail) is not None

    @property
    def told(self) -> bool:
        """Whether the upstream itself has sent an error event lately."""
        return b"error" in self._tail and _ERROR.search(self._tail) is not None


def complete(data: bytes) -> int:
    """How many bytes of `data` are complete events; what follows belongs to one whose end has not come."""
    if data.endswith(b"\n\n"):
        return len(data)
    end = data.rfind(b"\n\n") + 2
    if b"\r" in data:
        end = max((found.end() for found in _END.finditer(data)), default=0)
    return end if end > 1 else 0


def each(events: bytes) -> Iterator[bytes]:
    """The events one by one, each with what ends it; last, what no end has come of."""
    at = 0
    if b"\r" in events:
        for end in _END.finditer(events):
            yield events[at : end.end()]
            at = end.end()
    else:  # as nearly all are
        while (place := events.find(b"\n\n", at)) >= 0:
            yield events[at : place + 2]
            at = place + 2
    if at < len(events):
        yield events[at:]


class ConfidenceFilter:
    """Takes the engine's confidence comment (`: retort-confidence 0.97` and a blank line) out of a student's stream."""

    def __init__(self) -> None:
        self._held = b""
        self._line_start = True
        self._swallow = False
        self.confidence: float | None = None

    def feed(self, piece: bytes) -> bytes:
        """The bytes that may go on. A line's beginning that could become the comment is held back;
        where the stream ends there, nothing is lost: only a comment's beginning can be held."""
        if not self._held and not self._swallow and b":" not in piece[:1] and b"\n:" not in piece:
            self._line_start = piece.endswith(b"\n") if piece else self._line_start
            return piece
        data = self._held + piece
        self._held = b""
        out: list[bytes] = []
        at = 0
        while at < len(data):
            if self._swallow:
                self._swallow = False
                if data[at : at + 1] == b"\n":
                    at += 1
                    continue
            if self._line_start and _CONFIDENCE.startswith(data[at : at + len(_CONFIDENCE)]):
                end = data.find(b"\n", at)
                if end < 0:
                    self._held = data[at:]
                    break
                self._read(data[at + len(_CONFIDENCE) : end])
                self._swallow = True
                at = end + 1
                continue
            end = data.find(b"\n", at)
            until = len(data) if end < 0 else end + 1
            out.append(data[at:until])
            self._line_start = end >= 0
            at = until
        return b"".join(out)

    def _read(self, value: bytes) -> None:
        self.confidence = confidence(value)


def confidence(value: str | bytes | None) -> float | None:
    """A confidence as the engine writes it, in [0, 1]; None for anything else."""
    try:
        number = float(value) if value else None
    except ValueError:
        return None
    return number if number is not None and 0.0 <= number <= 1.0 else None
