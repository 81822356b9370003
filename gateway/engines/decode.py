"""The decoding of one answer, a pass of the model at a time."""

from collections.abc import Sequence

from exporters.models import Confidence
from gateway.engines.drafts import LONGEST_GUESS, Draft
from gateway.engines.errors import ContextTooLong, DecodeFailed
from gateway.engines.protocol import Event, Generate, Token
from gateway.engines.runtime import Cache, Runtime
from gateway.engines.sampling import Choice, Row, Sampler
from gateway.engines.telling import Telling, described

CHUNK = 256  # of a long prompt in one pass: between passes a request can be cancelled, and others get their turn


class Decoding:
    """Holds a cache until it is `finished`. Raises ContextTooLong when it is made."""

    def __init__(
        self, request: Generate, prompt: list[int], *, runtime: Runtime, draft: Draft, confidence: Confidence
    ) -> None:
        room = runtime.context_length - len(prompt)
        if room < 1:
            raise ContextTooLong(
                f"This model's context is {runtime.context_length} tokens, the messages take {len(prompt)}."
            )
        options = request.options
        self.id = request.id
        self.answer: list[int] = []
        self.finished = False
        self._most = min(options.max_tokens or room, room)
        self._line = prompt
        self._prompt_tokens = len(prompt)
        self._read: int | None = None
        self._runtime = runtime
        self._draft = draft
        self._stepwise = options.stepwise
        self._guesses = runtime.wide and not options.stepwise
        self._sampler = Sampler(options)
        self._reports = options.top_logprobs is not None
        opened = runtime.vocabulary.opens(prompt)
        self._form = runtime.form(options.schema, opened=opened) if options.schema else None
        self._telling = Telling(request.id, request.messages, options, confidence=confidence, opened=opened)
        self._cache: Cache | None = None

    def take_cache(self, free: list[Cache]) -> None:
        """Take, of the free caches, the one that holds most of the prompt already; else a new one."""
        fits = [c for c in free if c.capacity >= self._needed()]
        self._cache = max(fits, key=self._shared, default=None)
        if self._cache is None:
            self._cache = self._runtime.cache(self._length())
            del free[:1]  # the new one takes its place
        else:
            free.remove(self._cache)

    def give_cache(self) -> Cache | None:
        """Let go of the cache."""
        cache, self._cache = self._cache, None
        return cache

    def begin(self) -> list[Event]:
        """What is known before the first pass."""
        return self._telling.begin()

    def step(self) -> list[Event]:
        """One pass; what it brought, ending with Done when the answer is complete."""
        cache = self._fitting()
        if self._read is None:  # stepwise, the prompt is read anew: what is shared may have been read token by token
            self._read = 0 if self._stepwise else self._shared(cache)
        cache.rewind(self._read)
        pending = self._line[self._read :]
        if len(pending) > CHUNK:
            cache.append(pending[:CHUNK])
            self._read += CHUNK
            return []
        guess = self._guess()
        cache.append(pending + guess)
        rows = cache.logits(len(guess) + 1)
        for at, logits in enumerate(rows):
            token = self._accept(self._choose(logits))
            if self.finished or at == len(guess) or token != guess[at]:
                break
        self._read = len(self._line) - 1  # the last token is chosen, not read
        return self._telling.events()

    def _choose(self, logits: Row) -> Choice:
        """The next token: where a form was asked for, one that it allows."""
        if self._form is None:
            return self._sampler.choose(logits)
        if not self._form.begun:
            free = self._sampler.choose(logits)
            if self._form.waits(self._runtime.vocabulary.shown(free.token)):
                return free
        return self._sampler.choose(logits, self._form.allowed(logits.size))

    def _accept(self, choice: Choice) -> int:
        token = choice.token
        self._line.append(token)
        self.answer.append(token)
        self._draft.take(token)
        if token in self._runtime.ends:
            if self._form is not None and not self._form.complete:
                raise DecodeFailed("the model ended within its thinking, before the answer that was asked for")
            self._telling.take(choice.logprob, None)
            self._finish("stop")
            return token
        shown = self._runtime.vocabulary.shown(token)
        if self._form is not None:
            self._form.take(token, shown)
        self._telling.take(choice.logprob, shown, self._describe(choice) if self._reports else None)
        if self._telling.stopped:
            self._finish("stop")
        elif len(self.answer) >= self._most:
            self._finish("length")
        return token

    def _finish(self, reason: str) -> None:
        self.finished = True
        self._telling.finish(reason)

    def _describe(self, choice: Choice) -> Token:
        return described(self._runtime.vocabulary, choice.token, choice.logprob, choice.top)

    def _guess(self) -> list[int]:
        if not self._guesses:
            return []
        room = self._most - len(self.answer)  # at least 1: the guess may fill it, so it always fits the context
        # Never nothing: see runtime.py on passes of one token. What stands in for a guess is as good as any token.
        return self._draft.guess(room) or [self._line[-1]]

    def _needed(self) -> int:
        """Tokens that the cache must hold in the next pass."""
        return len(self._line) + min(self._most - len(self.answer), 1 + LONGEST_GUESS)

    def _length(self) -> int:
        """Tokens that a new cache should hold: more each time that an answer outgrows it."""
        grown = self._prompt_tokens + min(self._most, max(256, 2 * len(self.answer)))
        return min(max(grown, len(self._line) + 1), self._runtime.context_length)

    def _fitting(self) -> Cache:
        assert self._cache is not None, "take_cache comes first"  # noqa: S101 - a programming error
        if self._needed() > self._cache.capacity:
            self._cache = self._runtime.cache(self._length())
            self._read = 0
        return self._cache

    def _shared(self, cache: Cache) -> int:
        return shared(cache.tokens, self._line)


def shared(held: Sequence[int], line: Sequence[int]) -> int:
    """How many leading tokens two sequences share; the last of `line` is left out: it must be read for its logits."""
    most = min(len(held), len(line) - 1)
    for at in range(most):
        if held[at] != line[at]:
            return at
    return most
