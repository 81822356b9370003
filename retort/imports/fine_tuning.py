"""OpenAI's fine-tuning files: a line is {"messages": [...], "tools"?: [...]}.

As in training there, every assistant message is an answer to what stands before it, unless its weight is 0.
"""

from collections.abc import Mapping
from typing import Any

from retort.imports.foreign import Foreign, Unusable, consent_of, messages_of, parameters_of


def is_one(record: Mapping[str, Any]) -> bool:
    """Whether a record looks like it."""
    return "messages" in record


def read(record: Mapping[str, Any]) -> list[Foreign]:
    """One exchange for each answer. Raises Unusable."""
    messages = messages_of(record.get("messages"))
    answers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    weighty = [n for n in answers if messages[n].get("weight") != 0]
    if not weighty:
        raise Unusable("weight_0" if answers else "no_answer")
    if weighty == [0]:
        raise Unusable("no_messages")
    plain = [{name: value for name, value in message.items() if name != "weight"} for message in messages]
    parameters, consent = parameters_of(record), consent_of(record.get("metadata"))
    return [
        Foreign(messages=plain[:n], answer=plain[n], parameters=parameters, consent=consent) for n in weighty if n > 0
    ]
