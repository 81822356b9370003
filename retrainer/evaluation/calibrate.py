"""From an answer's signals to P(it agrees with the teacher), fitted on held-out records.

Three disjoint parts of the records, whole groups of near-duplicates each: `fit` (40%) the logistic regression on
standardised features, `scale` (20%) Platt's two numbers, which take out the fit's optimism, and `choose` (40%), which
nothing is fitted on, the thresholds and the gate's verdict. Scores with fractions are soft labels: then the map gives
the expected score.

Platt's scaling (Platt 1999), not isotonic regression: from a few hundred records an isotonic map has a handful of
steps, and thresholds need the order within them.

Both fits are shrunk by normal priors, so that few records do little and records of which nearly all are right give
finite numbers: Platt's towards doing nothing, the regression's towards EXPECTED (the likelier the answer, the likelier
right), and no weight may have the wrong sign (SIGNS): a less likely answer, or a stranger input, is never the surer.
Measured by 40 random splits of SmolLM2-135M's int8 answers on the sample task, log loss and AUROC on what nothing was
fitted on: a student that is right in 97.6% of 700 records (7 wrong ones to fit on) 0.102 and 0.75, against 0.109 and
0.72 with a plain ridge and free signs, and 0.117 for its mean; one that is right in 44.5% of 400: 0.490 and 0.857,
against 0.486 and 0.854.
"""

import hashlib
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec

from exporters.models import FEATURES, Curve, Signals
from exporters.models.confidence import FARTHEST

LEAST_RECORDS = 100  # with fewer, ten numbers can't be fitted
STRENGTH = 10.0  # of the regression's prior: 1 / variance of a weight, in units of standardised features
EXPECTED = {"mean": 0.4, "least": 0.4, "total": 0.4}  # the weights before any record; of the other features 0
SIGNS = {"mean": 1, "least": 1, "first": 1, "total": 1, "unsure": -1, "finished": 1, "novelty": -1}  # length: free


class Part(StrEnum):
    """What a record is used for."""

    FIT = "fit"
    SCALE = "scale"
    CHOOSE = "choose"


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """One held-out record. `value`: the answer's score against the teacher's, in [0, 1]. `group`: records that resemble
    each other. `weight`: how many requests it stands for; the fit, of what is given its signals, has no use for it.
    `error`: the answer is none."""

    group: str
    whole: Signals
    prefix: Signals
    novelty: float
    value: float
    weight: float = 1.0
    error: bool = False

    @property
    def part(self) -> Part:
        """By a hash of the group."""
        u = int.from_bytes(hashlib.sha256(f"confidence:{self.group}".encode()).digest()[:8]) / 2**64
        if u < 0.4:
            return Part.FIT
        return Part.SCALE if u < 0.6 else Part.CHOOSE


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How good confidences are, on records that they were not fitted on. `log_loss`: mean, in nats. `brier`: mean
    squared difference. `auroc`: the probability that a right answer (score 1) has a higher confidence than another;
    None where all are right or none is. `ece`: expected calibration error over `reliability`, the tenths of [0, 1] that
    hold any confidence."""

    n: int
    log_loss: float
    brier: float
    auroc: float | None
    ece: float = 0.0
    reliability: list["Bin"] = []


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """The records whose confidence lies in one tenth: how many, their mean confidence and their mean score."""

    n: int
    confidence: float
    score: float


def lacking(records: Sequence[Labelled]) -> str | None:
    """Why no map can be fitted on these records, or None."""
    if len(records) < LEAST_RECORDS:
        return f"only {len(records)} records with a score and log probabilities, fewer than {LEAST_RECORDS}"
    for part in ("all", Part.FIT):
        values = {r.value for r in records if part in ("all", r.part)}
        if len(values) < 2:
            scored = f"score {values.pop():g}" if values else "are none"
            return f"the records {'' if part == 'all' else 'to fit on '}all {scored}, so nothing tells right from wrong"
    return None


def fit(records: Sequence[Labelled], *, prefix: bool = False) -> Curve:
    """The map for whole answers, or for their beginnings. `records`: all three parts; `choose` is not looked at.

    Raises ValueError where `lacking` says why.
    """
    if (why := lacking(records)) is not None:
        raise ValueError(why)
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it

    def table(part: Part) -> tuple[Any, Any]:
        chosen = [r for r in records if r.part is part]
        rows = [(r.prefix if prefix else r.whole).features(r.novelty) for r in chosen]
        return np.array(rows).reshape(-1, len(FEATURES)), np.array([r.value for r in chosen])

    x, y = table(Part.FIT)
    centres, scales = x.mean(axis=0), x.std(axis=0)
    scales[scales < 1e-9] = 1.0  # a feature that never changes is 0 everywhere, and keeps the weight 0
    limited = np.clip((x - centres) / scales, -FARTHEST, FARTHEST)  # as serving does
    found = _minimise(np.c_[limited, np.ones(len(x))], y, prior=_EXPERIENCE)
    curve = Curve(
        centres=tuple(map(float, centres)),
        scales=tuple(map(float, scales)),
        weights=tuple(map(float, found[:-1])),
        bias=float(found[-1]),
        slope=1.0,
        shift=0.0,
    )
    x, y = table(Part.SCALE)
    scores = np.array([curve.score(row) for row in x])
    slope, shift = _minimise(np.c_[scores, np.ones(len(scores))], y, prior=_NOTHING_TO_SCALE)
    return msgspec.structs.replace(curve, slope=float(slope), shift=float(shift))


class _Prior(msgspec.Struct, frozen=True):
    """Of some weights: where they are expected, how strongly (1 / variance), and the bounds that they keep."""

    expected: list[float]
    strength: list[float]
    bounds: list[tuple[float | None, float | None]]


_BY_SIGN: dict[int, tuple[float | None, float | None]] = {1: (0.0, None), 0: (None, None), -1: (None, 0.0)}
# The bias is nearly free: what level a student has is not known beforehand.
_EXPERIENCE = _Prior(
    [EXPECTED.get(name, 0.0) for name in FEATURES] + [0.0],
    [STRENGTH] * len(FEATURES) + [1e-3],
    [_BY_SIGN[SIGNS.get(name, 0)] for name in FEATURES] + [(None, None)],
)
_NOTHING_TO_SCALE = _Prior([1.0, 0.0], [1.0, 1.0], [(0.05, None), (None, None)])  # a slope of 0 would lose the order


def _minimise(x: Any, y: Any, *, prior: _Prior) -> Any:
    """The w within the bounds of the least

        -sum (y ln p + (1-y) ln(1-p)) + sum strength (w - expected)^2 / 2,   p = 1 / (1 + exp(-x w)).

    Convex, so L-BFGS-B finds it.
    """
    import numpy as np  # noqa: PLC0415
    from scipy.optimize import minimize  # noqa: PLC0415 - heavy: only a cycle pays for it

    strength, expected = np.array(prior.strength), np.array(prior.expected)

    def loss(w: Any) -> tuple[float, Any]:
        z = x @ w
        away = w - expected
        value = np.logaddexp(0.0, z).sum() - y @ z + 0.5 * (strength * away) @ away
        return float(value), x.T @ (0.5 * (1.0 + np.tanh(0.5 * z)) - y) + strength * away

    options = {"maxiter": 1000}
    return minimize(loss, expected, jac=True, method="L-BFGS-B", bounds=prior.bounds, options=options).x


def quality(confidences: Sequence[float], values: Sequence[float]) -> Quality | None:
    """None without records."""
    if not confidences:
        return None
    n = len(confidences)
    kept = [min(max(c, 1e-6), 1.0 - 1e-6) for c in confidences]
    losses = [-v * math.log(c) - (1.0 - v) * math.log1p(-c) for c, v in zip(kept, values, strict=True)]
    squares = [(c - v) ** 2 for c, v in zip(confidences, values, strict=True)]
    bins = reliability(confidences, values)
    return Quality(
        n=n,
        log_loss=sum(losses) / n,
        brier=sum(squares) / n,
        auroc=auroc(confidences, values),
        ece=sum(b.n * abs(b.confidence - b.score) for b in bins) / n,
        reliability=bins,
    )


def reliability(confidences: Sequence[float], values: Sequence[float]) -> list[Bin]:
    """Ten bins of equal width, the empty ones left out (Guo et al. 2017; ECE = sum n_b / n |conf_b - score_b|)."""
    found: dict[int, list[tuple[float, float]]] = {}
    for confidence, value in zip(confidences, values, strict=True):
        found.setdefault(min(int(10 * confidence), 9), []).append((confidence, value))
    return [
        Bin(n=len(pairs), confidence=sum(c for c, _ in pairs) / len(pairs), score=sum(v for _, v in pairs) / len(pairs))
        for _, pairs in sorted(found.items())
    ]


def auroc(confidences: Sequence[float], values: Sequence[float]) -> float | None:
    """Mann & Whitney's U over the pairs; ties count half."""
    from scipy.stats import rankdata  # noqa: PLC0415 - heavy: only a cycle pays for it

    right = [v >= 1.0 for v in values]
    good, bad = sum(right), len(right) - sum(right)
    if not good or not bad:
        return None
    ranks = rankdata(confidences)
    total = sum(float(rank) for rank, ok in zip(ranks, right, strict=True) if ok)
    return (total - good * (good + 1) / 2) / (good * bad)
