"""The decoding of one answer: from the logits after each token to what may be shown of it."""

from collections.abc import Sequence

from exporters.models import Confidence
from gateway.engines.errors import ContextTooLong, DecodeFailed
from gateway.engines.protocol import Alternative, Assessed, Done, Event, Generate, Piece, Token
from gateway.engines.runtime import Runtime
from gateway.engines.sampling import Choice, Row, Sampler
from gateway.engines.text import Characters, Stops
from router.thinking import Thinking, opens

LONGEST_MARK = 16  # tokens, with the white space after it


class Decoding:
    """`unread`: what of the prompt the model has not read yet. Raises ContextTooLong when it is made."""

    def __init__(self, request: Generate, prompt: list[int], *, runtime: Runtime, confidence: Confidence) -> None:
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
        self.unread = prompt
        self._rows = 0
        self._runtime = runtime
        self._sampler = Sampler(options)
        self._confidence = confidence
        self._novelty = confidence.novelty(request.messages)
        self._logprobs: list[float] = []
        self._assesses = options.assess
        self._held: list[Event] = []
        self._reports = options.top_logprobs is not None
        opened = _opened(prompt, runtime)
        self._form = runtime.form(options.schema, opened=opened) if options.schema else None
        self._text = _Released(Stops(options.stop), Thinking(opened=opened))
        self._thought = 0  # tokens

    def begin(self) -> list[Event]:
        """What is known before the first pass: whoever asks for an assessment need not wait for that of an input which
        is like nothing that the student has learnt."""
        return [self._assessed(0.0)] if self._assesses and self._confidence.novel(self._novelty) else []

    @property
    def last(self) -> int:
        """The answer's last token, which the model has not read yet."""
        return self.answer[-1]

    def take(self, logits: Row, *, rows: int) -> list[Event]:
        """Go on by one token; what it brings, ending with Done when the answer is complete. `rows`: how many requests
        shared the pass. Raises DecodeFailed, FloatingPointError."""
        self._rows += rows
        self._accept(self._choose(logits))
        return self._events()

    def _choose(self, logits: Row) -> Choice:
        """The next token: where a form was asked for, one that it allows."""
        if self._form is None:
            return self._sampler.choose(logits)
        if not self._form.begun:
            free = self._sampler.choose(logits)
            if self._form.waits(self._runtime.vocabulary.shown(free.token)):
                return free
        return self._sampler.choose(logits, self._form.allowed(logits.size))

    def _accept(self, choice: Choice) -> None:
        token = choice.token
        self.answer.append(token)
        self._logprobs.append(choice.logprob)
        if token in self._runtime.ends:
            if self._form is not None and not self._form.complete:
                raise DecodeFailed("the model ended within its thinking, before the answer that was asked for")
            self._finish("stop")
            return
        thinks = self._text.thinks
        shown = self._runtime.vocabulary.shown(token)
        if self._form is not None:
            self._form.take(token, shown)
        self._text.add(shown, self._describe(choice) if self._reports else None)
        if thinks or self._text.thinks:
            self._thought = len(self.answer)
        if self._text.stopped:
            self._finish("stop")
        elif len(self.answer) >= self._most:
            self._finish("length")

    def _finish(self, reason: str) -> None:
        self.finished = True
        self._reason = reason
        self._text.end()

    def _events(self) -> list[Event]:
        events: list[Event] = []
        reasoning, text, tokens = self._text.take()
        if reasoning or text or tokens:
            events.append(Piece(id=self.id, text=text, tokens=tokens, reasoning=reasoning))
        if self.finished:
            confidence = self._confidence.whole(self._logprobs, finished=self._stopped, novelty=self._novelty)
            events.append(
                Done(
                    id=self.id,
                    finish_reason=self._reason,
                    completion_tokens=len(self.answer),
                    confidence=confidence,
                    reasoning_tokens=self._thought,
                    batch=self._rows / len(self.answer),
                )
            )
        if not self._assesses:
            return events
        self._held += events
        if not self.finished and len(self.answer) < self._confidence.prefix_tokens:
            return []
        early = self._confidence.prefix(self._logprobs, finished=self._stopped, novelty=self._novelty)
        held, self._held = self._held, []
        return [self._assessed(early), *held]

    @property
    def _stopped(self) -> bool:
        return self.finished and self._reason == "stop"

    def _assessed(self, confidence: float) -> Assessed:
        self._assesses = False
        return Assessed(id=self.id, confidence=confidence)

    def _describe(self, choice: Choice) -> Token:
        vocabulary = self._runtime.vocabulary
        pieces = [(vocabulary.raw(i), p) for i, p in choice.top]
        top = tuple(Alternative(b.decode("utf-8", "replace"), b, p) for b, p in pieces)
        data = vocabulary.raw(choice.token)
        return Token(choice.token, data.decode("utf-8", "replace"), data, choice.logprob, top)


class _Released:
    """The answer's text and tokens on their way out: withheld while they may belong to a stop string, or to a mark of
    thinking. A stop string ends the thinking, too."""

    def __init__(self, stops: Stops, thinking: Thinking) -> None:
        self._stops, self._thinking = stops, thinking
        self._characters = Characters()
        self._fed = 0
        self._reasoning: list[str] = []
        self._text: list[str] = []
        self._tokens: list[tuple[int, int, Token]] = []  # begin, end (in characters of the answer), token

    @property
    def stopped(self) -> bool:
        return self._stops.matched

    @property
    def thinks(self) -> bool:
        return self._thinking.thinks

    def add(self, data: bytes, token: Token | None) -> None:
        begin = self._fed
        self._feed(self._characters.feed(data))
        if token is not None:
            self._tokens.append((begin, self._fed, token))

    def end(self) -> None:
        if not self.stopped:
            self._feed(self._characters.end())
        if not self.stopped:
            self._show(self._stops.end())
        self._take(self._thinking.end())

    def take(self) -> tuple[str, str, tuple[Token, ...]]:
        """What may be shown since the last call: thinking, text, and the text's tokens. Of a token that a stop string
        cuts in two, the token is reported."""
        reasoning, text = "".join(self._reasoning), "".join(self._text)
        self._reasoning.clear()
        self._text.clear()
        shown, begins = self._thinking.decided, self._thinking.begins
        if self.stopped:
            ready = [entry for entry in self._tokens if entry[0] < shown]
            self._tokens.clear()
        elif begins is None:  # the last may be the first bytes of the answer
            ready = []
        else:
            ready = [entry for entry in self._tokens if entry[1] <= shown]
            self._tokens = [entry for entry in self._tokens if entry[1] > shown]
        of_text = (t for begin, end, t in ready if begins is not None and (begin >= begins or end > begins))
        return reasoning, text, tuple(of_text)

    def _feed(self, text: str) -> None:
        self._fed += len(text)
        self._show(self._stops.feed(text))

    def _show(self, text: str) -> None:
        self._take(self._thinking.feed(text))

    def _take(self, told: tuple[str, str]) -> None:
        self._reasoning.append(told[0])
        self._text.append(told[1])


def _opened(prompt: Sequence[int], runtime: Runtime) -> bool:
    """Whether the prompt, in the model's template, has opened the thinking."""
    raw = runtime.vocabulary.raw
    return opens(b"".join(raw(token) for token in prompt[-LONGEST_MARK:]).decode("utf-8", "replace"))
