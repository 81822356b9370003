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


class _Shape(msgspec.Struct, frozen=True):
    """An event with a chunk of one text, up to that text's first character and from its last one on: most events of a
    stream are the same but for it, and need no parsing. `window`: of that text."""

    before: bytes
    after: bytes
    window: Window


_chunk = msgspec.json.Decoder(_Chunk)


class UnmaskedStream:
    """Use: `feed` with complete events, `end` once with what is left."""

    def __init__(self, originals: Originals) -> None:
        self._originals = originals
        self._windows: dict[Channel, Window] = {}
        self._like = b""  # the last chunk: what is held back goes out in one like it
        self._shape: _Shape | None = None

    def feed(self, events: bytes) -> bytes:
        """The same events, with the originals. What could still become a surrogate waits for the next ones."""
        shape = self._shape
        if shape is not None and events.startswith(shape.before) and events.endswith(shape.after):
            said = events[len(shape.before) : -len(shape.after)]
            if said and b'"' not in said and b"\\" not in said:
                window = shape.window
                if window.idle and said[-1] < 0x80 and self._originals.harmless(said):
                    window.before = chr(said[-1])
                    return events
                text = said.decode("utf-8", "replace")
                back = window.feed(text)
                return events if back == text else shape.before + msgspec.json.encode(back)[1:-1] + shape.after
        parts = list(each(events))
        return self._event(events) if len(parts) == 1 else b"".join(map(self.feed, parts))

    def end(self, rest: bytes) -> bytes:
        """The last event, where nothing ended it, and all that was held back."""
        return (self.feed(rest) if rest else b"") + self._release()

    def _event(self, event: bytes) -> bytes:
        if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
            data = event[6:-2]  # one line, as nearly all have
            before, changed = self._data(data)
            return event if changed is data and not before else before + b"data: " + changed + b"\n\n"
        lines = list(_DATA.finditer(event))
        if not lines:
            return event
        data = b"\n".join(line[0][5:].strip() for line in lines)
        before, changed = self._data(data)
        if changed is not data:
            event = event[: lines[0].start()] + b"data: " + changed + event[lines[-1].end() :]
        return before + event

    def _data(self, data: bytes) -> tuple[bytes, bytes]:
        """What must go out before an event, and what it says: the same object where nothing of it changes."""
        try:
            choices = _chunk.decode(data).choices
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            choices = []
        if choices:
            return self._choices(choices, data)
        # The end, an error, the usage, or something unknown.
        changed = data if data == _DONE else self._originals.body(data)
        return self._release(), data if changed == data else changed

    def _choices(self, choices: list[_Choice], data: bytes) -> tuple[bytes, bytes]:
        changes: list[tuple[int, _Text, str]] = []
        before = b""
        for place, choice in enumerate(choices):
            over = choice.finish_reason is not None
            texts = _texts(choice)
            for text in texts:
                window = self._windows.get(text.channel)
                if window is None:
                    window = self._windows[text.channel] = Window(self._originals)
                back = window.feed(text.said, final=over)
                if back != text.said:
                    changes.append((place, text, back))
                if len(choices) == len(texts) == 1 and not over:
                    self._shape = _shape(data, text.said, window)
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


def _shape(data: bytes, said: str, window: Window) -> _Shape | None:
    token = msgspec.json.encode(said)
    if b"\\" in data or data.count(token) != 1:  # without an escape there is one way to write a text
        return None
    before, _, after = data.partition(token)
    return _Shape(b"data: " + before + b'"', b'"' + after + b"\n\n", window)


def _changed(data: bytes, changes: list[tuple[int, _Text, str]]) -> bytes:
    chunk = json.loads(data)
    for place, text, back in changes:
        delta, name = chunk["choices"][place]["delta"], text.channel[1]
        if name == "tool_calls":
            delta[name][text.call]["function"]["arguments"] = back
        else:
            delta[name] = back
    return _encoded(chunk)


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
