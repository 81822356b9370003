"""From bytes to text that may be shown: whole characters, and nothing of a stop string."""

import codecs
from collections.abc import Sequence

from router.thinking import overlap


class Characters:
    """Bytes to text as they come: an unfinished character waits for its end, invalid bytes become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> str:
        """The characters that are complete now."""
        return self._decoder.decode(data)

    def end(self) -> str:
        """What is left of a character that was never finished, as U+FFFD, or nothing."""
        return self._decoder.decode(b"", final=True)


class Stops:
    """Withholds text that may be the beginning of a stop string, also across tokens."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """The text that may be shown. After a match (`matched`) it ends right before the stop string."""
        if not self._stops:
            return text
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.matched, self._held = True, ""
            return text[: min(found)[1]]  # the stop string that ends first, however the text was cut into pieces
        keep = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """What was withheld: the answer is over, so it was no stop string."""
        held, self._held = self._held, ""
        return held
