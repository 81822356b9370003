"""A model's thinking and its answer, told apart: `<think>...</think>` before the answer, as Qwen3, SmolLM3 and
DeepSeek-R1 write it. A template may have opened the thinking already, in what it asks with. Pure."""

OPEN, CLOSE = "<think>", "</think>"


class Thinking:
    """Takes a text apart as it comes, in any pieces. What may yet be a mark is held back; white space around the
    thinking, and before the answer that follows it, belongs to neither. A text without thinking is left as it is.

    `opened`: the thinking has begun before the text. `thinks`: it is in its thinking now. `fed`: characters so far,
    `decided`: of them those that were told apart, `begins`: where the answer begins, None until that is known.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self.thinks = opened
        self.fed = 0
        self.begins: int | None = None
        self._looks = not opened  # for the opening mark
        self._fresh = True  # nothing of the thinking came yet
        self._held = ""

    @property
    def decided(self) -> int:
        """See the class."""
        return self.fed - len(self._held)

    def feed(self, text: str) -> tuple[str, str]:
        """What the text adds to the thinking, and to the answer."""
        self.fed += len(text)
        text, self._held = self._held + text, ""
        if self._looks:
            bare = text.lstrip()
            if OPEN.startswith(bare):
                self._held = text
                return "", ""
            self._looks = False
            if not bare.startswith(OPEN):
                self.begins = self.fed - len(text)
                return "", text
            self.thinks, text = True, bare[len(OPEN) :]
        thought = ""
        if self.thinks:
            text = text.lstrip() if self._fresh else text
            thought, mark, text = text.partition(CLOSE)
            if not mark:
                shown = thought[: len(thought) - overlap(thought, CLOSE)].rstrip()
                self._held = thought[len(shown) :]
                self._fresh = self._fresh and not shown
                return shown, ""
            self.thinks, thought = False, thought.rstrip()
        if self.begins is None:
            text = text.lstrip()
            self.begins = self.fed - len(text) if text else None
        return thought, text

    def end(self) -> tuple[str, str]:
        """What was held back: the text is over, so it was no mark."""
        held, self._held = self._held, ""
        if self.thinks:
            return held.rstrip(), ""
        self.begins = self.fed - len(held) if self.begins is None else self.begins
        return "", held


def split(text: str, *, opened: bool = False) -> tuple[str, str]:
    """A whole text's thinking ("" without any) and answer."""
    thinking = Thinking(opened=opened)
    thought, answer = thinking.feed(text)
    more, rest = thinking.end()
    return thought + more, answer + rest


def written(thought: str, answer: str) -> str:
    """Inverse of `split`, in the form of Qwen3's and SmolLM3's templates."""
    return f"{OPEN}\n{thought}\n{CLOSE}\n\n{answer}" if thought else answer


def opens(prompt: str) -> bool:
    """Whether a template's text, up to where the model goes on, has opened the thinking."""
    return prompt.rstrip().endswith(OPEN)


def overlap(text: str, mark: str) -> int:
    """The length of the longest end of a text that a mark begins with, short of the whole mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)
