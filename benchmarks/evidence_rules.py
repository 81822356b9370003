"""What promotes a student, Retort's own tests and others, and the traffic that it meets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from evidence_nulls import Stream, World
from evidence_rivals import Hits
from evidence_walk import Codes, crossings, path_crossings

from router.sequential import quality
from router.sequential.mixture import Floats

ALPHA = 0.05
LIMIT = float(np.log(1.0 / ALPHA))


@dataclass(frozen=True)
class Rule:
    """Something that promotes (or accuses).

    `kind`: "test" promises alpha; "detector" promises a run length; "rival" is what else is done. `broken`: which of
    a test's assumptions this null breaks on purpose. `gain`: what a test bets on, by code; its mean is 0 in its null.
    """

    name: str
    promoted: Callable[[Stream], Hits]
    kind: Literal["test", "detector", "rival"] = "test"
    broken: str = ""
    gain: Floats | None = None


@dataclass(frozen=True)
class Cell:
    """A null, and the rules that meet it. `cost`: microseconds a look of a path or so, for the estimate of time."""

    stream: str
    null: str
    world: World
    rules: tuple[Rule, ...]
    cost: float = 0.1

    @property
    def name(self) -> str:
        """Of its part, and of the file that keeps it."""
        return f"{self.stream}, {self.null}"


def own(name: str, factors: Floats, broken: str = "") -> Rule:
    """One of Retort's tests at alpha 5%, by its log factors of every code."""
    gain = np.expm1(factors[:, 0])
    return Rule(name, lambda stream: crossings(factors, stream.codes, LIMIT) > 0, broken=broken, gain=gain)


def betting(differences: Floats, margin: float, weights: Floats | None = None, broken: str = "") -> Rule:
    """The quality test, whose bets depend on the pairs before, by D and weight of every code."""
    weight = np.ones(len(differences)) if weights is None else weights

    def promoted(stream: Stream) -> Hits:
        def passes(codes: Codes) -> Floats:
            return quality.passes(differences[codes], margin, 1.0 if weights is None else weight[codes])

        return path_crossings(passes, stream.codes, LIMIT) > 0

    return Rule("betting", promoted, broken=broken, gain=weight * (differences + margin))


def rival(name: str, promoted: Callable[[Stream], Hits]) -> Rule:
    return Rule(name, promoted, "rival")
