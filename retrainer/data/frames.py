"""What is compared of a prompt: its texts, without what an app writes around all of its users' words.

The frames of a route are learnt while its log is read, always from the same records: those of a whole page, where most
of them stand in no frame that is known, for itself and the pages that follow; so what comes later changes nothing of
what was compared before. (A log that fills no page has none. An app that changes its instruction gets another.)
"""

from collections.abc import Mapping, Sequence

import msgspec

from exporters.models.frame import Frame

MOST = 8  # frames
Messages = Sequence[Mapping[str, str]]


class Frames(msgspec.Struct):
    """`known`: the earliest first."""

    known: list[Frame] = []

    def learn(self, prompts: Sequence[Messages]) -> None:
        """Look at a page, which is whole."""
        texts = list(dict.fromkeys(prompt_text(messages) for messages in prompts))
        strange = [text for text in texts if self._inner(text) == text]
        if len(self.known) < MOST and 2 * len(strange) > len(texts) and (found := Frame.of(strange)) != Frame():
            self.known = [*self.known, found]

    def text(self, messages: Messages) -> str:
        """What makes prompts alike."""
        return self._inner(prompt_text(messages))

    def _inner(self, text: str) -> str:
        return next((inner for frame in self.known if (inner := frame.inner(text)) != text), text)


def prompt_text(messages: Messages) -> str:
    """A prompt's texts, case and white space aside. The system prompt is left out: all of a route's requests share
    it."""
    text = "\n".join(m["content"] for m in messages if m["role"] != "system").casefold()
    return " ".join(text.split())
