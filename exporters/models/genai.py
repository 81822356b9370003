"""Greedy answers from an artefact through onnxruntime-genai, one after another: for evaluation and golden answers.

It is the same runtime, graph and tokenizer that the engine serves with. Its batched generator can't share a prompt's
prefix (a second `append_tokens` is refused), so single sequences that keep the common prefix in the KV cache are
faster on a task with a fixed system prompt: 0.08 s a record against 0.19 s at a batch of 16 (SmolLM2 int8, 70 tokens
a prompt of which 48 are shared, 2 cores).
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models.errors import ExportFailed

Messages = Sequence[Mapping[str, str]]
Tick = Callable[[int], None]


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """One greedy answer. `tokens`: how many were generated, the end token included. `finish_reason`: stop | length."""

    text: str
    finish_reason: str
    tokens: int


class GenAIGenerator:
    """A loaded artefact folder. `threads`: of ONNX Runtime; by default as many as this process may use processors.
    (ONNX Runtime's own choice counts physical cores: on a virtual machine that is often half of them.)"""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        import onnxruntime_genai as og  # noqa: PLC0415 - heavy: only exports and engines pay for it

        og.disable_telemetry_events()
        self._og = og
        config = og.Config(str(folder))
        threads = threads or processors()
        options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
        config.overlay(json.dumps(options))
        try:
            self._model = og.Model(config)
        except RuntimeError as error:
            raise ExportFailed(f"onnxruntime-genai can't load {folder}: {error}") from error
        self._tokenizer = og.Tokenizer(self._model)
        self._stops = {int(i) for i in self._tokenizer.eos_token_ids}

    def encode(self, messages: Messages) -> list[int]:
        """The prompt's tokens, up to where the answer begins."""
        text = self._tokenizer.apply_chat_template(json.dumps(list(messages)), add_generation_prompt=True)
        return [int(i) for i in self._tokenizer.encode(text)]

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
    ) -> list[Generated]:
        """Greedy answers in the prompts' order; `tick(done)` is called after each.

        `drafts`: guesses of the answers, for example those of the unquantized student. A draft is checked in one pass
        together with its prompt; what is returned is the model's own greedy answer, whether the guess was right or
        not, only sooner where it was (speculative decoding with a given draft).
        """
        encoded = [self.encode(m) for m in prompts]
        sequence = _Sequence(
            self._og, self._model, self._stops, max(map(len, encoded), default=1) + 2 * max_new_tokens + 1
        )
        answers: dict[int, Generated] = {}
        # In token order, neighbours share the longest prefixes.
        for done, i in enumerate(sorted(range(len(encoded)), key=encoded.__getitem__), start=1):
            draft = [] if drafts is None else self._draft(drafts[i])[:max_new_tokens]
            tokens, stopped = sequence.answer(encoded[i], draft, max_new_tokens)
            answers[i] = Generated(
                text=str(self._tokenizer.decode(self._array(tokens))) if tokens else "",
                finish_reason="stop" if stopped else "length",
                tokens=len(tokens) + stopped,
            )
            if tick:
                tick(done)
        return [answers[i] for i in range(len(encoded))]

    def _draft(self, text: str) -> list[int]:
        return [int(i) for i in self._tokenizer.encode(text)] + [min(self._stops)]

    def _array(self, tokens: Sequence[int]) -> Any:
        import numpy as np  # noqa: PLC0415 - onnxruntime-genai takes arrays

        return np.asarray(tokens, dtype=np.int32)


def processors() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Sequence:
    """One sequence of tokens with its KV cache, rewound to what the next prompt shares with it."""

    def __init__(self, og: Any, model: Any, stops: set[int], max_length: int) -> None:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=max_length, do_sample=False)
        self._generator = og.Generator(model, parameters)
        self._stops = stops
        self._tokens: list[int] = []

    def answer(self, prompt: list[int], draft: list[int], most: int) -> tuple[list[int], bool]:
        """The answer's tokens without the end token, and whether the end token came."""
        shared = 0
        while shared < min(len(prompt) - 1, len(self._tokens)) and prompt[shared] == self._tokens[shared]:
            shared += 1
        self._rewind(shared)
        if not draft:
            self._append(prompt[shared:])
            return self._decode([], most)
        self._append(prompt[shared:] + draft)
        choices = self._choices(len(prompt) - shared - 1)
        if choices is None:  # a graph that keeps the last position's logits only: nothing to check a draft with
            self._rewind(len(prompt) - 1)
            self._append(prompt[-1:])
            return self._decode([], most)
        right = 0
        while right < len(draft) and draft[right] == choices[right]:
            right += 1
        if right == len(draft):
            return (draft[:-1], True) if draft[-1] in self._stops else (draft, False)
        answer = [*draft[:right], choices[right]]
        if choices[right] in self._stops:
            return answer[:-1], True
        if len(answer) >= most:
            return answer, False
        self._rewind(len(prompt) + right)
        self._append([choices[right]])
        return self._decode(answer, most)

    def _decode(self, answer: list[int], most: int) -> tuple[list[int], bool]:
        while len(answer) < most:
            self._generator.generate_next_token()
            token = int(self._generator.get_next_tokens()[0])
            self._tokens.append(token)
            if token in self._stops:
                return answer, True
            answer.append(token)
        return answer, False

    def _choices(self, first: int) -> list[int] | None:
        """The greedy choice after each appended token from `first` on; logits are [1, appended, vocabulary]."""
        import numpy as np  # noqa: PLC0415 - onnxruntime-genai gives arrays

        logits = np.asarray(self._generator.get_output("logits"))
        if logits.shape[1] <= first:
            return None
        return [int(i) for i in logits[0, first:].argmax(axis=-1)]

    def _append(self, tokens: list[int]) -> None:
        import numpy as np  # noqa: PLC0415 - onnxruntime-genai takes arrays

        self._generator.append_tokens(np.asarray([tokens], dtype=np.int32))
        self._tokens += tokens

    def _rewind(self, length: int) -> None:
        if length < len(self._tokens):
            self._generator.rewind_to(length)
            del self._tokens[length:]
