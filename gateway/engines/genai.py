"""onnxruntime-genai behind the Runtime seam. Only worker processes import this.

Measured on a CPU (int8, groups of 32): a pass over one token runs another matrix kernel than a pass over more, and its
logits differ in the first digit after the point; passes over two or more tokens give the same bits however a sequence
is cut into them. A second token costs next to nothing. So decoding never passes one token alone (but stepwise, see
decode.py), and an answer does not depend on what the cache happened to hold.
"""

import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og

from gateway.engines.errors import InvalidRequest, NotReady
from gateway.engines.form import Form, Forms
from gateway.engines.sampling import Row
from gateway.engines.text import Vocabulary

BUCKET = 256  # KV caches are allocated up front: their length, in tokens, is a multiple of this


class GenAIRuntime:
    """A loaded artefact folder. `threads`: of ONNX Runtime. Raises NotReady."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        og.disable_telemetry_events()
        began = time.monotonic()
        # A thread that spins for work costs its neighbours more than it gains: beside a gateway that took 80% of one of
        # two cores, 5.4 requests a second without spinning and 3.7 with; alone a pass takes a tenth longer.
        options = {"intra_op_num_threads": threads, "session.intra_op.allow_spinning": "0"}
        try:
            settings = json.loads((folder / "genai_config.json").read_text("utf-8"))
            config = og.Config(str(folder))
            config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
            self._model = og.Model(config)
            self._tokenizer = og.Tokenizer(self._model)
            self.context_length = int(settings["model"]["context_length"])
            self._folder, self._size = folder, int(settings["model"]["vocab_size"])
            self.ends = frozenset(int(i) for i in self._tokenizer.eos_token_ids)
            self.vocabulary = Vocabulary.load(folder, self._decode)
            first, second = self.cache(BUCKET), [min(self.ends)] * 2
            first.append(second)
            self.wide = first.width == 2
            if not np.isfinite(first.logits(1)).all():
                raise NotReady(f"{folder} computes logits that are not finite")
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise NotReady(f"onnxruntime-genai can't load {folder}: {error}") from error
        self.load_seconds = time.monotonic() - began

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """See Runtime."""
        try:
            text = self._tokenizer.apply_chat_template(json.dumps(list(messages)), add_generation_prompt=True)
            return [int(i) for i in self._tokenizer.encode(text)]
        except RuntimeError as error:
            raise InvalidRequest(f"the model's chat template refuses these messages: {error}") from error

    def form(self, schema: str, *, opened: bool) -> Form:
        """See Runtime."""
        return self._forms.of(schema, opened=opened)

    def cache(self, length: int) -> "GenAICache":
        """See Runtime."""
        rounded = -(-length // BUCKET) * BUCKET
        return GenAICache(self._model, min(rounded, self.context_length))

    @cached_property
    def _forms(self) -> Forms:
        return Forms.load(self._folder, size=self._size, ends=self.ends)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(np.asarray(tokens, dtype=np.int32)))


class GenAICache:
    """A Generator of batch 1, never asked to choose a token."""

    def __init__(self, model: Any, capacity: int) -> None:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=capacity, do_sample=False)
        self._generator = og.Generator(model, parameters)
        self._tokens: list[int] = []
        self.capacity = capacity

    @property
    def tokens(self) -> Sequence[int]:
        """See Cache."""
        return self._tokens

    @property
    def width(self) -> int:
        """Of how many tokens the last pass gave logits."""
        return int(self._generator.get_output("logits").shape[1])

    def rewind(self, length: int) -> None:
        """See Cache."""
        if length < len(self._tokens):
            self._generator.rewind_to(length)
            del self._tokens[length:]

    def append(self, tokens: Sequence[int]) -> None:
        """See Cache."""
        self._generator.append_tokens(np.asarray([tokens], dtype=np.int32))
        self._tokens += tokens

    def logits(self, count: int) -> Sequence[Row]:
        """See Cache."""
        rows = np.asarray(self._generator.get_output("logits"), dtype=np.float32)[0, -count:]
        return list(rows)
