"""At which confidence may a student answer? Selective serving: it answers what it is sure of, the teacher the rest.

Thresholds of confidence tau_1 > tau_2 > ... are chosen offline. Over pairs i with confidence c_i, loss_i in [0, 1] and
weight w_i in (0, 1],
    x_i = w_i 1{c_i >= tau_k} (loss_i - max_risk),     H0(k): E[x_i | past] >= 0 at every pair,
    M_k = mean over j of prod_i (1 - l_j x_i),         l_j geometric on [0.1, 0.9] / (1 - max_risk).
Each threshold has a share of alpha, v_k, with sum 1, that passes on to the next looser one. With f_0 = 0 and V the sums
of the shares,
    f_k = min over j < k of f_j + (V_k - V_j) M_k,     certified from f_k >= 1/alpha on, until f_k < 1/sqrt(alpha),
and **in force** is the loosest certified threshold. Then P(a threshold for which H0 is true is ever in force) <= alpha:
let T hold these thresholds; giving each the shares between it and the one of T before it, the weighted mean of M over T
is a supermartingale from at most 1, and f_k for k in T is the least such mean over all sets that end with k. This is
closed testing with e-values. It certifies whatever a Bonferroni grid with these shares does, and more: below certified
thresholds the shares add up, and what is known of the stricter ones counts.

Weights. A pair that is asked for at rate p (a served answer: the audit rate; a deferred one: 1) has
    w = (the smallest rate, as known before the pair) / p,
so that E[1{it is a pair} w ...] is that smallest rate times what all requests have: H0(k) keeps its meaning, and as
w <= 1 no factor is negative. The smallest rate must not depend on the pair's own confidence.

Certificates are live: one is lost when f_k has fallen below 1/sqrt(alpha), half of the evidence in logs. (Were it lost
just below 1/alpha, the first loss after it was given would take it, and the version with it.) M_k is capped at
CAP/alpha by scaling all of its bets down together, which only throws capital away (still a supermartingale), so that
good times are no long credit for bad ones. And an e-detector, the CUSUM of x over the pairs that the threshold in force
when they came accepts, takes that threshold back when it reaches its boundary: it and every looser one lose their
certificates, their M become min(M, 1), spread evenly over the bets, their counts begin afresh, and the loosest
threshold that is still certified is in force. What was taken back comes again when its M has grown to its certificate
anew. As capital is only thrown away or moved between bets, alpha covers all of it.

Assumes that a pair's loss is judged on its own request; nothing else about the stream. O(thresholds x bets) a pair.
CAP: the largest at which a threefold error rate is seen fast (docs/decisions/0006-selective-serving.md).

Sources: Waudby-Smith & Ramdas 2024 (bets); Vovk & Wang 2021 (merging e-values, closed testing); Wiens & Dmitrienko 2005
(passing shares on); Shin, Ramdas & Rinaldo 2023 (e-detectors).
"""

import math
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from router.errors import RouterError
from router.sequential.mixture import Floats, cusum_logs, grid, log_mean
from router.sequential.threshold import BETS, Tested, bets

CAP = 50.0
DETECTOR = math.log(3000.0)
STARTS = 4  # thresholds that share alpha where nothing is known of them: later ones are reached through earlier ones
ROWS = 512  # pairs in one go: arrays stay in the cache, and capital within a float's range for risks up to MOST
MOST = 0.5


class Selective(msgspec.Struct, frozen=True):
    """All thresholds of a version, falling, and the e-detector of what was served. `shares`: of alpha, one a
    threshold. `n`: pairs seen. `taken_back`: how often the detector took back a threshold; `fallen`: how often nothing
    was left in force then."""

    tested: tuple[Tested, ...]
    shares: tuple[float, ...]
    detector: tuple[float, ...] = ()
    n: int = 0
    taken_back: int = 0
    fallen: int = 0

    @classmethod
    def start(cls, thresholds: tuple[float, ...], shares: tuple[float, ...] = ()) -> "Selective":
        """Before the first pair. `shares`: of alpha, by what is known offline (`selective_shares`); without, they are
        even over STARTS of the thresholds. Raises RouterError for thresholds that do not fall within (0, 1], and for
        shares that are not as many, not negative, with a sum of 1."""
        falling = all(a > b for a, b in pairwise(thresholds))
        if not thresholds or not falling or not all(0.0 < t <= 1.0 for t in thresholds):
            raise RouterError(
                f"thresholds of confidence must be in (0, 1], each looser (lower) than the one before, "
                f"for example 0.9, 0.8, 0.6; got {list(thresholds)}"
            )
        shares = shares or even_shares(len(thresholds))
        if len(shares) != len(thresholds) or min(shares) < 0.0 or not math.isclose(sum(shares), 1.0, rel_tol=1e-6):
            raise RouterError(
                f"shares of alpha must be one a threshold, none negative, with the sum 1; got {list(shares)}"
            )
        return cls(tuple(Tested(float(t)) for t in thresholds), tuple(float(share) for share in shares))

    @property
    def in_force(self) -> Tested | None:
        """The loosest certified threshold; None where nothing may be served."""
        return next((t for t in reversed(self.tested) if t.certified), None)

    def alarm(self) -> bool:
        """Whether the detector has taken back the last certificate, since `fallen` was 0."""
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
        return self.walk(confidence, loss, weight, max_risk=max_risk, alpha=alpha, log_boundary=log_boundary)[0]

    def walk(
        self,
        confidence: Floats,
        loss: Floats,
        weight: Floats,
        *,
        max_risk: float,
        alpha: float,
        log_boundary: float = DETECTOR,
    ) -> tuple["Selective", NDArray[np.int64]]:
        """As fold, and besides the number of the threshold in force when each pair came (n)."""
        confidence, loss, weight = (np.asarray(a, dtype=np.float64) for a in (confidence, loss, weight))
        _check(confidence, loss, weight, max_risk)
        state, at, force = self, 0, np.zeros(len(loss), dtype=np.int64)
        while at < len(loss):
            part = slice(at, at + ROWS)
            state, before = state._step(confidence[part], loss[part], weight[part], (max_risk, alpha, log_boundary))
            force[at : at + len(before)] = before
            at += len(before)
        return state, force

    def _step(
        self, confidence: Floats, loss: Floats, weight: Floats, rule: tuple[float, float, float]
    ) -> tuple["Selective", NDArray[np.int64]]:
        """Fold up to and with the pair at which the detector fires; also what was in force when each of these came."""
        max_risk, alpha, log_boundary = rule
        x = weight * (loss - max_risk)
        taken = confidence[:, None] >= np.array([t.threshold for t in self.tested])  # (n, thresholds)
        logs = np.array([t.logs for t in self.tested])
        paths, values, excess = _capped(np.log1p(-x[:, None] * bets(max_risk)), taken, logs, CAP / alpha)
        certified = _certified(values, self.shares, alpha, np.array([t.certified for t in self.tested]))
        before = _loosest(certified)[:-1]
        served = (before > 0) & taken[np.arange(len(x)), before - 1]
        harm = cusum_logs(np.log1p(np.where(served, x, 0.0)[:, None] * grid(0.01, 0.9, max_risk)), self.detector)
        fired = served & (log_mean(harm) >= log_boundary)
        used = int(fired.argmax()) + 1 if fired.any() else len(x)
        mask, last = taken[:used], used - 1
        sums = zip(mask.sum(axis=0), weight[:used] @ mask, (weight * loss)[:used] @ mask, strict=True)
        tested = tuple(
            Tested(
                old.threshold,
                tuple((paths[last, k] - excess[last, k]).tolist()),
                bool(certified[used, k]),
                old.seen + float(weight[:used].sum()),
                old.accepted + int(n),
                old.weight + float(w),
                old.lost + float(lost),
            )
            for k, (old, (n, w, lost)) in enumerate(zip(self.tested, sums, strict=True))
        )
        state = Selective(tested, self.shares, tuple(harm[last].tolist()), self.n + used, self.taken_back, self.fallen)
        return (state._back(int(before[last])) if fired.any() else state), before[:used]

    def _back(self, number: int) -> "Selective":
        """Take threshold `number`, and with it all looser ones, back."""
        afresh = (Tested(t.threshold, (min(t.log_value, 0.0),) * BETS) for t in self.tested[number - 1 :])
        tested = (*self.tested[: number - 1], *afresh)
        left = Selective(tested, self.shares, (), self.n, self.taken_back + 1, self.fallen)
        return left if left.in_force else msgspec.structs.replace(left, fallen=self.fallen + 1)

    def futile(
        self, *, max_risk: float, alpha: float, n_max: int
    ) -> Literal["undecided", "too_slow", "inferior"] | None:
        """Why nothing will be certified: every threshold's risk is proven, at level alpha, to be above max_risk
        (inferior); n_max pairs have certified none (undecided); or none would be by then even if its risk were
        two standard errors lower than it looks (too_slow; each has seen a fifth of n_max since it began). None
        otherwise, and while a threshold is in force. Stopping never raises alpha."""
        if self.in_force:
            return None
        needed = math.log(1.0 / alpha)
        if all(t.inferior(max_risk) >= needed for t in self.tested):
            return "inferior"
        if self.n >= n_max:
            return "undecided"
        left = n_max - self.n
        slow = all(t.seen >= n_max / 5 and t.prospect(max_risk) * (1.0 + left / t.seen) < needed for t in self.tested)
        return "too_slow" if slow else None


def even_shares(count: int) -> tuple[float, ...]:
    """Equal shares for STARTS of the thresholds, evenly spaced from the first on; 0 for the rest."""
    starts = {i * count // STARTS for i in range(STARTS)}
    return tuple(1.0 / len(starts) if k in starts else 0.0 for k in range(count))


def _capped(factors: Floats, taken: NDArray[np.bool_], start: Floats, cap: float) -> tuple[Floats, Floats, Floats]:
    """From log factors (n, bets), who accepts what (n, thresholds) and the log capitals at the start: uncapped log
    capitals (n, thresholds, bets); M (n, thresholds), capped; and the log of what the cap has taken (n, thresholds)."""
    paths = np.cumsum(taken[:, :, None] * factors[:, None, :], axis=0)
    paths += start
    values = np.exp(paths) @ np.full(BETS, 1.0 / BETS)
    excess = np.maximum.accumulate(np.maximum(values / cap, 1.0), axis=0)
    return paths, np.asarray(values / excess), np.log(excess)


def _certified(
    values: Floats, shares: tuple[float, ...], alpha: float, at_first: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """For M (n, thresholds): who was certified `at_first`, and who is after each pair (n + 1, thresholds)."""
    n, needed = len(values), (1.0 - 1e-12) / alpha
    sums = np.concatenate(([0.0], np.cumsum(shares)))
    if not at_first.any() and not (sums[1:] * values.max(axis=0) >= needed).any():  # f_k <= V_k M_k
        return np.zeros((n + 1, len(shares)), dtype=np.bool_)
    least = np.zeros((len(sums), n))
    for k in range(1, len(sums)):
        least[k] = (least[:k] + (sums[k] - sums[:k])[:, None] * values[:, k - 1]).min(axis=0)
    pair = np.arange(1, n + 1)
    given = np.maximum.accumulate(np.where(least[1:] >= needed, pair, 0), axis=1)  # (thresholds, n): since when
    lost = np.maximum.accumulate(np.where(least[1:] < 1.0 / math.sqrt(alpha), pair, 0), axis=1)
    after = (given > lost) | (at_first[:, None] & (lost == 0))
    return np.concatenate((at_first[:, None], after), axis=1).T


def _loosest(certified: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number, from 1, of the last True in each row; 0 where there is none."""
    return np.asarray(np.where(certified, np.arange(1, certified.shape[1] + 1), 0).max(axis=1))


def _check(confidence: Floats, loss: Floats, weight: Floats, max_risk: float) -> None:
    if not 0.0 < max_risk <= MOST:
        raise RouterError(f"max_risk must be in (0, {MOST}]; got {max_risk}")
    if not (confidence.shape == loss.shape == weight.shape and loss.ndim == 1):
        raise RouterError(
            "confidence, loss and weight are one value a pair each; "
            f"got {confidence.shape}, {loss.shape}, {weight.shape}"
        )
    for name, values, least in (("confidence", confidence, 0.0), ("loss", loss, 0.0), ("weight", weight, 1e-9)):
        if not np.all((values >= least) & (values <= 1.0)):
            wanted = f"[{least:g}, 1]"
            raise RouterError(f"{name} must be in {wanted}; got {values.min()} to {values.max()}")
