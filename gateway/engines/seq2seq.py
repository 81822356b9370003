"""Sequence models (T5) behind the Runtime seam: the prompt goes through the encoder, once, and what is written through
the decoder. Only worker processes import this.

A sequence is the prompt's tokens, the token that an answer is begun with, and the answer. A cache knows by that token
where the prompt ends; before it comes, nothing is computed.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from exporters.models.seq2seq_session import Read, Seq2SeqSession, Written, pieces
from gateway.engines.errors import ContextTooLong, InvalidRequest
from gateway.engines.form import Form
from gateway.engines.protocol import Event, Piece, Started
from gateway.engines.sampling import Row
from gateway.engines.text import Vocabulary

_SPACE = "\u2581"  # SentencePiece's


class Seq2SeqRuntime:
    """See Runtime. `threads`: of ONNX Runtime. Raises CorruptArtefact."""

    wide = True

    def __init__(self, folder: Path, *, threads: int) -> None:
        began = time.monotonic()
        self._session = Seq2SeqSession.load(folder, threads=threads)
        self._most = self._session.card.most_tokens
        self.context_length = 2 * self._most + 1
        self.ends = frozenset(self._session.card.ends)
        self.vocabulary: Vocabulary = Pieces(folder, self._session.text)
        self.load_seconds = time.monotonic() - began

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

    def cache(self, length: int) -> "Seq2SeqCache":
        """See Runtime."""
        return Seq2SeqCache(self._session, min(length, self.context_length))


class Seq2SeqCache:
    """See Cache. It grows as it is written to."""

    def __init__(self, session: Seq2SeqSession, capacity: int) -> None:
        self._session = session
        self._tokens: list[int] = []
        self._read: Read | None = None
        self._written: Written = session.blank()
        self._rows: Sequence[Row] = ()
        self.capacity = capacity

    @property
    def tokens(self) -> Sequence[int]:
        """See Cache."""
        return self._tokens

    def rewind(self, length: int) -> None:
        """See Cache."""
        del self._tokens[length:]
        begin = self._begin()
        if begin is None:
            self._read, self._written = None, self._session.blank()
        else:
            self._written = self._written.until(len(self._tokens) - begin)

    def append(self, tokens: Sequence[int]) -> None:
        """See Cache."""
        self._tokens += tokens
        begin = self._begin()
        if begin is None:
            return
        if self._read is None:
            self._read = self._session.read(self._tokens[:begin])
        new = self._tokens[begin + self._written.length :]
        rows, self._written = self._session.write(new, self._written, self._read)
        self._rows = list(rows)

    def logits(self, count: int) -> Sequence[Row]:
        """See Cache."""
        return self._rows[-count:]

    def _begin(self) -> int | None:
        """Where the answer begins. A prompt never holds the token: what spells a mark is read as text."""
        start = self._session.card.start
        return self._tokens.index(start) if start in self._tokens else None


class Pieces(Vocabulary):
    """SentencePiece's words, each with the space before it; bytes that no piece has, as `<0x0A>`."""

    def __init__(self, folder: Path, decode: Callable[[Sequence[int]], str]) -> None:
        tokenizer = pieces(folder)
        super().__init__(tokenizer, decode)
        added = {int(token["id"]) for token in tokenizer.get("added_tokens", ())}
        vocabulary = tokenizer["model"]["vocab"]
        named = (
            vocabulary.items() if isinstance(vocabulary, dict) else ((one[0], n) for n, one in enumerate(vocabulary))
        )
        for piece, number in named:
            if number not in added:
                self._bytes.setdefault(number, _bytes(piece))


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


def _bytes(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_SPACE, " ").encode()
