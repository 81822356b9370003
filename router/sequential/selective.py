"""Which confidence may a student answer at? Selective serving: it answers what it is sure of, the teacher the rest.

Thresholds of confidence tau_1 > tau_2 > ... are chosen offline, in the order of testing: the first is the loosest that
looked safe, the rest loosen it. Over pairs i with confidence c_i, loss_i in [0, 1] and weight w_i in (0, 1]
    x_i = w_i 1{c_i >= tau_k} (loss_i - max_risk),     H0(k): E[x_i | past] >= 0,
    M_k = mean over j of prod_i (1 - l_j x_i),         l_j < 1 / (1 - max_risk).
tau_k is certified while M_k >= 1/alpha, and **in force** is the last tau_k such that tau_1 ... tau_k are all certified
now (a fixed sequence: alpha is not split). So P(a threshold is ever in force whose risk per served answer has been
>= max_risk at every pair so far) <= alpha: the first such one in the order must itself have reached 1/alpha.

Weights. A pair that is asked for at rate p (a served answer: the audit rate; a deferred one: 1) has
    w = (the smallest rate, as known before the pair) / p,
so that E[w 1{it is a pair} ...] is that smallest rate times what all requests have: H0(k) keeps its meaning, and since
w <= 1 no factor is negative. The smallest rate must not depend on the pair's own confidence.

Certificates are live. M_k is capped: all of its bets are scaled down together whenever the best stands above CAP, which
only throws capital away (still a supermartingale), so that evidence from good times is no credit for bad ones. And an
e-detector, a CUSUM of x over the pairs that the threshold in force had accepted before they came, takes the threshold
in force back when it reaches its boundary. Then this threshold and all looser ones begin afresh at M = 1, with no
counts, and the one before it is in force; what was taken back may come again on new evidence alone, at alpha each
time. Where there is none before it, nothing is served, and `fallen` counts it.

Assumes that a pair's loss is judged on its own request; nothing else about the stream. O(thresholds x bets) a pair.

Sources: Waudby-Smith & Ramdas 2024 (bets); Angelopoulos et al. 2022, "Learn then test" (fixed sequence); Shin, Ramdas &
Rinaldo 2023 (e-detectors); arXiv 2605.20270 (an e-process per threshold, with a Bonferroni grid).
"""

import math
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from router.errors import RouterError
from router.sequential.mixture import Floats, cusum_logs, grid, log_mean

LOG_CAP = math.log(10_000.0)
DETECTOR = math.log(3000.0)
ROWS = 2048  # pairs in one go: bounds the memory


class Tested(msgspec.Struct, frozen=True):
    """One threshold. `logs`: the log capital of each bet. Since it began (afresh): `seen`, the weight of all pairs;
    `accepted` and `weight`, the number and weight of those that it accepts; `lost`, the sum of w x loss over these."""

    threshold: float
    logs: tuple[float, ...]
    seen: float = 0.0
    accepted: int = 0
    weight: float = 0.0
    lost: float = 0.0

    @property
    def log_value(self) -> float:
        """The e-value's log."""
        return float(log_mean(np.array(self.logs)))

    @property
    def coverage(self) -> float:
        """The share of requests that it accepts; 0 before the first pair."""
        return self.weight / self.seen if self.seen else 0.0

    @property
    def risk(self) -> float | None:
        """The mean loss of what it accepts; None before the first such pair."""
        return self.lost / self.weight if self.weight else None

    def bound(self, alpha: float) -> float:
        """An upper bound of the risk, at level 1 - alpha however often one looks, for a risk that is constant.

        The largest r whose H0(E[loss | past] >= r) the mixture with max_risk = r doesn't refute, by bisection. The sums
        suffice: log(1 - l w (loss - r)) is concave in loss and in w, so it is at least
        w (loss log(1 - l (1 - r)) + (1 - loss) log(1 + l r)); it is equal for losses 0 and 1 with w = 1.
        """
        low, high = 0.0, 1.0
        for _ in range(40):
            r = (low + high) / 2.0
            low, high = (low, r) if _refuted_above(self, r) >= math.log(1.0 / alpha) else (r, high)
        return high


class Selective(msgspec.Struct, frozen=True):
    """All thresholds of a version, in the order of testing, and the e-detector of what was served. `n`: pairs seen.
    `taken_back`: how often a threshold in force was; `fallen`: how often that was the first one."""

    tested: tuple[Tested, ...]
    detector: tuple[float, ...]
    n: int = 0
    taken_back: int = 0
    fallen: int = 0

    @classmethod
    def start(cls, thresholds: tuple[float, ...]) -> "Selective":
        """Before the first pair. Raises RouterError for thresholds that do not fall within (0, 1]."""
        falling = all(a > b for a, b in pairwise(thresholds))
        if not thresholds or not falling or not all(0.0 < t <= 1.0 for t in thresholds):
            raise RouterError(
                f"thresholds of confidence must be in (0, 1], each looser (lower) than the one before, "
                f"for example 0.9, 0.8, 0.6; got {list(thresholds)}"
            )
        none = (0.0,) * len(_bets(0.5))
        return cls(tuple(Tested(float(t), none) for t in thresholds), none)

    def in_force(self, alpha: float) -> int:
        """How many of the thresholds are certified now, counted from the first to the first that isn't."""
        for k, tested in enumerate(self.tested):
            if tested.log_value < math.log(1.0 / alpha):
                return k
        return len(self.tested)

    def threshold(self, alpha: float) -> float | None:
        """The threshold in force; None where nothing may be served."""
        k = self.in_force(alpha)
        return self.tested[k - 1].threshold if k else None

    def alarm(self) -> bool:
        """Whether even the first threshold was taken back by the detector."""
        return self.fallen > 0

    def fold(
        self,
        confidence: Floats,
        loss: Floats,
        weight: Floats,
        *,
        max_risk: float,
        alpha: float,
        log_boundary: float = DETECTOR,
    ) -> "Selective":
        """The state after these pairs (n each, in order), the same as after one by one. `log_boundary`: of the
        e-detector. Raises RouterError for a value out of its range."""
        confidence, loss, weight = (np.asarray(a, dtype=np.float64) for a in (confidence, loss, weight))
        _check(confidence, loss, weight)
        state, at = self, 0
        while at < len(loss):
            part = slice(at, at + ROWS)
            state, used = state._step(confidence[part], loss[part], weight[part], (max_risk, alpha, log_boundary))
            at += used
        return state

    def _step(
        self, confidence: Floats, loss: Floats, weight: Floats, rule: tuple[float, float, float]
    ) -> tuple["Selective", int]:
        """Fold up to and with the pair at which the detector fires; also returns how many pairs that were."""
        max_risk, alpha, log_boundary = rule
        x = weight * (loss - max_risk)
        taken = confidence[:, None] >= np.array([t.threshold for t in self.tested])  # (n, thresholds)
        paths = _capped(np.log1p(-x[:, None] * _bets(max_risk)), taken, np.array([t.logs for t in self.tested]))
        certified = log_mean(paths) >= math.log(1.0 / alpha)
        force = np.logical_and.accumulate(certified, axis=1).sum(axis=1)
        before = np.concatenate(([self.in_force(alpha)], force[:-1]))  # in force when the pair came
        served = (before > 0) & taken[np.arange(len(x)), before - 1]
        harm = cusum_logs(np.log1p(np.where(served, x, 0.0)[:, None] * _harm_bets(max_risk)), self.detector)
        fired = (log_mean(harm) >= log_boundary) & (before > 0)
        used = int(fired.argmax()) + 1 if fired.any() else len(x)
        last, mask = used - 1, taken[:used]
        tested = tuple(
            Tested(
                old.threshold,
                tuple(paths[last, k].tolist()),
                old.seen + float(weight[:used].sum()),
                old.accepted + int(mask[:, k].sum()),
                old.weight + float(weight[:used] @ mask[:, k]),
                old.lost + float((weight * loss)[:used] @ mask[:, k]),
            )
            for k, old in enumerate(self.tested)
        )
        state = Selective(tested, tuple(harm[last].tolist()), self.n + used, self.taken_back, self.fallen)
        return (state._back(int(before[last])) if fired.any() else state), used

    def _back(self, in_force: int) -> "Selective":
        """Take the threshold in force, and with it all looser ones, back."""
        afresh = Selective.start(tuple(t.threshold for t in self.tested))
        tested = self.tested[: in_force - 1] + afresh.tested[in_force - 1 :]
        return Selective(tested, afresh.detector, self.n, self.taken_back + 1, self.fallen + (in_force == 1))

    def futile(
        self, *, max_risk: float, alpha: float, n_max: int
    ) -> Literal["undecided", "too_slow", "inferior"] | None:
        """Why nothing will be certified: the first threshold's risk is proven to be above max_risk at level alpha
        (inferior; by the sums, see `Tested.bound`), n_max pairs have not certified it (undecided), or at its present
        rate they would not (too_slow, from a fifth of n_max on). None while a threshold is in force or may come to be.
        Stopping never raises alpha."""
        first, needed = self.tested[0], math.log(1.0 / alpha)
        if first.log_value >= needed:
            return None
        if _refuted_below(first, max_risk) >= needed:
            return "inferior"
        if self.n >= n_max:
            return "undecided"
        slow = self.n >= n_max // 5 and first.log_value / self.n * n_max < needed
        return "too_slow" if slow else None


def _bets(max_risk: float) -> Floats:
    return grid(0.01, 0.9, 1.0 - max_risk)


def _harm_bets(max_risk: float) -> Floats:
    return grid(0.01, 0.9, max_risk)


def _capped(factors: Floats, taken: NDArray[np.bool_], start: Floats) -> Floats:
    """Log capitals (n, thresholds, bets) from log factors (n, bets), (n, thresholds) accepted or not, and their start:
    after each pair, all bets of a threshold are scaled down so that the best is at the cap."""
    paths = start + np.cumsum(np.where(taken[:, :, None], factors[:, None, :], 0.0), axis=0)
    excess = np.maximum.accumulate(np.maximum(paths.max(axis=2) - LOG_CAP, 0.0), axis=0)
    return np.asarray(paths - excess[:, :, None])


def _refuted_above(tested: Tested, r: float) -> float:
    """The least log e-value against a risk of r or more that sums like these can come from."""
    bets = _bets(r) if r < 1.0 else np.zeros(1)
    good = tested.weight - tested.lost
    return float(log_mean(tested.lost * np.log1p(-bets * (1.0 - r)) + good * np.log1p(bets * r)))


def _refuted_below(tested: Tested, r: float) -> float:
    """The least log e-value against a risk of r or less that sums like these can come from."""
    bets = _harm_bets(r)
    good = tested.weight - tested.lost
    return float(log_mean(tested.lost * np.log1p(bets * (1.0 - r)) + good * np.log1p(-bets * r)))


def _check(confidence: Floats, loss: Floats, weight: Floats) -> None:
    if not (confidence.shape == loss.shape == weight.shape and loss.ndim == 1):
        raise RouterError(
            "confidence, loss and weight are one value a pair each; "
            f"got {confidence.shape}, {loss.shape}, {weight.shape}"
        )
    for name, values, least in (("confidence", confidence, 0.0), ("loss", loss, 0.0), ("weight", weight, 1e-9)):
        if not np.all((values >= least) & (values <= 1.0)):
            wanted = "(0, 1]" if least else "[0, 1]"
            raise RouterError(f"{name} must be in {wanted}; got {values.min()} to {values.max()}")
