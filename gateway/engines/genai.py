"""An artefact of onnxruntime-genai's builder behind the Runtime seam. Only worker processes import this."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime_genai as og

from exporters.models.rows import CACHE_GB, Rows
from exporters.models.vocabulary import Vocabulary
from gateway.engines.errors import InvalidRequest, NotReady
from gateway.engines.form import Form, Forms


class GenAIRuntime:
    """A loaded artefact folder. `threads`, `cache_gb`: see Rows. Raises NotReady, ExportFailed."""

    def __init__(self, folder: Path, *, threads: int, cache_gb: float = CACHE_GB) -> None:
        og.disable_telemetry_events()
        self._folder = folder
        try:
            self._tokenizer = og.Tokenizer(str(folder))
            self.ends = frozenset(int(i) for i in self._tokenizer.eos_token_ids)
            self.vocabulary = Vocabulary.load(folder, self._decode)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise NotReady(f"the tokenizer in {folder} can't be loaded: {error}") from error
        self.rows = Rows(folder, threads=threads, cache_gb=cache_gb)
        self.context_length = self.most_answer = self.rows.context_length

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

    @cached_property
    def _forms(self) -> Forms:
        return Forms.load(self._folder, size=self.rows.size, ends=self.ends)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(np.asarray(tokens, dtype=np.int32)))
