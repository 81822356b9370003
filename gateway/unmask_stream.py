"""A teacher's stream with the originals put back: its events go on as they came, but for the texts that change."""

import json
import re
from typing import Any

import msgspec

from gateway.sse import each
from gateway.unmask import Originals, Window

_DATA = re.compile(rb"(?:^|(?<=[\r\n]))data:[^\r\n]*")
_DONE = b"[DONE]"

Channel = tuple[int, str, int]  # the choice's index, the field, the tool call's index


class _Choice(msgspec.Struct):
    index: int = 0
    delta: dict[str, Any] | None = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


class _Text(msgspec.Struct, frozen=True):
    """A text in a delta. `call`: its place in the list of tool calls, where it is one's arguments."""

    channel: Channel
    said: str
    call: int = 0


_chunk = msgspec.json.Decoder(_Chunk)


class UnmaskedStream:
    """Use: `feed` with complete events, `end` once with what is left."""

    def __init__(self, originals: Originals) -> None:
        self._originals = originals
        self._windows: dict[Channel, Window] = {}
        self._like = b""  # the last chunk: what is held back goes out in one like it

    def feed(self, events: bytes) -> bytes:
        """The same events, with the originals. What could still become a surrogate waits for the next ones."""
        return b"".join([self._event(event) for event in each(events)])

    def end(self, rest: bytes) -> bytes:
        """The last event, where nothing ended it, and all that was held back."""
        return (self._event(rest) if rest else b"") + self._release()

    def _event(self, event: bytes) -> bytes:
        lines = list(_DATA.finditer(event))
        if not lines:
            return event
        data = b"\n".join(line[0][5:].strip() for line in lines)
        if data == _DONE:
            return self._release() + event
        try:
            choices = _chunk.decode(data).choices
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            choices = []
        if choices:
            before, changed = self._choices(choices, data)
        else:  # an error, the usage, or something unknown
            before, changed = self._release(), self._originals.body(data)
        if changed != data:
            event = event[: lines[0].start()] + b"data: " + changed + event[lines[-1].end() :]
        return before + event

    def _choices(self, choices: list[_Choice], data: bytes) -> tuple[bytes, bytes]:
        """What must go out before this chunk, and the chunk itself."""
        changes: list[tuple[int, _Text, str]] = []
        before = b""
        for place, choice in enumerate(choices):
            over = choice.finish_reason is not None
            for text in _texts(choice):
                window = self._windows.get(text.channel)
                if window is None:
                    window = self._windows[text.channel] = Window(self._originals)
                back = window.feed(text.said, final=over)
                if back != text.said:
                    changes.append((place, text, back))
            if over:
                before += self._release(choice.index)
        self._like = data
        return before, _changed(data, changes) if changes else data

    def _release(self, index: int | None = None) -> bytes:
        """What is held back, of one choice or of all, each text in a chunk of its own."""
        out = b""
        for channel, window in self._windows.items():
            if window.holds and index in (None, channel[0]):
                delta = _delta(channel, window.feed("", final=True))
                chunk = json.loads(self._like)
                chunk.pop("usage", None)
                chunk["choices"] = [{"index": channel[0], "delta": delta, "finish_reason": None}]
                out += b"data: " + _encoded(chunk) + b"\n\n"
        return out


def _texts(choice: _Choice) -> list[_Text]:
    """The texts of a delta: all that clients add up."""
    found: list[_Text] = []
    for name, value in (choice.delta or {}).items():
        if isinstance(value, str):
            if name != "role" and value:
                found.append(_Text((choice.index, name, 0), value))
        elif name == "tool_calls" and isinstance(value, list):
            for place, call in enumerate(value):
                function = call.get("function") if isinstance(call, dict) else None
                said = function.get("arguments") if isinstance(function, dict) else None
                if isinstance(said, str) and said:
                    number = call.get("index", 0)
                    found.append(_Text((choice.index, name, number if isinstance(number, int) else 0), said, place))
    return found


def _delta(channel: Channel, text: str) -> dict[str, Any]:
    _, name, number = channel
    return {name: [{"index": number, "function": {"arguments": text}}] if name == "tool_calls" else text}


def _changed(data: bytes, changes: list[tuple[int, _Text, str]]) -> bytes:
    chunk = json.loads(data)
    for place, text, back in changes:
        delta, name = chunk["choices"][place]["delta"], text.channel[1]
        if name == "tool_calls":
            delta[name][text.call]["function"]["arguments"] = back
        else:
            delta[name] = back
    return _encoded(chunk)


def _encoded(chunk: Any) -> bytes:
    return json.dumps(chunk, separators=(",", ":")).encode()
