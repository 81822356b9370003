"""Serving of encoders: vectors of texts, scores of documents. Only worker processes import this.

What waits is cut into texts. A turn is one pass of the model over texts of about the same length, from whatever
requests, of at most BUDGET tokens with those that fill rows up; a request is answered as soon as its last text is done.
Turns begin, in turn, with the request that has least left, so that a long one doesn't hold up the short ones beside it,
and with the oldest, so that it comes to its end however many short ones arrive. Neighbours don't change a vector: the
graph scales each token by itself (`exporters.models.int8`).
"""

import logging
import time
from collections.abc import Callable, Iterator

from exporters.models.encoder_session import EncoderSession, Floats, QueryTooLong, Tokens
from exporters.models.to_encoder import score
from gateway.engines.errors import ContextTooLong, EngineError, QueueFull
from gateway.engines.protocol import Cancel, Embed, Encode, Event, Refused, Scores, Vectors

log = logging.getLogger("retort.engine")

BUDGET = 2048  # tokens of a pass; a longer text is a pass of its own
SPARE = 16  # by so many tokens, or by a quarter, a row may be shorter than the longest of its pass
CUT = 65_536  # characters that become tokens in one turn: between turns a request can be cancelled
MOST_TEXTS = 16_384  # that wait
MOST_CHARACTERS = 64 << 20  # likewise


class EncoderSchedule:
    """See Turns. `clock`: the machine's monotonic one, in seconds."""

    def __init__(
        self, session: EncoderSession, send: Callable[[Event], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session, self._send, self._clock = session, send, clock
        self._work: list[_Work] = []  # in the order of their arrival
        self._turns = 0

    @property
    def idle(self) -> bool:
        """See Turns."""
        return not self._work

    def take(self, order: Encode | Cancel) -> None:
        """See Turns."""
        if isinstance(order, Cancel):
            self._work = [work for work in self._work if work.order.id != order.id]
            return
        work = _Work(order)
        texts = sum(len(w.texts) for w in self._work) + len(work.texts)
        characters = sum(w.characters for w in self._work) + work.characters
        if self._work and (texts > MOST_TEXTS or characters > MOST_CHARACTERS):
            self._refuse(work, QueueFull())
        else:
            self._work.append(work)

    def turn(self) -> None:
        """Cut some texts into tokens, or else one pass."""
        self._turns += 1
        if uncut := [work for work in self._work if work.cut < len(work.texts)]:
            self._cut(min(uncut, key=lambda work: work.characters))
            return
        first = self._work[0] if self._turns % 2 else min(self._work, key=lambda work: work.left)
        batch = self._batch(first)
        try:
            found = self._session.run([work.rows[n] for work, n in batch])
        except Exception:
            # The edge of the loop: one pass's failure is not that of the requests that weren't in it.
            log.exception("engine.encode_failed")
            for work in dict.fromkeys(work for work, _ in batch):
                self._refuse(work, EngineError("The runtime failed on this request."), code="decode_failed")
            return
        for (work, n), row in zip(batch, found, strict=True):
            work.note(n, row)
        for work in dict.fromkeys(work for work, _ in batch):
            if not work.left:
                self._work.remove(work)
                self._send(work.answer(self._session, waited=work.began - work.order.at))

    def _cut(self, work: "_Work") -> None:
        if not work.cut:
            work.began = self._clock()
        try:
            work.tokens(self._session)
        except EngineError as error:
            self._refuse(work, error)
        except Exception:
            log.exception("engine.encode_failed")
            self._refuse(work, EngineError("The runtime failed on this request."), code="decode_failed")

    def _batch(self, first: "_Work") -> list[tuple["_Work", int]]:
        """Of `first` the longest text that is left, and with it what is nearly as long, that of `first` before others'.
        Takes them from what is left."""
        longest = first.longest
        least = longest - max(SPARE, longest // 4)
        room = max(BUDGET // longest, 1)
        batch: list[tuple[_Work, int]] = []
        for work in (first, *(w for w in self._work if w is not first)):
            batch += [(work, n) for n in work.pop(room - len(batch), least=least, most=longest)]
            if len(batch) == room:
                break
        return batch

    def _refuse(self, work: "_Work", error: EngineError, *, code: str | None = None) -> None:
        if work in self._work:
            self._work.remove(work)
        self._send(
            Refused(id=work.order.id, code=code or error.code, message=str(error), param=error.param)
        )


class _Work:
    """A request, its texts' tokens, and what is known of them."""

    def __init__(self, order: Encode) -> None:
        self.order = order
        self.texts = order.texts if isinstance(order, Embed) else order.documents
        self.characters = sum(map(len, self.texts))
        self.cut = 0  # texts that are tokens already
        self.rows: list[Tokens] = []
        self.began = order.at
        self._todo: list[int] = []  # by length
        self._found: dict[int, Floats] = {}

    @property
    def left(self) -> int:
        """Tokens that no pass has read."""
        return sum(len(self.rows[n].ids) for n in self._todo)

    @property
    def longest(self) -> int:
        """Tokens of the longest text that no pass has read."""
        return len(self.rows[self._todo[-1]].ids)

    def tokens(self, session: EncoderSession) -> None:
        """Of the next CUT characters. Raises ContextTooLong."""
        left = CUT
        while self.cut < len(self.texts) and left > 0:
            text = self.texts[self.cut]
            row = self._row(session, text)
            if not (row.whole or self.order.truncate):
                raise ContextTooLong(
                    f"{self._name(self.cut)} is longer than the {session.card.most_tokens} tokens that this model reads; "
                    'send truncate: "END" to have its end cut off.',
                    param=self._name(self.cut),
                )
            self.rows.append(row)
            self.cut += 1
            left -= len(text) + 1
        self._todo = sorted(range(self.cut), key=lambda n: len(self.rows[n].ids))

    def pop(self, count: int, *, least: int, most: int) -> Iterator[int]:
        """The longest texts of `least` to `most` tokens, `count` of them if there are so many; they count as read."""
        at = len(self._todo)
        while at and len(self.rows[self._todo[at - 1]].ids) > most:
            at -= 1
        begin = at
        while begin and at - begin < count and len(self.rows[self._todo[begin - 1]].ids) >= least:
            begin -= 1
        taken = self._todo[begin:at]
        del self._todo[begin:at]
        return iter(taken)

    def note(self, number: int, row: Floats) -> None:
        """What a pass gave for a text."""
        self._found[number] = row

    def answer(self, session: EncoderSession, *, waited: float) -> Event:
        """All is done."""
        import numpy as np  # noqa: PLC0415 - with the session, which has loaded it

        found = np.array([self._found[n] for n in range(len(self.texts))], dtype=np.float32)
        number, tokens = self.order.id, sum(len(row.ids) for row in self.rows)
        if not np.isfinite(found).all():
            log.error("engine.encode_not_finite")
            return Refused(id=number, code="decode_failed", message="The model computed values that are not finite.")
        if isinstance(self.order, Embed):
            vectors = found.astype("<f4").tobytes()
            return Vectors(id=number, vectors=vectors, tokens=tokens, queue_seconds=waited)
        scores = [float(x) for x in score(session.card, found)]
        return Scores(id=number, scores=scores, tokens=tokens, queue_seconds=waited)

    def _row(self, session: EncoderSession, text: str) -> Tokens:
        if isinstance(self.order, Embed):
            return session.text(text)
        try:
            return session.pair(self.order.query, text)
        except QueryTooLong:
            raise ContextTooLong(
                f"query leaves no room for a document within the {session.card.most_tokens} tokens that this model reads.",
                param="query",
            ) from None

    def _name(self, number: int) -> str:
        return f"{'input' if isinstance(self.order, Embed) else 'documents'}[{number}]"


