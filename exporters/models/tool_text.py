"""Tools as text: how what a request offers, what was called and what came back stand in the plain {role, content}
messages that a student learns from, is judged on and serves, whatever its base. See docs/training.md.

    system      ... <tools> a JSON line each </tools> ...
    assistant   text, <tool_call> {"name": ..., "arguments": {...}} </tool_call>
    user        <tool_response> a result </tool_response>
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from router.thinking import overlap

FORM = "tags-1"  # what an artefact says that learnt from this; another form would have another name

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_RESULT, _RESULT_END = "<tool_response>", "</tool_response>"
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class Call(msgspec.Struct, frozen=True):
    """`arguments`: as JSON."""

    name: str
    arguments: str

    def data(self, call_id: str) -> dict[str, Any]:
        """As a message's `tool_calls` has it."""
        return {"id": call_id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Untellable(ValueError):
    """What stands in a message can't be put into text. `name`: of what is wrong, as `messages[0].role`."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} {why}")
        self.name = name


def spelt(messages: Sequence[Any], tools: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, str]]:
    """A request's messages as {role, content}. `tools`: that are offered, in OpenAI's form; they stand in the first
    system message, which is added where there is none. Raises Untellable."""
    plain: list[dict[str, str]] = []
    after_result = False
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise Untellable(f"messages[{at}]", "must be an object with role and content")
        if message.get("role") == "tool":
            result = f"{_RESULT}\n{_text(message.get('content'), at)}\n{_RESULT_END}"
            if after_result:  # of calls made together: one turn, since templates want turns to alternate
                plain[-1]["content"] += f"\n{result}"
            else:
                plain.append({"role": "user", "content": result})
            after_result = True
            continue
        after_result = False
        role = _ROLES.get(str(message.get("role")))
        if role is None:
            raise Untellable(f"messages[{at}].role", f"must be one of {', '.join((*_ROLES, 'tool'))}")
        plain.append({"role": role, "content": spelt_answer(message, at)})
    if tools:
        if not plain or plain[0]["role"] != "system":
            plain.insert(0, {"role": "system", "content": ""})
        plain[0]["content"] = "\n\n".join(filter(None, (plain[0]["content"], _offer(tools))))
    return plain


def spelt_answer(message: Mapping[str, Any], at: int = 0) -> str:
    """A message's text, followed by its calls. `at`: its place, for the error. Raises Untellable."""
    if message.get("function_call") or message.get("audio"):
        raise Untellable(f"messages[{at}]", "holds a function_call or audio; this model reads text alone")
    calls = message.get("tool_calls") or ()
    content = message.get("content")
    text = "" if content is None and calls else _text(content, at)
    return "\n".join(filter(None, (text, *(_call(call, at) for call in calls))))


def message_of(text: str) -> dict[str, Any]:
    """The assistant message that a student's text is, as the engine would serve it; its calls have no ids."""
    reader = Reader()
    parts = [*reader.feed(text), *reader.end()]
    calls = [part.data("")["function"] for part in parts if isinstance(part, Call)]
    said = "".join(part for part in parts if isinstance(part, str))
    tool_calls = {"tool_calls": [{"type": "function", "function": call} for call in calls]} if calls else {}
    return {"role": "assistant", "content": said if said or not calls else None, **tool_calls}


class Reader:
    """Tells calls from text as an answer comes. What is between the tags and no call (no JSON object with a `name` and
    an object of `arguments`) stays text; white space before and after a call is dropped."""

    def __init__(self) -> None:
        self._held = ""
        self._called = False

    def feed(self, text: str) -> list[str | Call]:
        """What is certain now: text that can be shown, and calls that are whole."""
        self._held += text
        found: list[str | Call] = []
        while (at := self._held.find(OPEN)) >= 0 and (end := self._held.find(CLOSE, at)) >= 0:
            call = _read(self._held[at + len(OPEN) : end])
            rest = self._held[end + len(CLOSE) :]
            shown = self._held[:at].rstrip() if call else self._held[: end + len(CLOSE)]
            found += self._said(shown)
            self._held = rest
            if call:
                found.append(call)
                self._called = True
        edge = at if at >= 0 else len(self._held) - overlap(self._held, OPEN)
        shown = self._held[:edge].rstrip()
        found += self._said(shown)
        self._held = self._held[len(shown) :]
        return found

    def end(self) -> list[str | Call]:
        """What was withheld: the answer is over, so it was no call."""
        held, self._held = self._held, ""
        return self._said(held.rstrip() if self._called else held)

    def _said(self, text: str) -> list[str | Call]:
        if self._called and not text.strip():
            return []
        return [text] if text else []


def _read(text: str) -> Call | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments")
    return Call(value["name"], _json(arguments)) if isinstance(arguments, dict) else None


def _call(call: Any, at: int) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Untellable(f"messages[{at}].tool_calls", "holds what is no call of a function")
    arguments = function.get("arguments")
    try:
        value = json.loads(arguments or "{}") if isinstance(arguments, str | None) else arguments
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Untellable(f"messages[{at}].tool_calls", "holds arguments that are no JSON object")
    return f"{OPEN}\n{_json({'name': function['name'], 'arguments': value})}\n{CLOSE}"


def _offer(tools: Iterable[Mapping[str, Any]]) -> str:
    listed = "\n".join(map(_described, tools))
    form = '{"name": "...", "arguments": {...}}'
    return f"Tools:\n<tools>\n{listed}\n</tools>\nA call is written as\n{OPEN}\n{form}\n{CLOSE}"


def _described(tool: Mapping[str, Any]) -> str:
    """What a student is told of a function, whatever the order of keys that a client sends or a log keeps."""
    given = tool["function"]
    function = {key: _ordered(given[key]) for key in ("name", "description", "parameters") if given.get(key)}
    return _json({"type": "function", "function": function})


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(inner) for inner in value] if isinstance(value, list) else value


def _text(content: Any, at: int) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Untellable(f"messages[{at}].content", "must be a text or a list of text parts")
    texts = [p.get("text") if isinstance(p, Mapping) and p.get("type") == "text" else None for p in content]
    if not all(isinstance(text, str) for text in texts):
        raise Untellable(f"messages[{at}].content", "holds a part that is not text; this model reads text alone")
    return "".join(map(str, texts))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
