"""Streams of real queries through the real rollout, and what CSA's rule and BARGAIN do on the same ones.

A stream draws held-out queries with replacement. In random order each comes as likely as any other. In
drifting order it goes through PHASES: in each another part of the intents comes FAVOUR times as often as the rest, and
queries out of scope, where there are any, become more from nearly none to twice their share.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import selective_section
import selective_texts
from numpy.typing import NDArray
from selective_rivals import bargain, csa, oracle
from selective_rollout import replay
from selective_texts import Answers, Route

from router.sequential.selective import Selective
from router.sequential.selective_shares import shares_of, thresholds_of

Floats = NDArray[np.float64]
PHASES, FAVOUR = 5, 5.0
ALPHA, MIN_COVERAGE = 0.05, 0.2
TARGETS = {"98%": 0.02, "95%": 0.05}
ROUTES = ("Banking77", "CLINC150 in scope", "CLINC150 with out-of-scope queries", "section")
ORDERS = ("random", "drifting")
LAST = 4  # the coverage that it settles on: of the last quarter


@functools.cache
def route(name: str, data: Path) -> Route:
    """A route of ROUTES; its student is trained, or its recorded answers are read."""
    if name == "section":
        return selective_section.section()
    if name == "Banking77":
        return selective_texts.route("banking77", data)
    both = selective_texts.route("clinc150", data)
    if name == "CLINC150 in scope":
        return both._replace(held_out=both.held_out.at(np.flatnonzero(~both.held_out.outside)))
    return both


def prepare(data: Path) -> None:
    """Train the encoders, which are kept then."""
    for name in ROUTES:
        route(name, data)


def stream(held: Answers, order: str, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which held-out query each of n requests is."""
    if order == "random":
        return rng.integers(len(held.loss), size=n)
    intents = rng.permutation(np.unique(held.intent[~held.outside]))
    out: list[NDArray[np.int64]] = []
    for phase, favoured in enumerate(np.array_split(intents, PHASES)):
        weight = np.where(np.isin(held.intent, favoured), FAVOUR, 1.0)
        if held.outside.any():
            share = 2.0 * float(held.outside.mean()) * phase / (PHASES - 1)
            weight[held.outside] = 0.0
            weight[held.outside] = weight.sum() * share / (1.0 - share) / held.outside.sum()
        out.append(
            rng.choice(len(weight), size=n * (phase + 1) // PHASES - n * phase // PHASES, p=weight / weight.sum())
        )
    return np.concatenate(out)


def streamed(name: str, order: str, max_risk: float, seed: int, *, data: Path, requests: int) -> dict[str, Any]:
    """One stream, through the rollout and by the other rules."""
    known, held, _ = route(name, data)
    picked = held.at(stream(held, order, requests, np.random.default_rng(100 + seed)))
    thresholds = thresholds_of(known.confidence)
    shares = shares_of(thresholds, known.confidence, known.loss, max_risk=max_risk)
    ours = replay(
        picked.confidence, picked.loss, thresholds, shares, max_risk=max_risk, min_coverage=MIN_COVERAGE, seed=seed
    )
    every = (picked.confidence, picked.loss)
    _, force = Selective.start(thresholds, shares).walk(*every, np.ones(requests), max_risk=max_risk, alpha=ALPHA)
    rule = csa(np.array(thresholds), *every, max_risk=max_risk, alpha=ALPHA)[:-1]
    at = np.append(2.0, thresholds)
    budget = max(requests // 5, 100)
    fixed, asked = bargain(*every, max_risk=max_risk, alpha=ALPHA, budget=budget, seed=seed)
    return {
        "through the rollout": {
            **_figures(picked, ours.served),
            "requests until certified": ours.certified,
            "decisions": [[when, cause] for when, cause in ours.causes],
            "risk bound at the end": ours.bound,
        },
        "every pair known: Retort": _figures(picked, picked.confidence >= at[force]),
        "every pair known: CSA's rule": _figures(picked, picked.confidence >= at[rule]),
        "the whole stream at once: BARGAIN": {
            **_figures(picked, picked.confidence >= fixed),
            "labels asked for": asked,
        },
    }


def population(name: str, *, data: Path) -> dict[str, Any]:
    """The student's figures, its curve of coverage against risk, and what an oracle threshold on it covers."""
    _, held, student = route(name, data)
    order = np.argsort(-held.confidence, kind="stable")
    some = np.unique(np.linspace(len(order) // 200, len(order), 200).astype(np.int64))
    risk = np.cumsum(held.loss[order]) / np.arange(1, len(order) + 1)
    best = {}
    for target in (0.01, *TARGETS.values()):
        taken = held.confidence >= oracle(held.confidence, held.loss, max_risk=target)
        best[str(target)] = {
            "coverage": round(float(taken.mean()), 4),
            "out of scope, answered": _share(taken[held.outside]),
        }
    return {
        "student": student,
        "oracle": best,
        "coverage": [round(float(k) / len(order), 4) for k in some],
        "risk": [round(float(risk[k - 1]), 5) for k in some],
    }


def _figures(picked: Answers, served: NDArray[np.bool_]) -> dict[str, Any]:
    """Coverage of the whole stream, of its last quarter, agreement of what was served (None where nothing was), and
    the share of queries out of scope that were answered (None where there are none)."""
    last = len(served) - len(served) // LAST
    return {
        "coverage": round(float(served.mean()), 4),
        "coverage at last": round(float(served[last:].mean()), 4),
        "agreement": round(float(1.0 - picked.loss[served].mean()), 5) if served.any() else None,
        "out of scope, answered": _share(served[picked.outside]),
    }


def _share(taken: NDArray[np.bool_]) -> float | None:
    return round(float(taken.mean()), 4) if len(taken) else None
