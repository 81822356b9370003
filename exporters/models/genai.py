"""Greedy answers from an artefact, for evaluation and golden answers: the same graph, tokenizer and decoding as an
engine serves with, so what is evaluated is what users get."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from exporters.models.errors import ExportFailed
from exporters.models.processors import processors
from exporters.models.rows import Logits, Rows, pieces
from exporters.models.vocabulary import Vocabulary
from router import split_thinking
from router.thinking import opens

Messages = Sequence[Mapping[str, str]]
Tick = Callable[[int], None]

PIECE = 256  # tokens of a prompt in one pass


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """One greedy answer. `tokens`: how many were generated, the end token included. `finish_reason`: stop | length.
    `logprobs`: each token's natural log probability, the end token's too; empty where the model doesn't tell them.
    `reasoning`: what was thought before the text; tokens and logprobs are of both. `drafted`: whether it was a guess
    that needed only be checked."""

    text: str
    finish_reason: str
    tokens: int
    logprobs: tuple[float, ...] = ()
    reasoning: str = ""
    drafted: bool = False


class GenAIGenerator:
    """A loaded artefact folder. `threads`: of ONNX Runtime; by default as many as this process may use processors.
    (ONNX Runtime's own choice counts physical cores: on a virtual machine that is often half of them.)"""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        import onnxruntime_genai as og  # noqa: PLC0415 - heavy: only exports and engines pay for it

        og.disable_telemetry_events()
        self._rows = Rows(folder, threads=threads or processors())
        try:
            self._tokenizer = og.Tokenizer(str(folder))
        except RuntimeError as error:
            raise ExportFailed(f"onnxruntime-genai can't read the tokenizer in {folder}: {error}") from error
        self._vocabulary = Vocabulary.load(folder, self._decode)
        self._stops = {int(i) for i in self._tokenizer.eos_token_ids}
        self._opened = opens(self._prompt([{"role": "user", "content": "Hello."}]))

    def encode(self, messages: Messages) -> list[int]:
        """The prompt's tokens, up to where the answer begins."""
        return [int(i) for i in self._tokenizer.encode(self._prompt(messages))]

    def _prompt(self, messages: Messages) -> str:
        return str(self._tokenizer.apply_chat_template(json.dumps(list(messages)), add_generation_prompt=True))

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(np.asarray(tokens, dtype=np.int32)))

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
    ) -> list[Generated]:
        """Greedy answers in the prompts' order; `tick(done)` is called after each. Drafts are of no use here: a pass
        over one costs what the steps cost that it saves."""
        del drafts
        encoded = [self.encode(m) for m in prompts]
        # In token order, neighbours share the longest beginnings.
        waiting = sorted(range(len(encoded)), key=encoded.__getitem__, reverse=True)
        answers: dict[int, Generated] = {}
        active: list[_Line] = []  # as the rows are
        while waiting or active:
            while waiting and self._fits(active, encoded[waiting[-1]], max_new_tokens):
                number = waiting.pop()
                active.append(_Line(number, len(encoded[number]), self._first(len(active), encoded[number])))
                self._leave(active, max_new_tokens, answers, tick)
            if active:
                for line, logits in zip(active, self._rows.step([line.tokens[-1] for line in active]), strict=True):
                    line.take(logits)
                self._leave(active, max_new_tokens, answers, tick)
        return [answers[i] for i in range(len(encoded))]

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> Logits:
        """The logits [answer's tokens, vocabulary] from which each of the answer's tokens is chosen, as they are when
        it is decoded: one by one."""
        found = [np.array(self._first(0, list(prompt)))]
        found += [np.array(self._rows.step([token])[0]) for token in answer[:-1]]
        self._rows.clear(0)
        return np.stack(found)

    def _first(self, row: int, prompt: list[int]) -> Logits:
        """The logits after a prompt, which is read into a row."""
        left = prompt[self._rows.share(row, prompt) :]
        return [self._rows.read(row, piece) for piece in pieces(left, PIECE)][-1]

    def _fits(self, active: "list[_Line]", prompt: Sequence[int], most: int) -> bool:
        """Whether there is a row, and memory however long the answers get; what idle rows hold goes as far as it
        must."""
        if len(active) == self._rows.count:
            return False
        whole = sum(line.prompt + most for line in active) + len(prompt) + most
        return self._rows.room(whole - sum(map(self._rows.length, range(len(active))))) or not active

    def _leave(self, active: "list[_Line]", most: int, answers: dict[int, Generated], tick: Tick | None) -> None:
        """Take out what is finished; the last row closes the gap."""
        for row in reversed(range(len(active))):
            line = active[row]
            stopped = line.tokens[-1] in self._stops
            full = self._rows.length(row) == self._rows.context_length
            if not stopped and len(line.tokens) < most and not full:
                continue
            answers[line.number] = self._generated(line, stopped=stopped)
            if tick:
                tick(len(answers))
            last = len(active) - 1
            self._rows.swap(row, last)
            active[row] = active[last]
            active.pop()
            self._rows.clear(last)

    def _generated(self, line: "_Line", *, stopped: bool) -> Generated:
        tokens = line.tokens[:-1] if stopped else line.tokens
        said = b"".join(map(self._vocabulary.shown, tokens)).decode("utf-8", "replace")
        thought, text = split_thinking(said, opened=self._opened)
        return Generated(
            text=text,
            finish_reason="stop" if stopped else "length",
            tokens=len(line.tokens),
            logprobs=tuple(line.logprobs),
            reasoning=thought,
        )


class _Line:
    """One answer so far, to a prompt of so many tokens."""

    def __init__(self, number: int, prompt: int, logits: Logits) -> None:
        self.number = number
        self.prompt = prompt
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.take(logits)

    def take(self, logits: Logits) -> None:
        """`logits` [vocabulary]: the likeliest token is next. Its log probability is computed as in serving."""
        shifted = logits - logits.max()
        token = int(shifted.argmax())
        self.tokens.append(token)
        self.logprobs.append(min(-float(np.log(np.exp(shifted).sum(dtype=np.float64))), 0.0))
