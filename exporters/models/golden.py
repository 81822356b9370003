"""Golden answers: a few prompts with the greedy answers recorded at export, which an engine must reproduce."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from exporters.models.genai import Generated, Messages


class _Generator(Protocol):
    def generate(self, prompts: Sequence[Messages], *, max_new_tokens: int) -> list[Generated]: ...


def record(
    generator: _Generator,
    prompts: Sequence[Messages],
    *,
    max_new_tokens: int,
    base: Mapping[int, str],
    most: int = 4,
) -> list[dict[str, Any]]:
    """At most `most` golden entries {messages, answer, max_tokens, finish_reason, base_answer, logprobs}.

    `logprobs`: of the answer's tokens, natural, the end token's too; empty where the student tells none. `base`: what
    the untrained base answers to a prompt, by its index. The first entries are prompts where the exported student
    differs from the base: an engine that loaded the wrong weights fails them. Prompts that repeat each other's answer
    come last, so that the few entries cover several answers.
    """
    answers = generator.generate(prompts, max_new_tokens=max_new_tokens)
    seen: set[str] = set()
    ranked = []
    for i, answer in enumerate(answers):
        ranked.append((base.get(i) == answer.text, answer.text in seen, i))
        seen.add(answer.text)
    return [
        {
            "messages": [dict(m) for m in prompts[i]],
            "answer": answers[i].text,
            "max_tokens": max_new_tokens,
            "finish_reason": answers[i].finish_reason,
            "base_answer": base.get(i),
            "logprobs": [round(logprob, 5) for logprob in answers[i].logprobs],
        }
        for _, _, i in sorted(ranked)[:most]
    ]
