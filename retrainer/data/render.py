"""From messages to tokens, the same for training, evaluation and serving.

The prompt's text comes from the model's own chat template and is tokenised by itself, as an engine does it; the
answer is tokenised by itself too, so that no token spans the border that generation starts at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from router import split_thinking
from router.thinking import CLOSE, opens, written

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class Row(msgspec.Struct, frozen=True):
    """One training example as token ids; the loss is taken on `completion` alone, its end token included, and counts
    `weight` times."""

    prompt: list[int]
    completion: list[int]
    weight: float = 1.0


def plain_messages(request: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """A request's messages as {role, content} with text content, or None where they hold anything else (tools,
    images, no user at all): a student that reads text alone can't learn from them."""
    messages = request.get("messages")
    if not isinstance(messages, list) or request.get("tools") or request.get("functions"):
        return None
    plain = []
    for message in messages:
        text = plain_text(message)
        role = _ROLES.get(str(message.get("role"))) if isinstance(message, Mapping) else None
        if text is None or role is None:
            return None
        plain.append({"role": role, "content": text})
    if not plain or plain[-1]["role"] != "user":
        return None
    return plain


def plain_text(message: Any) -> str | None:
    """A message's text, its text parts joined; None where it has any other content or calls a tool."""
    if not isinstance(message, Mapping) or message.get("tool_calls") or message.get("function_call"):
        return None
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [p.get("text") if isinstance(p, Mapping) and p.get("type") == "text" else None for p in content]
    if any(not isinstance(p, str) for p in parts):
        return None
    return "".join(p for p in parts if isinstance(p, str))


def prompt_text(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """The prompt in the model's template, up to where the answer begins."""
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def prompt_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The prompt's token ids, up to where the answer begins."""
    return list(tokenizer.encode(prompt_text(tokenizer, messages), add_special_tokens=False))


def opens_thinking(tokenizer: Any) -> bool:
    """Whether the model's template itself opens the thinking before each answer."""
    return opens(prompt_text(tokenizer, [{"role": "user", "content": "Hello."}]))


def render(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], answer: str, *, reasoning: str = "", weight: float = 1.0
) -> Row:
    """One example's token ids: the templated prompt, and the answer with the end token; before it the thinking, where
    there is any."""
    asked = prompt_text(tokenizer, messages)
    text = _completion(tokenizer, messages, asked, answer, reasoning)
    prompt, completion = (tokenizer.encode(t, add_special_tokens=False) for t in (asked, text))
    return Row(list(prompt), [*completion, tokenizer.eos_token_id], weight)


def _completion(tokenizer: Any, messages: Sequence[Mapping[str, str]], asked: str, answer: str, reasoning: str) -> str:
    """Thinking and answer as the model's template writes them where it knows of thinking, else as `written` does."""
    if opens(asked):  # what is opened must be closed, or it would never come to an answer
        return f"{reasoning}\n{CLOSE}\n\n{answer}"
    if not reasoning:
        return answer
    said = {"role": "assistant", "content": answer, "reasoning_content": reasoning}
    whole = tokenizer.apply_chat_template([*messages, said], tokenize=False)
    told = whole.removeprefix(asked).rpartition(tokenizer.eos_token)[0]
    if whole.startswith(asked) and split_thinking(told) == (reasoning, answer):
        return str(told)
    return written(reasoning, answer)


def common_prefix(rows: Sequence[list[int]]) -> int:
    """How many leading tokens all rows share; at least one token of each is left out of it."""
    first, last = min(rows), max(rows)  # in lexicographic order the extremes share the least
    most = min(map(len, rows)) - 1
    shared = 0
    while shared < most and first[shared] == last[shared]:
        shared += 1
    return shared
