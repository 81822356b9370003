"""Have a route's inputs shifted away from what its last data set was made of?

Inputs are put into bins: the nearest of PROTOTYPES training inputs (k-means++ seeds of their hashed n-grams, see
`exporters.models.novelty`), and one bin for what is farther from all of them than FAR of the known inputs are: those of
the log from which the data set was made, whoever answered them. (Its own examples are what the teacher answered. Once a
student serves, those are the hard ones, and a prompt that is asked every day stands among them once.) With the known
inputs' shares q (of N) and a window's shares p (of M), each count plus one half,

    PSI = sum (p - q) ln(p / q)

Without a shift it is about (1/N + 1/M) times a chi-squared variable with (bins - 1) degrees of freedom (Yurdakul &
Naranjo 2020), so besides the policy's threshold it has to be above that variable's LEVEL quantile: small samples can't
raise an alarm by chance. Windows don't overlap; an input costs one product with the prototypes.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from retrainer.data.dataset import Dataset
from router.policy_cycle import DriftPolicy

PROTOTYPES = 12
MOST_WEIGHED = 2000  # training inputs among which they are chosen
FAR = 0.95
LEVEL = 0.999

Messages = Sequence[Mapping[str, str]]


class Shift(msgspec.Struct, frozen=True):
    """A window's PSI against its bound, the larger one of the threshold and what chance would reach."""

    psi: float
    bound: float

    @property
    def found(self) -> bool:
        """Whether the population has shifted."""
        return self.psi > self.bound


class Drift:
    """One route's, against one data set. `known`: inputs like those it was made of, one at the least."""

    def __init__(self, dataset: Dataset, policy: DriftPolicy, known: Sequence[Messages]) -> None:
        import numpy as np  # noqa: PLC0415 - only a route that asks for it pays for it

        from exporters.models.novelty import Neighbours, evenly  # noqa: PLC0415
        from retrainer.data.k_means import seeds  # noqa: PLC0415 - numpy

        self._policy = policy
        inputs = [example.messages for example in dataset.train]
        self._neighbours = Neighbours.of(inputs)
        vectors = np.stack([self._neighbours.vector(m) for m in evenly(inputs, MOST_WEIGHED)])
        chosen = seeds(vectors, PROTOTYPES, first=0, draw=np.random.default_rng(0))
        self._prototypes = vectors[chosen]
        nearest = [self._nearest(m) for m in known]
        self._near = float(np.quantile([cosine for _, cosine in nearest], 1.0 - FAR))
        self._expected = Counter(self._binned(*found) for found in nearest)
        self._window: Counter[int] = Counter()

    def add(self, messages: Messages) -> Shift | None:
        """Count an input; says what came of a window that is full, which then begins anew."""
        self._window[self._binned(*self._nearest(messages))] += 1
        if self._window.total() < self._policy.window:
            return None
        shift = psi(self._expected, self._window, bins=len(self._prototypes) + 1, threshold=self._policy.threshold)
        self._window.clear()
        return shift

    def _nearest(self, messages: Messages) -> tuple[int, float]:
        cosines = self._prototypes @ self._neighbours.vector(messages)
        nearest = int(cosines.argmax())
        return nearest, float(cosines[nearest])

    def _binned(self, nearest: int, cosine: float) -> int:
        return nearest if cosine >= self._near else -1


def psi(expected: Mapping[int, int], found: Mapping[int, int], *, bins: int, threshold: float) -> Shift:
    """Of two samples' counts by bin; see the module."""
    from scipy.stats import chi2  # noqa: PLC0415 - heavy: only a full window pays for it

    n, m = sum(expected.values()), sum(found.values())
    value = 0.0
    for bin_ in {*expected, *found}:
        q = (expected.get(bin_, 0) + 0.5) / (n + 0.5 * bins)
        p = (found.get(bin_, 0) + 0.5) / (m + 0.5 * bins)
        value += (p - q) * math.log(p / q)
    chance = (1.0 / n + 1.0 / m) * float(chi2.ppf(LEVEL, bins - 1))
    return Shift(psi=value, bound=max(threshold, chance))
