"""Whether a chat template renders what a route asks and answers, so that a student learns what it will be asked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrainer.errors import BaseModelError
from router import split_thinking

_SYSTEM = {"role": "system", "content": "Answer in one word."}
_USER = {"role": "user", "content": "Which colour is the sky?"}
_ANSWER = {"role": "assistant", "content": "Blue."}


def check_template(folder: Path) -> list[str]:
    """Render conversations with the template of `folder`; returns what an operator should know.

    Raises BaseModelError where there is none, where it can't render a question, or where the text up to an answer isn't
    the same with and without it: the student would be asked in other words than it learnt from.
    """
    template, special = _read(folder)
    try:
        asked = _render(template, [_USER], special, asking=True)
    except Exception as error:  # whatever a template's own code raises
        raise BaseModelError(f"{folder.name}: its chat template can't render a question: {error}") from error
    if _USER["content"] not in asked:
        raise BaseModelError(f"{folder.name}: its chat template leaves the user's words out")
    notes = []
    answered = _render(template, [_USER, _ANSWER], special, asking=False)
    thought, told = split_thinking(answered.removeprefix(asked))
    if not answered.startswith(asked) or (not thought and told != answered.removeprefix(asked)):
        notes.append("writes more before an answer than it asks with (a thinking block): answers are learnt without it")
    elif thought or not told.lstrip().startswith(_ANSWER["content"]):
        raise BaseModelError(f"{folder.name}: its chat template doesn't end a question where the answer begins")
    try:
        if _SYSTEM["content"] not in _render(template, [_SYSTEM, _USER], special, asking=True):
            raise BaseModelError(f"{folder.name}: its chat template leaves the system message out")
    except BaseModelError:
        raise
    except Exception as error:  # whatever a template's own code raises
        notes.append(f"takes no system message ({error}): only for routes whose requests have none")
    if "strftime_now" in template:
        notes.append("writes the day's date into each question: the student learns with those of its training")
    return [f"the chat template {note}" for note in notes]


def _read(folder: Path) -> tuple[str, dict[str, str]]:
    """The template and the special tokens that it may name. Raises BaseModelError."""
    try:
        told = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{folder}: its tokenizer_config.json can't be read: {error}") from error
    own = folder / "chat_template.jinja"
    template = own.read_text("utf-8") if own.is_file() else told.get("chat_template")
    if isinstance(template, list):  # named ones
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    if not template:
        raise BaseModelError(f"{folder.name} has no chat template: a chat student needs an instruction-tuned base")
    tokens = {key: value.get("content") if isinstance(value, dict) else value for key, value in told.items()}
    return str(template), {k: v or "" for k, v in tokens.items() if k in ("bos_token", "eos_token", "pad_token")}


def _render(template: str, messages: Sequence[Mapping[str, Any]], special: Mapping[str, str], *, asking: bool) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415 - heavy

    rendered, _ = render_jinja_template(
        conversations=[list(messages)], chat_template=template, add_generation_prompt=asking, **special
    )
    return str(rendered[0])
