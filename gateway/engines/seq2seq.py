"""Sequence models (T5) behind the Runtime seam: the prompt goes through the encoder, once, and what is written through
the decoder. Only worker processes import this.

A sequence is the prompt's tokens, the token that an answer is begun with (a prompt never holds it), and the answer.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from exporters.models.rows import COUNT
from exporters.models.seq2seq_session import Read, Seq2SeqSession, Written, pieces
from exporters.models.vocabulary import Vocabulary
from gateway.engines.errors import ContextTooLong, InvalidRequest
from gateway.engines.form import Form
from gateway.engines.protocol import Event, Piece, Started
from gateway.engines.sampling import Row


class Seq2SeqRuntime:
    """See Runtime. `threads`: of ONNX Runtime. Raises CorruptArtefact."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._session = Seq2SeqSession.load(folder, threads=threads)
        self._most = self.most_answer = self._session.card.most_tokens
        self.context_length = 2 * self._most + 1  # each is as long as it may be, whatever the other
        self.ends = frozenset(self._session.card.ends)
        self.vocabulary = Vocabulary(pieces(folder), self._session.text)
        self.rows = Seq2SeqRows(self._session)

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """See Runtime. Raises ContextTooLong."""
        tokens = self._session.tokens(messages)
        if len(tokens) > self._most:
            raise ContextTooLong(f"This model reads {self._most} tokens, the messages take {len(tokens)}.")
        return [*tokens, self._session.card.start]

    def form(self, schema: str, *, opened: bool) -> Form:
        """See Runtime."""
        raise InvalidRequest(
            "response_format is not supported by this model: it rewrites text, in no form.", param="response_format"
        )


class Seq2SeqRows:
    """See Rows. Each row is decoded by itself."""

    def __init__(self, session: Seq2SeqSession) -> None:
        self.count = COUNT
        self._session = session
        self._rows = [_Row(session.blank()) for _ in range(COUNT)]

    def share(self, row: int, line: Sequence[int]) -> int:
        """See Rows. The encoder reads a prompt in both directions: no beginning is shared."""
        self.clear(row)
        return 0

    def read(self, row: int, tokens: Sequence[int]) -> Row:
        """See Rows. Before a prompt is whole, nothing is computed, and the logits are empty."""
        of = self._rows[row]
        of.prompt += tokens
        *prompt, last = of.prompt
        if last != self._session.card.start:
            return np.empty(0, np.float32)
        of.read = self._session.read(prompt)
        return self._write(of, last)

    def step(self, tokens: Sequence[int]) -> list[Row]:
        """See Rows."""
        return [self._write(row, token) for row, token in zip(self._rows, tokens, strict=False)]

    def room(self, tokens: int) -> bool:
        """See Rows. Only what is being written is held."""
        return True

    def swap(self, one: int, other: int) -> None:
        """See Rows."""
        self._rows[one], self._rows[other] = self._rows[other], self._rows[one]

    def clear(self, row: int) -> None:
        """See Rows."""
        self._rows[row] = _Row(self._session.blank())

    def _write(self, row: "_Row", token: int) -> Row:
        assert row.read is not None, "the prompt comes first"  # noqa: S101 - a programming error
        logits, row.written = self._session.write([token], row.written, row.read)
        last: Row = logits[-1]
        return last


class _Row:
    def __init__(self, blank: Written) -> None:
        self.prompt: list[int] = []
        self.read: Read | None = None
        self.written = blank


class Trimmed:
    """Sends events on, without the space before an answer's first word."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self._fresh: deque[int] = deque(maxlen=64)  # far more than decode at once; a cancelled one may stay

    def __call__(self, event: Event) -> None:
        """Of one event."""
        if isinstance(event, Started):
            self._fresh.append(event.id)
        elif isinstance(event, Piece) and event.text and event.id in self._fresh:
            self._fresh.remove(event.id)
            event = msgspec.structs.replace(event, text=event.text.removeprefix(" "))
        self._send(event)
