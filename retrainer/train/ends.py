"""Where a causal model's answers end."""

from typing import Any


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """At which tokens an answer ends, as transformers and the exported student have it: those of
    generation_config.json, or without any of config.json; and the tokenizer's own, which students learn to say."""
    told = model.generation_config.eos_token_id
    told = model.config.get_text_config().eos_token_id if told is None else told
    ends = {*(told if isinstance(told, list) else [told]), tokenizer.eos_token_id}
    return {int(end) for end in ends if end is not None}
