"""From the tokens of an answer, as any runtime draws them, to the events that tell it: text that may be shown, its
tokens, how sure the student is."""

from collections.abc import Iterable, Mapping, Sequence

from exporters.models import Confidence
from exporters.models.vocabulary import Vocabulary
from gateway.engines.protocol import Alternative, Assessed, Done, Event, Options, Piece, Token
from gateway.engines.text import Characters, Stops
from router.thinking import Thinking, opens

_LONGEST_MARK = 16  # tokens, with the white space after it


class Telling:
    """One answer to `messages`, under the request's id. `opened`: its prompt has opened the thinking."""

    def __init__(
        self,
        request_id: int,
        messages: Sequence[Mapping[str, str]],
        options: Options,
        *,
        confidence: Confidence,
        opened: bool,
    ) -> None:
        self.id = request_id
        self.finish_reason: str | None = None
        self._confidence = confidence
        self._novelty = confidence.novelty(messages)
        self._logprobs: list[float] = []
        self._assesses = options.assess
        self._held: list[Event] = []
        self._text = _Released(Stops(options.stop), Thinking(opened=opened))
        self._thought = 0  # tokens
        self._batch: float | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._text.stopped

    def begin(self) -> list[Event]:
        """What is known before the first token: whoever asks for an assessment need not wait for that of an input which
        is like nothing that the student has learnt."""
        return [self._assessed(0.0)] if self._assesses and self._confidence.novel(self._novelty) else []

    def take(self, logprob: float, shown: bytes | None, token: Token | None = None) -> None:
        """The next token, at temperature 1: its text (None: it ends the answer), and its description where tokens are
        reported."""
        self._logprobs.append(logprob)
        if shown is None:
            return
        thinks = self._text.thinks
        self._text.add(shown, token)
        if thinks or self._text.thinks:
            self._thought = len(self._logprobs)

    def finish(self, reason: str, *, batch: float | None = None) -> None:
        """No further token comes. `batch`: see Done."""
        self.finish_reason, self._batch = reason, batch
        self._text.end()

    def events(self) -> list[Event]:
        """What the tokens since the last call brought, ending with Done when the answer is finished."""
        events: list[Event] = []
        reasoning, text, tokens = self._text.take()
        if reasoning or text or tokens:
            events.append(Piece(id=self.id, text=text, tokens=tokens, reasoning=reasoning))
        ended = self.finish_reason == "stop"
        if self.finish_reason is not None:
            events.append(
                Done(
                    id=self.id,
                    finish_reason=self.finish_reason,
                    completion_tokens=len(self._logprobs),
                    confidence=self._confidence.whole(self._logprobs, finished=ended, novelty=self._novelty),
                    reasoning_tokens=self._thought,
                    batch=self._batch,
                )
            )
        if not self._assesses:
            return events
        self._held += events
        if self.finish_reason is None and len(self._logprobs) < self._confidence.prefix_tokens:
            return []
        early = self._confidence.prefix(self._logprobs, finished=ended, novelty=self._novelty)
        held, self._held = self._held, []
        return [self._assessed(early), *held]

    def _assessed(self, confidence: float) -> Assessed:
        self._assesses = False
        return Assessed(id=self.id, confidence=confidence)


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


def described(vocabulary: Vocabulary, token: int, logprob: float, top: Iterable[tuple[int, float]]) -> Token:
    """A token as it is reported. `top`: the likeliest tokens with their log probabilities."""
    pieces = [(vocabulary.raw(i), p) for i, p in top]
    data = vocabulary.raw(token)
    alternatives = tuple(Alternative(b.decode("utf-8", "replace"), b, p) for b, p in pieces)
    return Token(token, data.decode("utf-8", "replace"), data, logprob, alternatives)


def opens_thinking(vocabulary: Vocabulary, prompt: Sequence[int]) -> bool:
    """Whether a prompt, in the model's template, has opened the thinking."""
    return opens(b"".join(map(vocabulary.raw, prompt[-_LONGEST_MARK:])).decode("utf-8", "replace"))
