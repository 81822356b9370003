"""From messages to tokens, the same for training, evaluation and serving.

The prompt's text comes from the model's own chat template and is tokenised by itself, as an engine does it; the
answer is tokenised by itself too, so that no token spans the border that generation starts at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from exporters.models.tool_text import Untellable, spelt, spelt_answer
from router import split_thinking
from router.offered import offered, uses_tools
from router.thinking import CLOSE, opens, written


class Row(msgspec.Struct, frozen=True):
    """One training example as token ids; the loss is taken on `completion` alone, its end token included, and counts
    `weight` times. `settled`: somebody has said that it is right, and no teacher has a say in it."""

    prompt: list[int]
    completion: list[int]
    weight: float = 1.0
    settled: bool = False


def plain_messages(request: Mapping[str, Any], *, tools: bool = False) -> list[dict[str, str]] | None:
    """A request's messages as {role, content} with text content, or None where they hold anything else (images, no
    user at all): a student that reads text alone can't learn from them. `tools`: whether tools are learnt, as text; see
    `exporters.models.tool_text`."""
    messages, functions = request.get("messages"), offered(request)
    if not isinstance(messages, list) or functions is None or (uses_tools(request) and not tools):
        return None
    try:
        plain = spelt(messages, functions)
    except Untellable:
        return None
    return plain if plain and plain[-1]["role"] == "user" else None


def plain_text(message: Any, *, tools: bool = False) -> str | None:
    """A message's text, its text parts joined, and with `tools` its calls; None where it has anything else."""
    if not isinstance(message, Mapping) or (message.get("tool_calls") and not tools):
        return None
    try:
        return spelt_answer(message)
    except Untellable:
        return None


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
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    answer: str,
    *,
    reasoning: str = "",
    weight: float = 1.0,
    settled: bool = False,
) -> Row:
    """One example's token ids: the templated prompt, and the answer with the end token; before it the thinking, where
    there is any. `settled`: see Row."""
    asked = prompt_text(tokenizer, messages)
    text = _completion(tokenizer, messages, asked, answer, reasoning)
    prompt, completion = (tokenizer.encode(t, add_special_tokens=False) for t in (asked, text))
    return Row(list(prompt), [*completion, tokenizer.eos_token_id], weight, settled)


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
