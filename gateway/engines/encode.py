"""Serving of encoders: vectors of texts, scores of documents. Only worker processes import this.

What waits is cut into texts. A turn is one pass of the model over texts of about the same length, from whatever
requests, of at most BUDGET tokens with those that fill rows up; a request is answered as soon as its last text is done.
Turns begin, in turn, with the request that has least left, so that a long one doesn't hold up the short ones beside it,
and with the oldest, so that it comes to its end however many short ones arrive. Neighbours don't change a vector: the
graph scales each token by itself (`exporters.models.int8`).
"""

import logging
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable

import numpy as np

from exporters.models.encoder_card import EncoderCard
from exporters.models.encoder_session import EncoderSession, Floats, QueryTooLong, Tokens, score
from gateway.engines.errors import ContextTooLong, DecodeFailed, EngineError, QueueFull
from gateway.engines.protocol import Cancel, Embed, Encode, Event, Loaded, Refused, Scores, Vectors

log = logging.getLogger("retort.engine")

BUDGET = 2048  # tokens of a pass; a longer text is a pass of its own
SPARE = 8  # by so many tokens, or by an eighth, a text may be shorter or longer than the one that a pass begins with
CUT = 65_536  # characters that become tokens in one turn: between turns a request can be cancelled
MOST_TEXTS = 16_384  # that wait
MOST_CHARACTERS = 64 << 20  # likewise


def loaded_from(card: EncoderCard) -> Loaded:
    """What a worker says first."""
    return Loaded(
        does="embed" if card.gives == "vector" else "rank",
        dimensions=(card.dimensions, *card.shorter) if card.gives == "vector" else (),
        unit=card.unit,
    )


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
        """Cut some texts into tokens, and one pass."""
        self._turns += 1
        self._cut()
        ready = [work for work in self._work if work.ready]
        if not ready:
            return
        first = ready[0] if self._turns % 2 else min(ready, key=lambda work: work.left)
        batch = self._batch(first)
        try:
            found = self._session.run([work.rows[n] for work, n in batch])
        except Exception:
            # The edge of the loop: one pass's failure is not that of the requests that weren't in it.
            log.exception("engine.encode_failed")
            for work in dict.fromkeys(work for work, _ in batch):
                self._refuse(work, DecodeFailed("The runtime failed on this request."))
            return
        for (work, n), row in zip(batch, found, strict=True):
            work.found[n] = row
        sharing = dict.fromkeys(work for work, _ in batch)
        for work in sharing:
            work.shared.append(len(sharing))
            if len(work.found) == len(work.texts):
                self._work.remove(work)
                self._send(work.answer(self._session))

    def _cut(self) -> None:
        """So much that the next passes have something to read, short requests first; the last may have to wait."""
        room = CUT
        for work in sorted(self._work, key=lambda work: work.left):
            if room > 0 and work.uncut and work.ready < BUDGET:
                work.began = work.began or self._clock()
                try:
                    room -= work.tokens(self._session, room)
                except EngineError as error:
                    self._refuse(work, error)
                except Exception:
                    log.exception("engine.encode_failed")
                    self._refuse(work, DecodeFailed("The runtime failed on this request."))

    def _batch(self, first: "_Work") -> list[tuple["_Work", int]]:
        """Of `first` the longest text that is ready, and with it what is about as long, that of `first` before
        others'. Takes them from what is ready."""
        longest = first.longest
        spare = max(SPARE, longest // 8)
        least, most = longest - spare, longest + spare
        room = max(BUDGET // most, 1)
        batch: list[tuple[_Work, int]] = []
        for work in (first, *(w for w in self._work if w is not first)):
            batch += [(work, n) for n in work.pop(room - len(batch), least=least, most=most)]
        return batch

    def _refuse(self, work: "_Work", error: EngineError) -> None:
        if work in self._work:
            self._work.remove(work)
        self._send(Refused(id=work.order.id, code=error.code, message=str(error), param=error.param))


class _Work:
    """A request, its texts' tokens, and what is known of them. `found`: by text. `ready`: tokens that the next passes
    may read. `began`: when its first text became tokens; 0 before."""

    def __init__(self, order: Encode) -> None:
        self.order = order
        self.texts = order.texts if isinstance(order, Embed) else order.documents
        self.characters = self.uncut = sum(map(len, self.texts)) + len(self.texts)
        self.rows: list[Tokens] = []
        self.ready = 0
        self.found: dict[int, Floats] = {}
        self.began = 0.0
        self.shared: list[int] = []  # by pass: how many requests it read for
        self._todo: list[int] = []  # by length

    @property
    def left(self) -> int:
        """About how many tokens no pass has read."""
        return self.ready + self.uncut // 4

    @property
    def longest(self) -> int:
        """Tokens of the longest text that is ready."""
        return len(self.rows[self._todo[-1]].ids)

    def tokens(self, session: EncoderSession, most: int) -> int:
        """Of the next texts, of `most` characters or one text; returns how many characters. Raises ContextTooLong."""
        before = self.uncut
        while self.uncut and before - self.uncut < most:
            at = len(self.rows)
            row = self._row(session, self.texts[at])
            if not (row.whole or self.order.truncate):
                raise ContextTooLong(
                    f"{self._name(at)} is longer than the {session.card.most_tokens} tokens that this model reads; "
                    'send truncate: "END" to have its end cut off.',
                    param=self._name(at),
                )
            self.rows.append(row)
            self.ready += len(row.ids)
            self.uncut -= len(self.texts[at]) + 1
            self._todo.append(at)
        self._todo.sort(key=lambda n: len(self.rows[n].ids))
        return before - self.uncut

    def pop(self, count: int, *, least: int, most: int) -> list[int]:
        """The longest texts of `least` to `most` tokens, `count` of them if there are so many. They aren't ready any
        more."""
        end = bisect_right(self._todo, most, key=lambda n: len(self.rows[n].ids))
        begin = max(bisect_left(self._todo, least, key=lambda n: len(self.rows[n].ids)), end - count)
        taken = self._todo[begin:end]
        del self._todo[begin:end]
        self.ready -= sum(len(self.rows[n].ids) for n in taken)
        return taken

    def answer(self, session: EncoderSession) -> Event:
        """All texts are done."""
        found = np.array([self.found[n] for n in range(len(self.texts))], dtype=np.float32)
        number, tokens = self.order.id, sum(len(row.ids) for row in self.rows)
        waited, shared = self.began - self.order.at, sum(self.shared) / len(self.shared)
        if not np.isfinite(found).all():
            log.error("engine.encode_not_finite")
            return Refused(id=number, code=DecodeFailed.code, message="The model computed values that are not finite.")
        if isinstance(self.order, Embed):
            vectors = found.astype("<f4").tobytes()
            return Vectors(id=number, vectors=vectors, tokens=tokens, queue_seconds=waited, batch=shared)
        scores = score(session.card, found).tolist()
        return Scores(id=number, scores=scores, tokens=tokens, queue_seconds=waited, batch=shared)

    def _row(self, session: EncoderSession, text: str) -> Tokens:
        if isinstance(self.order, Embed):
            return session.text(text)
        try:
            return session.pair(self.order.query, text)
        except QueryTooLong:
            raise ContextTooLong(
                f"query leaves no room for a document in the {session.card.most_tokens} tokens that this model reads.",
                param="query",
            ) from None

    def _name(self, number: int) -> str:
        return f"{'input' if isinstance(self.order, Embed) else 'documents'}[{number}]"
