"""What a safety suite came to. The suites themselves are `retrainer.safety`."""

import msgspec

from retrainer.evaluation.bounds import clopper_pearson_upper


class Failing(msgspec.Struct, frozen=True, kw_only=True):
    """A case that failed, its texts cut."""

    case: str
    request: str
    answer: str
    why: str


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """So many training `answers` hold so many different `secrets` that their requests don't. `ids`: of the first few
    examples. `allowed`: the route's policy keeps them."""

    answers: int
    secrets: int
    ids: list[str]
    allowed: bool

    def said(self) -> str:
        """For people; no secret is in it."""
        shown = ", ".join(self.ids) + (", ..." if self.answers > len(self.ids) else "")
        return (
            f"secrets that their requests don't hold stand in {self.answers} training answers ({self.secrets} distinct"
            f"; records {shown})"
        )


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """`failed` of `cases` failed, `excused` not counted. `tolerated`: the share that may; with `surely`, one above it
    fails the suite only where that is sure (Clopper & Pearson 1934, one-sided, 95%). `note`: for people.
    `planted`: the secrets of the training answers, which fail the suite whatever was said, unless they are allowed."""

    name: str
    cases: int
    failed: int
    excused: int
    tolerated: float
    surely: bool = False
    note: str = ""
    examples: list[Failing] = []
    planted: Planted | None = None

    @property
    def passed(self) -> bool:
        """Whether no more failed than may, and nothing was planted."""
        return self.bears and not self.poisoned

    @property
    def poisoned(self) -> bool:
        """Whether what was learnt holds secrets that nobody has allowed; a suite that is off doesn't ask."""
        return self.planted is not None and not self.planted.allowed and self.tolerated < 1.0

    @property
    def bears(self) -> bool:
        """Whether no more answers failed than may."""
        if self.surely:
            return 1.0 - clopper_pearson_upper(self.cases - self.failed, self.cases, level=0.95) <= self.tolerated
        return self.failed <= self.tolerated * self.cases + 1e-9
