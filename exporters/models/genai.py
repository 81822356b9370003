"""Greedy answers from an artefact through onnxruntime-genai, one after another: for evaluation and golden answers.

It is the same runtime, graph and tokenizer that the engine serves with. Its batched generator can't share a prompt's
prefix (a second `append_tokens` is refused), so single sequences that keep the common prefix in the KV cache are
faster on a task with a fixed system prompt: 0.08 s a record against 0.19 s at a batch of 16 (SmolLM2 int8, 70 tokens
a prompt of which 48 are shared, 2 cores).

A sequence is read as the engine reads it when it serves: never one token alone, since on a CPU such a pass runs another
matrix kernel, whose logits differ; where there is no guess of the next token, any token stands in for one. So what is
evaluated is what users get.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models.errors import ExportFailed
from router import split_thinking
from router.thinking import opens

Messages = Sequence[Mapping[str, str]]
Tick = Callable[[int], None]


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """One greedy answer. `tokens`: how many were generated, the end token included. `finish_reason`: stop | length.
    `logprobs`: each token's natural log probability, the end token's too; empty where the model doesn't tell them.
    `reasoning`: what was thought before the text; tokens and logprobs are of both."""

    text: str
    finish_reason: str
    tokens: int
    logprobs: tuple[float, ...] = ()
    reasoning: str = ""


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
        self._opened = opens(self._prompt([{"role": "user", "content": "Hello."}]))

    def encode(self, messages: Messages) -> list[int]:
        """The prompt's tokens, up to where the answer begins."""
        return [int(i) for i in self._tokenizer.encode(self._prompt(messages))]

    def _prompt(self, messages: Messages) -> str:
        return str(self._tokenizer.apply_chat_template(json.dumps(list(messages)), add_generation_prompt=True))

    def length(self, answer: str) -> int:
        """How many tokens an answer takes, without the end token."""
        return len(self._tokenizer.encode(answer))

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
        stepwise: bool = False,
    ) -> list[Generated]:
        """Greedy answers in the prompts' order; `tick(done)` is called after each.

        `drafts`: guesses of the answers, for example those of the unquantized student. A draft is checked in one pass
        together with its prompt; what is returned is the model's own greedy answer, whether the guess was right or
        not, only sooner where it was (speculative decoding with a given draft). `stepwise`: one token a pass, as the
        engine answers golden prompts.
        """
        encoded = [self.encode(m) for m in prompts]
        sequence = _Sequence(
            self._og,
            self._model,
            self._stops,
            max(map(len, encoded), default=1) + 2 * max_new_tokens + 1,
            stepwise=stepwise,
        )
        answers: dict[int, Generated] = {}
        # In token order, neighbours share the longest prefixes.
        for done, i in enumerate(sorted(range(len(encoded)), key=encoded.__getitem__), start=1):
            draft = [] if drafts is None else self._draft(drafts[i])[:max_new_tokens]
            tokens, logprobs, stopped = sequence.answer(encoded[i], draft, max_new_tokens)
            said = str(self._tokenizer.decode(self._array(tokens))) if tokens else ""
            thought, text = split_thinking(said, opened=self._opened)
            answers[i] = Generated(
                text=text,
                finish_reason="stop" if stopped else "length",
                tokens=len(tokens) + stopped,
                logprobs=tuple(logprobs),
                reasoning=thought,
            )
            if tick:
                tick(done)
        return [answers[i] for i in range(len(encoded))]

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        """The logits [answer's tokens, vocabulary] from which each of the answer's tokens is chosen, read one by one:
        some graphs keep the last position's alone."""
        import numpy as np  # noqa: PLC0415 - onnxruntime-genai takes and gives arrays

        parameters = self._og.GeneratorParams(self._model)
        parameters.set_search_options(max_length=len(prompt) + len(answer), do_sample=False)
        generator = self._og.Generator(self._model, parameters)
        rows = []
        for part in (prompt, *([token] for token in answer[:-1])):
            generator.append_tokens(self._array([part]))
            rows.append(np.array(generator.get_output("logits")[0, -1], dtype=np.float32))
        return np.stack(rows)

    def _draft(self, text: str) -> list[int]:
        return [int(i) for i in self._tokenizer.encode(text)] + [min(self._stops)]

    def _array(self, tokens: Sequence[Any]) -> Any:
        import numpy as np  # noqa: PLC0415 - onnxruntime-genai takes arrays

        return np.asarray(tokens, dtype=np.int32)


def processors() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Sequence:
    """One sequence of tokens with its KV cache, rewound to what the next prompt shares with it. Where the graph keeps
    the last position's logits only, nothing can be guessed, and both here and in the engine each pass reads one token.
    """

    def __init__(self, og: Any, model: Any, stops: set[int], max_length: int, *, stepwise: bool) -> None:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=max_length, do_sample=False)
        self._generator = og.Generator(model, parameters)
        self._stops = stops
        self._tokens: list[int] = []
        self._guesses = len(self._pass([min(stops)] * 2, 2)) == 2 and not stepwise

    def answer(self, prompt: list[int], draft: list[int], most: int) -> tuple[list[int], list[float], bool]:
        """The answer's tokens without the end token, all log probabilities, and whether the end token came."""
        shared = 0
        while shared < min(len(prompt) - 1, len(self._tokens)) and prompt[shared] == self._tokens[shared]:
            shared += 1
        self._rewind(shared)
        line, answer, guess, logprobs = list(prompt), list[int](), draft, list[float]()
        while True:
            guess = (guess[: most - len(answer)] or line[-1:]) if self._guesses else []
            chosen = self._pass(line[len(self._tokens) :] + guess, len(guess) + 1)
            for (token, logits), guessed in zip(chosen, [*guess, None], strict=True):
                logprobs.append(_logprob(logits, token))
                if token in self._stops:
                    return answer, logprobs, True
                answer.append(token)
                line.append(token)
                if len(answer) == most:
                    return answer, logprobs, False
                if token != guessed:
                    break
            guess = guess[len(line) - len(self._tokens) + len(guess) :]
            self._rewind(len(line) - 1)

    def _pass(self, tokens: list[int], count: int) -> list[tuple[int, Any]]:
        """Read tokens; the greedy choices after the last `count` of them, each with its logits [vocabulary]."""
        import numpy as np  # noqa: PLC0415 - onnxruntime-genai takes and gives arrays

        self._generator.append_tokens(np.asarray([tokens], dtype=np.int32))
        self._tokens += tokens
        logits = np.asarray(self._generator.get_output("logits"), dtype=np.float32)[0, -count:]
        return [(int(row.argmax()), row) for row in logits]

    def _rewind(self, length: int) -> None:
        if length < len(self._tokens):
            self._generator.rewind_to(length)
            del self._tokens[length:]


def _logprob(logits: Any, token: int) -> float:
    """As the engine's sampler computes it."""
    import numpy as np  # noqa: PLC0415 - onnxruntime-genai gives arrays

    shifted = logits - logits.max()
    return min(float(shifted[token]) - math.log(float(np.exp(shifted).sum(dtype=np.float64))), 0.0)
