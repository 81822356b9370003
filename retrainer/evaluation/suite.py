"""What a safety suite came to. The suites themselves are `retrainer.safety`."""

import msgspec

from retrainer.evaluation.bounds import clopper_pearson_upper


class Failing(msgspec.Struct, frozen=True, kw_only=True):
    """A case that failed, its texts cut."""

    case: str
    request: str
    answer: str
    why: str


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """`failed` of `cases` failed, `excused` not counted. `tolerated`: the share that may; with `surely`, one above it
    fails the suite only where that is sure (Clopper & Pearson 1934, one-sided, 95%). `note`: for people."""

    name: str
    cases: int
    failed: int
    excused: int
    tolerated: float
    surely: bool = False
    note: str = ""
    examples: list[Failing] = []

    @property
    def passed(self) -> bool:
        """Whether no more failed than may."""
        if self.surely:
            return 1.0 - clopper_pearson_upper(self.cases - self.failed, self.cases, level=0.95) <= self.tolerated
        return self.failed <= self.tolerated * self.cases + 1e-9
