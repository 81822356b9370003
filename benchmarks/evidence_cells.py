"""Which test meets which null, and which rivals walk the same paths: a table, and the count of its false promotions."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from zlib import crc32

import evidence_nulls as pairs
import evidence_nulls_latency as other
import evidence_rivals as rivals
import numpy as np
from evidence_nulls import Stream
from evidence_rivals import Hits
from evidence_rules import ALPHA, LIMIT, Cell, Rule, betting, own, rival
from evidence_walk import interval

from router.sequential import Cusum, Mixture, error_rate, outcomes, relative_latency, slo, sprt
from router.sequential.mixture import Floats

CHUNK = 500  # paths at once: a chunk's arrays stay in the cache
SEED = 20_260_101

TERNARY_MARGIN, AGREEMENT_MARGIN = 0.05, 0.07
DISCORDANCE, GOOD_RATE = 0.095, 0.97
SLOW, FASTER = 0.05, 0.25  # of the SLO: 1 - quantile; of the latency SPRT: how often a good student is the slower one
ERRORS = 0.005
HARM_MARGIN, HARM_LIMIT = 0.05, float(np.log(3000.0))


def every() -> list[Cell]:
    """All cells, the longest first."""
    found = [*_quality(), *_agreement(), *_slo(), *_paired_latency(), *_errors(), *_outcomes()]
    return sorted(found, key=lambda cell: -cell.cost)


def _quality() -> Iterator[Cell]:
    """D in {-1, 0, 1}: references `self`, `judge`, `truth`."""
    d, psi = TERNARY_MARGIN, DISCORDANCE
    bets, known = betting(pairs.DIFFERENCES, d), sprt.paired(pairs.DIFFERENCES, d, psi)
    paired = own("trinomial SPRT", known)
    wrong = own("trinomial SPRT", known, "10 to 25% of the pairs differ, not the 9.5% that were said")
    cautious = own("trinomial SPRT, psi = .25", sprt.paired(pairs.DIFFERENCES, d, 0.25))
    unpaired = (
        rival("z-test at every look", rivals.z_paired(d, None)),
        rival("z-test at 100 looks", rivals.z_paired(d, rivals.LOOKS)),
        rival("best arm, floor of 10", rivals.best_arm(d)),
        rival("5 intervals over a threshold", rivals.threshold(_wrong, 0.05 + d)),
    )
    all_of_them = (
        *unpaired,
        rival("pooled ramp, once at its end", rivals.z_pooled(d, 1)),
        rival("pooled ramp, at every look", rivals.z_pooled(d, None)),
        rival("k-th answers paired", rivals.kth_pairs(d)),
    )
    yield Cell("quality", "i.i.d.", pairs.iid(d), (bets, paired, *unpaired), 0.45)
    drifts = (bets, wrong, cautious, *all_of_them)
    yield Cell("quality", "baseline .80 -> .95, ramp 5 -> 50%", pairs.drift(d), drifts, 0.9)
    users = (bets, paired, *all_of_them)
    yield Cell("quality", "sticky, Zipf-heavy users on a ramp", pairs.users(d), users, 0.75)
    scores = (betting(pairs.GRADED, d),)
    yield Cell("quality", "scores drift .95 -> .75 in both arms", pairs.graded(d, loses_only=False), scores, 0.25)
    weighted = (
        betting(pairs.MIXED_DIFFERENCES, d, pairs.MIXED_WEIGHTS),
        own("trinomial SPRT", sprt.paired(pairs.MIXED_DIFFERENCES, d, psi, pairs.MIXED_WEIGHTS)),
    )
    yield Cell("quality", "ramp 5 -> 50%, unsure answers deferred", pairs.mixed(d, psi), weighted, 0.25)
    tells = "a request tells of the next: 10 in a row are one user's"
    sessions = (betting(pairs.DIFFERENCES, d, broken=tells), own("trinomial SPRT", known, tells))
    yield Cell("quality", "users in sessions of 10", pairs.users(d, session=10), sessions, 0.25)


def _wrong(stream: Stream) -> Hits:
    return np.asarray(~pairs.STUDENT_RIGHT[stream.codes])


def _agreement() -> Iterator[Cell]:
    """D in [-1, 0]: score - 1. A pair is lost or it is not, so that the discordance is the margin."""
    d = AGREEMENT_MARGIN

    def both(differences: Floats, weights: Floats | None = None) -> tuple[Rule, ...]:
        known = sprt.agreement(differences, d, GOOD_RATE, 1.0 if weights is None else weights)
        return betting(differences, d, weights), own("binary SPRT", known)

    for null, world, rules in (
        ("i.i.d.", pairs.iid(d, d), both(pairs.DIFFERENCES)),
        ("sticky, Zipf-heavy users on a ramp", pairs.users(d, d), both(pairs.DIFFERENCES)),
        ("scores drift, rare losses to small ones", pairs.graded(d, loses_only=True), both(pairs.GRADED)),
        (
            "ramp 5 -> 50%, unsure answers deferred",
            pairs.mixed(d, d),
            both(pairs.MIXED_DIFFERENCES, pairs.MIXED_WEIGHTS),
        ),
    ):
        yield Cell("agreement", null, world, rules, 0.25)


def _slo() -> Iterator[Cell]:
    """V_b in [0, 1] of time blocks, each a look."""
    q = SLOW
    factors = slo.passes(other.shares_of_codes(), q)
    naive = (
        rival("z-test at every look", rivals.z_requests(q)),
        rival("5 intervals over a threshold", rivals.slow_checks(q)),
    )
    for null, world in (
        ("i.i.d.", other.slow_alike(q)),
        ("bursts, heavy-tailed traffic", other.slow_in_bursts(q)),
        ("traffic of a ramp 5 -> 50%", other.slow_on_a_ramp(q)),
        ("slow requests drift together", other.slow_together_later(q)),
        ("Zipf-heavy users fill a block", other.slow_by_user(q)),
    ):
        yield Cell("SLO blocks", null, other.blocks(world), (own("betting", factors), *naive), 0.18)
    yield Cell(
        "SLO blocks",
        "spells of a quarter of a block, over borders",
        other.spells(q, spell=5, block=20),
        (own("betting", factors), *naive),
        0.14,
    )
    yield Cell(
        "SLO blocks",
        "spells of five blocks",
        other.spells(q, spell=25, block=5),
        (own("betting", factors, "spells are longer than a block"), *naive),
        0.15,
    )
    single = (
        own("betting, no blocks", slo.passes(np.array([0.0, 1.0]), q), "no blocks"),
        rival("z-test at every look", rivals.z_rate(q, None)),
    )
    yield Cell("SLO blocks", "no blocks, spells of 50 requests", other.lone_spells(q, 50), single, 0.07)


def _paired_latency() -> Iterator[Cell]:
    slower = np.array([0.0, 1.0])
    betting, binary = relative_latency.passes(slower), sprt.slower(slower, FASTER)
    both = (own("betting", betting), own("binary SPRT", binary))
    pooled = (
        rival("pooled ramp, once at its end", rivals.z_times(1)),
        rival("pooled ramp, at every look", rivals.z_times(None)),
    )
    naive = (rival("z-test at every look", rivals.z_rate(0.5, None)),)
    for null, common, noise, more in (
        ("i.i.d.", "none", "normal", (*naive, *pooled)),
        ("baseline 2x -> 1x, ramp 5 -> 50%", "drift", "normal", (*naive, *pooled)),
        ("load of a ramp 5 -> 50%", "ramp", "normal", naive),
        ("bursts that hit both", "bursts", "normal", naive),
        ("heavy tails (Pareto 1.1)", "none", "pareto", naive),
        ("Zipf-heavy users", "users", "normal", naive),
    ):
        yield Cell("paired latency", null, other.pairs(common, noise=noise), (*both, *more), 0.05 + 0.05 * len(more))
    tell = "the student alone is slow for 50 pairs in a row"
    yield Cell(
        "paired latency",
        "spells of the student alone",
        other.lone_spells(0.5, 50),
        (own("betting", betting, tell), own("binary SPRT", binary, tell)),
        0.07,
    )


def _errors() -> Iterator[Cell]:
    factors = error_rate.passes(np.array([0.0, 1.0]), ERRORS)
    naive = (
        rival("z-test at every look", rivals.z_rate(ERRORS, None)),
        rival("5 intervals over a threshold", rivals.threshold(lambda stream: stream.codes > 0, ERRORS)),
    )
    for null, kind in (("i.i.d.", "alike"), ("Zipf-heavy users", "users"), ("users join on a ramp 5 -> 50%", "ramp")):
        yield Cell("errors", null, other.failures(ERRORS, kind), (own("betting", factors), *naive), 0.15)
    yield Cell(
        "errors",
        "restarts fail 10 in a row",
        other.lone_spells(ERRORS, 10),
        (own("betting", factors, "failures come in spells"), *naive),
        0.15,
    )


def _outcomes() -> Iterator[Cell]:
    """Harm, not promotion: what is counted is false alarms, of the test of harm and of the e-detector."""
    rules = (
        Rule("AIPW betting: harm alleged", lambda stream: _harm(stream)[0]),
        Rule("AIPW e-detector, c = 3,000: false alarms", lambda stream: _harm(stream)[1], "detector"),
    )
    for null, kind in (
        ("i.i.d.", "alike"),
        ("baseline .3 -> .6", "drift"),
        ("baseline .3 -> .6, ramp 5 -> 50%", "ramp"),
        ("Zipf-heavy users, ramp 5 -> 50%", "users"),
    ):
        yield Cell("outcomes", null, other.responses(HARM_MARGIN, kind), rules, 0.8)


@lru_cache(maxsize=1)
def _harm(stream: Stream) -> tuple[Hits, Hits]:
    """Path by path, through the module and the states that the fold keeps: (test of harm, e-detector)."""
    assert stream.propensity is not None
    found = []
    for path in range(stream.codes.shape[1]):
        good, student = stream.codes[:, path].astype(np.float64), stream.arm[:, path].astype(np.float64)
        _, factors = outcomes.watch(outcomes.Baseline(), good, student, stream.propensity[:, path], HARM_MARGIN)
        found.append((Mixture().fold(factors).reached(LIMIT), Cusum().fold(factors).reached(HARM_LIMIT)))
    test_of_harm, detector = np.array(found).T
    return test_of_harm, detector


def count(cell: Cell, paths: int, looks: int) -> dict[str, Any]:
    """Walk a cell's paths, by chunks with seeds of their own: for each rule, how many it promoted falsely."""
    hits = np.zeros(len(cell.rules), dtype=np.int64)
    for chunk, begin in enumerate(range(0, paths, CHUNK)):
        rng = np.random.default_rng([SEED, crc32(cell.name.encode()), chunk])
        stream = cell.world(rng, min(CHUNK, paths - begin), looks)
        hits += [int(rule.promoted(stream).sum()) for rule in cell.rules]
    rows = []
    for rule, hit in zip(cell.rules, hits.tolist(), strict=True):
        low, high = interval(hit, paths)
        row = {"rule": rule.name, "kind": rule.kind, "false": hit, "rate": hit / paths}
        row |= {"lower_999": round(low, 5), "upper_999": round(high, 5)}
        if rule.kind == "test":
            row |= {"broken": rule.broken, "refutes": low > ALPHA}
        rows.append(row)
    return {"stream": cell.stream, "null": cell.null, "paths": paths, "looks": looks, "rules": rows}
