"""Greedy answers from a Hugging Face model, in batches: how the base and the unquantized student are evaluated."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from exporters.models import Generated, Messages
from exporters.models.devices import reading_device
from exporters.models.genai import Tick
from retrainer.data.render import Row, common_prefix, opens_thinking, prompt_ids
from retrainer.errors import OutOfMemory
from retrainer.evaluation.generator import with_room
from retrainer.train.batches import IGNORED, collate, completion_logits
from retrainer.train.ends import end_tokens
from retrainer.train.step import want_of_memory
from router import split_thinking

# Measured on the sample task, 2 cores, 256 records: 28 s at 32 a batch, 24 at 64, 20 at 128, 23 at 256.
MOST_ROWS = 128
MOST_TOKENS = 8192  # of a batch, so that long prompts fit into memory
MOST_LOGITS = 2**28  # of a batch, 1 GB: large vocabularies


class TorchGenerator:
    """A causal language model from a folder, in fp32; in bf16 on a GPU that has room for that alone, and on the
    processors where it hasn't. Batches are sorted by length, and halved where one doesn't fit into memory; a prefix
    that all prompts share (the system prompt) is computed once."""

    def __init__(self, folder: Path, *, rows: int = MOST_ROWS) -> None:
        self._model = _opened(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._ends = end_tokens(self._model, self._tokenizer)
        self._opened = opens_thinking(self._tokenizer)
        self._rows = rows
        self._prefix: list[int] = []
        self._prefix_cache: list[tuple[torch.Tensor, torch.Tensor]] = []

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
    ) -> list[Generated]:
        """See Generator. With drafts, a first pass keeps those that the model would have given itself. Raises
        OutOfMemory where not even one fits."""
        answers: dict[int, Generated] = {}

        def keep(chosen: Sequence[int], found: Sequence[Generated | None]) -> None:
            answers.update({i: a for i, a in zip(chosen, found, strict=True) if a is not None})
            if tick:
                tick(len(answers))

        with torch.inference_mode():
            encoded = [prompt_ids(self._tokenizer, m) for m in prompts]
            if drafts is not None:
                rows = [Row(p, self._draft(d)) for p, d in zip(encoded, drafts, strict=True)]
                fitting = [
                    i
                    for i, row in enumerate(rows)
                    if len(row.completion) <= max_new_tokens and self._ends.isdisjoint(row.completion[:-1])
                ]
                said = [len(row.completion) for row in rows]
                self._in_batches(fitting, encoded, said, lambda some: keep(some, self._check([rows[i] for i in some])))
            open_ = [i for i in range(len(encoded)) if i not in answers]
            if open_:
                self._share([encoded[i] for i in open_])
                self._in_batches(
                    open_,
                    encoded,
                    [1] * len(encoded),
                    lambda some: keep(some, self._answer([encoded[i] for i in some], max_new_tokens)),
                )
        return [answers[i] for i in range(len(encoded))]

    def length(self, answer: str) -> int:
        """How many tokens an answer takes, without the end token."""
        return len(self._tokenizer.encode(answer, add_special_tokens=False))

    def _in_batches(
        self,
        chosen: Sequence[int],
        encoded: Sequence[list[int]],
        predicted: Sequence[int],
        work: Callable[[list[int]], None],
    ) -> None:
        """`predicted`: of how many tokens of each there are logits at once."""
        by_length = sorted(chosen, key=lambda i: len(encoded[i]), reverse=True)
        while by_length:
            size = min(self._rows, MOST_TOKENS // len(encoded[by_length[0]]))
            most = max(predicted[i] for i in by_length[: max(1, size)])
            size = max(1, min(size, MOST_LOGITS // (most * self._model.config.get_text_config().vocab_size)))
            if self._worked(work, by_length[:size]):
                by_length = by_length[size:]

    def _worked(self, work: Callable[[list[int]], None], some: list[int]) -> bool:
        """Whether they fitted into memory; else batches are smaller from now on."""
        try:
            work(some)
        except RuntimeError as error:
            if not want_of_memory(error):
                raise
            if len(some) == 1:
                raise OutOfMemory("one example doesn't fit into memory while it is evaluated") from error
        else:
            return True
        self._rows = len(some) // 2  # outside of the handler: its traceback holds the tensors that are too many
        gc.collect()
        clear_device_cache()
        return False

    def _draft(self, text: str) -> list[int]:
        return [*self._tokenizer.encode(text, add_special_tokens=False), self._tokenizer.eos_token_id]

    def _check(self, rows: Sequence[Row]) -> list[Generated | None]:
        """The drafts (with their end token) that are the model's greedy answers; None for the others."""
        batch = collate(rows, pad=self._tokenizer.pad_token_id or 0, device=self._model.device)
        labelled = batch.labels != IGNORED
        right = torch.zeros_like(labelled)
        logits = completion_logits(self._model, batch)
        chosen = logits.argmax(dim=-1)
        logprobs = torch.zeros(labelled.shape, device=labelled.device)
        logprobs[labelled] = _greatest(logits)
        chosen[self._is_end(chosen)] = self._tokenizer.eos_token_id  # a draft's, whichever the model's is
        right[labelled] = chosen == batch.labels[labelled]
        same = (right | ~labelled).all(dim=-1).tolist()
        found = zip(rows, same, logprobs, labelled, strict=True)
        return [
            self._text(row.completion, told[own].tolist(), drafted=True) if ok else None for row, ok, told, own in found
        ]

    def _share(self, encoded: Sequence[list[int]]) -> None:
        self._prefix = min(encoded)[: common_prefix(encoded)]
        self._prefix_cache = []
        if self._prefix:
            cache = DynamicCache()
            ids = torch.tensor([self._prefix], device=self._model.device)
            self._model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
            self._prefix_cache = [(layer.keys, layer.values) for layer in cache.layers]

    def _answer(self, encoded: Sequence[list[int]], most: int) -> list[Generated]:
        """One batch. Between the shared prefix and a shorter prompt's rest there is padding, masked:

        prefix | pad pad rest | answer        positions count real tokens only
        """
        device, count, shared = self._model.device, len(encoded), len(self._prefix)
        rests = [tokens[shared:] for tokens in encoded]
        width = max(map(len, rests))
        ids = torch.full((count, width), self._tokenizer.pad_token_id or 0, device=device)
        mask = torch.ones((count, shared + width), dtype=torch.long, device=device)
        for i, rest in enumerate(rests):
            ids[i, width - len(rest) :] = torch.tensor(rest, device=device)
            mask[i, shared : shared + width - len(rest)] = 0
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._prefix_cache):
            cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), layer)
        positions = mask.cumsum(dim=-1)[:, shared:] - 1

        tokens: list[list[int]] = [[] for _ in encoded]
        logprobs: list[list[float]] = [[] for _ in encoded]
        ended = torch.zeros(count, dtype=torch.bool, device=device)
        for _ in range(most):
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions.clamp(min=0),
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = output.logits[:, -1].argmax(dim=-1)
            told = _greatest(output.logits[:, -1]).tolist()
            for i in torch.nonzero(~ended).flatten().tolist():
                tokens[i].append(int(chosen[i]))
                logprobs[i].append(told[i])
            ended |= self._is_end(chosen)
            if bool(ended.all()):
                break
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones((count, 1))], dim=-1)
        return [self._text(t, told) for t, told in zip(tokens, logprobs, strict=True)]

    def _is_end(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.isin(tokens, torch.tensor(sorted(self._ends), device=tokens.device))

    def _text(self, tokens: list[int], logprobs: list[float], *, drafted: bool = False) -> Generated:
        stopped = bool(tokens) and tokens[-1] in self._ends
        text = self._tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=True)
        reasoning, said = split_thinking(str(text), opened=self._opened)
        reason = "stop" if stopped else "length"
        return Generated(
            text=said,
            finish_reason=reason,
            tokens=len(tokens),
            logprobs=tuple(logprobs),
            reasoning=reasoning,
            drafted=drafted,
        )


def _greatest(logits: torch.Tensor) -> torch.Tensor:
    """The natural log probability of the likeliest token, [...] of [..., vocabulary]."""
    return logits.max(dim=-1).values.float() - logits.float().logsumexp(dim=-1)


def _opened(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for dtype in (torch.float32, torch.bfloat16):
        if reading_device(model.num_parameters() * dtype.itemsize) == "cuda":
            return model.to("cuda", dtype)
    return model


def longest_answer(tokenizer: Any, answers: Sequence[str]) -> int:
    """How many tokens the longest answer may take; see `with_room`."""
    return with_room(max((len(tokenizer.encode(a, add_special_tokens=False)) for a in set(answers)), default=0))
