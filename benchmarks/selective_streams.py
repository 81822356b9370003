"""Simulated streams for selective serving, and how the rules do on them.

A stream's `draw(rng, t)` gives, for times t in [0, 1), the confidence of the student's answers and the true chance that
each is lost; thresholds come from 500 validation records drawn at t = 0.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from selective_rivals import attainable, bargain, csa, oracle

from router.sequential.selective import Selective
from router.sequential.selective_shares import shares_of, thresholds_of

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, Floats], tuple[Floats, Floats]]

PAIRS, VALIDATION, POPULATION = 10_000, 500, 100_000
MAX_RISK, ALPHA = 0.03, 0.05


def calibrated(a: float, b: float) -> Draw:
    """Confidence ~ Beta(a, b), and it is the chance of being right."""

    def draw(rng: np.random.Generator, t: Floats) -> tuple[Floats, Floats]:
        confidence = rng.beta(a, b, len(t))
        return confidence, 1.0 - confidence

    return draw


def steep(rng: np.random.Generator, t: Floats) -> tuple[Floats, Floats]:
    """Underconfident: uniform confidence, a loss of 0.3 (1 - c)^2."""
    confidence = rng.random(len(t))
    return confidence, 0.3 * (1.0 - confidence) ** 2


def overconfident(rng: np.random.Generator, t: Floats) -> tuple[Floats, Floats]:
    """Sure of nearly all, and 0.8% lost even of what it is surest of."""
    confidence = rng.beta(4.0, 1.0, len(t))
    return confidence, np.clip(0.008 + 0.5 * (1.0 - confidence) ** 1.5, 0.0, 1.0)


def worst_at_the_top(rng: np.random.Generator, t: Floats) -> tuple[Floats, Floats]:
    """The surest tenth loses exactly what is allowed, more than what comes next does."""
    confidence = rng.beta(3.0, 1.0, len(t))
    return confidence, np.where(confidence > 0.97, MAX_RISK, 0.0) + 0.4 * (1.0 - confidence) ** 2


def flat(risk: float) -> Draw:
    """Confidence says nothing."""

    def draw(rng: np.random.Generator, t: Floats) -> tuple[Floats, Floats]:
        return rng.random(len(t)), np.full(len(t), risk)

    return draw


def drifting(base: Draw, factor: Callable[[Floats], Floats]) -> Draw:
    """The same confidence, with `factor(t)` times the losses."""

    def draw(rng: np.random.Generator, t: Floats) -> tuple[Floats, Floats]:
        confidence, lost = base(rng, t)
        return confidence, np.clip(lost * factor(t), 0.0, 1.0)

    return draw


STEADY: dict[str, Draw] = {
    "calibrated, sure": calibrated(20.0, 1.0),
    "calibrated, spread": calibrated(2.0, 0.3),
    "calibrated, unsure": calibrated(8.0, 1.0),
    "underconfident": steep,
    "overconfident": overconfident,
    "worst at the top": worst_at_the_top,
    "no information, half the risk": flat(MAX_RISK / 2.0),
    "nothing is safe": flat(MAX_RISK * 1.1),
}
DRIFTING: dict[str, Draw] = {
    "slowly threefold": drifting(steep, lambda t: 1.0 + 2.0 * t),
    "threefold at once": drifting(calibrated(20.0, 1.0), lambda t: np.where(t < 0.5, 1.0, 3.0)),
    "a fivefold spell": drifting(calibrated(20.0, 1.0), lambda t: np.where((t > 0.5) & (t < 0.6), 5.0, 1.0)),
}


def simulate(draw: Draw, runs: int, *, batch_runs: int) -> dict[str, Any]:
    """Ours and CSA's rule over `runs` streams; BARGAIN, which sees all of a stream at once, over the first
    `batch_runs`."""
    rng = np.random.default_rng(11)
    then = draw(rng, np.ones(POPULATION))
    best = oracle(*then, max_risk=MAX_RISK)
    wanted = float((then[0] >= best).mean())
    most = attainable(*then, max_risk=MAX_RISK, alpha=ALPHA, pairs=PAIRS)
    found: dict[str, list[tuple[float, float, float, float]]] = {"Retort": [], "CSA's rule": [], "BARGAIN": []}
    first, moves = [], []
    times = np.arange(PAIRS) / PAIRS
    for run in range(runs):
        confidence, risk = draw(rng, times)
        loss = (rng.random(PAIRS) < risk).astype(np.float64)
        known, lost = draw(rng, np.zeros(VALIDATION))
        thresholds = thresholds_of(known)
        shares = shares_of(thresholds, known, (rng.random(VALIDATION) < lost).astype(np.float64), max_risk=MAX_RISK)
        end, force = Selective.start(thresholds, shares).walk(
            confidence, loss, np.ones(PAIRS), max_risk=MAX_RISK, alpha=ALPHA
        )
        ours = np.append(force, end.tested.index(end.in_force) + 1 if end.in_force else 0)
        first.append(int((ours > 0).argmax()) if ours.any() else PAIRS)
        moves.append(int((np.diff(ours) != 0).sum()))
        theirs = csa(np.array(thresholds), confidence, loss, max_risk=MAX_RISK, alpha=ALPHA)
        for name, path in (("Retort", ours), ("CSA's rule", theirs)):
            at = np.append(2.0, thresholds)[path]
            found[name].append(_figures(at[-1], at[:-1], confidence, risk, loss, then[0]))
        if run < batch_runs:
            fixed, _ = bargain(confidence, loss, max_risk=MAX_RISK, alpha=ALPHA, budget=PAIRS // 5, seed=run)
            found["BARGAIN"].append(_figures(fixed, np.full(PAIRS, fixed), confidence, risk, loss, then[0]))
    return {
        "oracle's coverage": round(wanted, 4),
        "of the oracle's, at most": round(most / wanted, 4) if wanted else 0.0,
        "pairs until certified, median": float(np.median(first)),
        "threshold moves, mean": round(float(np.mean(moves)), 1),
        **{name: _summary(np.array(rows), wanted) for name, rows in found.items() if rows},
    }


def _figures(
    last: float, at: Floats, confidence: Floats, risk: Floats, loss: Floats, population: Floats
) -> tuple[float, float, float, float]:
    """Coverage at the end, coverage over the stream, realised loss, and true risk of what was served."""
    served = confidence >= at
    some = bool(served.any())
    return (
        float((population >= last).mean()),
        float(served.mean()),
        float(loss[served].mean()) if some else 0.0,
        float(risk[served].mean()) if some else 0.0,
    )


def _summary(rows: Floats, wanted: float) -> dict[str, float]:
    share = rows[:, 0] / wanted if wanted else np.zeros(len(rows))
    return {
        "coverage at the end, mean": round(float(rows[:, 0].mean()), 4),
        "of the oracle's, mean": round(float(share.mean()), 4),
        "of the oracle's, 10th percentile": round(float(np.quantile(share, 0.1)), 4),
        "coverage over the stream, mean": round(float(rows[:, 1].mean()), 4),
        "runs with realised risk within": round(float((rows[:, 2] <= MAX_RISK).mean()), 4),
        "runs with true risk within": round(float((rows[:, 3] <= MAX_RISK).mean()), 4),
        "runs": len(rows),
    }
