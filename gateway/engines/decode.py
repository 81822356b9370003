"""The decoding of one answer: from the logits after each token to what may be shown of it."""

from exporters.models import Confidence
from gateway.engines.errors import ContextTooLong, DecodeFailed
from gateway.engines.protocol import Event, Generate
from gateway.engines.runtime import Runtime
from gateway.engines.sampling import Choice, Row, Sampler
from gateway.engines.telling import Telling, described, opens_thinking


class Decoding:
    """`unread`: what the model has yet to read before it goes on. `begun`: whether it has had a turn. Raises
    ContextTooLong when it is made."""

    def __init__(self, request: Generate, prompt: list[int], *, runtime: Runtime, confidence: Confidence) -> None:
        room = runtime.context_length - len(prompt)
        if room < 1:
            raise ContextTooLong(
                f"This model's context is {runtime.context_length} tokens, the messages take {len(prompt)}."
            )
        options = request.options
        self.id, self.at = request.id, request.at
        self.answer: list[int] = []
        self.finished = False
        most = min(room, runtime.most_answer)
        self._most = min(options.max_tokens or most, most)
        self.prompt = prompt
        self.unread = prompt
        self.begun = False
        self._rows = 0
        self._runtime = runtime
        self._sampler = Sampler(options)
        self._reports = options.top_logprobs is not None
        opened = opens_thinking(runtime.vocabulary, prompt)
        self._form = runtime.form(options.schema, opened=opened) if options.schema else None
        self._telling = Telling(request.id, request.messages, options, confidence=confidence, opened=opened)

    def begin(self) -> list[Event]:
        """What is known before the first pass."""
        return self._telling.begin()

    @property
    def line(self) -> list[int]:
        """The prompt, and what there is of the answer."""
        return [*self.prompt, *self.answer]

    @property
    def last(self) -> int:
        """The answer's last token, which the model has not read yet."""
        return self.answer[-1]

    def take(self, logits: Row, *, rows: int) -> list[Event]:
        """Go on by one token; what it brings, ending with Done when the answer is complete. `rows`: how many requests
        shared the pass. Raises DecodeFailed, FloatingPointError."""
        self._rows += rows
        self._accept(self._choose(logits))
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

    def _accept(self, choice: Choice) -> None:
        token = choice.token
        self.answer.append(token)
        if token in self._runtime.ends:
            if self._form is not None and not self._form.complete:
                raise DecodeFailed("the model ended within its thinking, before the answer that was asked for")
            self._telling.take(choice.logprob, None)
            self._finish("stop")
            return
        vocabulary = self._runtime.vocabulary
        shown = vocabulary.shown(token)
        if self._form is not None:
            self._form.take(token, shown)
        told = described(vocabulary, token, choice.logprob, choice.top) if self._reports else None
        self._telling.take(choice.logprob, shown, told)
        if self._telling.stopped:
            self._finish("stop")
        elif len(self.answer) >= self._most:
            self._finish("length")

    def _finish(self, reason: str) -> None:
        self.finished = True
        self._telling.finish(reason, batch=self._rows / len(self.answer))
