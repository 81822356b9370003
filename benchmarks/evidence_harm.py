"""How fast harm is seen, fresh and after long good service, and how rarely a good version is accused."""

import math
from typing import Any

import numpy as np
from evidence_walk import Codes, Ints, alarms, spread
from numpy.random import Generator

from collector import Happened, Header
from gateway.hard_stop import HardStop
from router import Events, Rollout, Snapshot
from router.policy_quality import QualityPolicy
from router.policy_rollout import RolloutPolicy
from router.sequential import error_rate, quality, slo
from router.sequential.mixture import Floats, log_mean

MARGIN, BORNE_ERRORS, BORNE_SLOW, PER_BLOCK = 0.07, 0.01, 0.05, 5
GOOD = 0.033
GOOD_TIME = 20_000
THRESHOLDS = (1000.0, 3000.0, 10_000.0)
SHIRYAEV = 100_000.0
LIMIT = math.log(RolloutPolicy().detector_threshold)
CHUNK = 500
FAR = 40_000
OUTCOMES = np.array([0.0, 1.0])  # codes: 1 is a lost pair, a failed request
CASES = ("5 points beyond", "20 points beyond", "dead")

# A student request makes a pair where it is audited; the holdback's requests are shadowed besides.
PAIRS_A_REQUEST = QualityPolicy().audit_rate + RolloutPolicy().holdback / (1.0 - RolloutPolicy().holdback)


def binary(rng: Generator, rate: float, looks: int, paths: int) -> Codes:
    """Codes 0 and 1, (looks, paths)."""
    return (rng.random((looks, paths), dtype=np.float32) < rate).astype(np.uint8)


def delays(paths: int, good_time: int = GOOD_TIME) -> list[dict[str, Any]]:
    """Observations from a change until each detector fires at its default threshold."""
    detectors = {
        "quality, below the margin (pairs)": (quality.watch(-OUTCOMES, MARGIN), GOOD, MARGIN),
        "quality, 5 points below its level (pairs)": (quality.watch(-OUTCOMES, GOOD + 0.05), GOOD, GOOD + 0.05),
        "errors (requests)": (error_rate.watch(OUTCOMES, BORNE_ERRORS), 0.002, BORNE_ERRORS),
        f"SLO (blocks of {PER_BLOCK})": (slo.watch(np.arange(PER_BLOCK + 1) / PER_BLOCK, BORNE_SLOW), 0.02, BORNE_SLOW),
    }
    rows = []
    for name, (factors, good, borne) in detectors.items():
        rng = np.random.default_rng(21)
        rested: Floats | None = None
        for begin in range(0, good_time, 4000):
            codes = _observed(rng, factors, good, min(4000, good_time - begin), paths)
            _, rested = alarms(factors, codes, (LIMIT,), start=rested)
        for case, rate in zip(CASES, (borne + 0.05, borne + 0.20, 1.0), strict=True):
            row: dict[str, Any] = {"detector": name, "case": case, "rate": round(rate, 3), "good before": good_time}
            for when, start in (("fresh", None), ("after good service", rested)):
                codes = _observed(rng, factors, rate, 3000, paths)
                row[when] = spread(alarms(factors, codes, (LIMIT,), start=start)[0][0])
            if "pairs" in name:
                pairs = row["after good service"]["median"]
                row["student requests after good service"] = round(pairs / PAIRS_A_REQUEST)
            rows.append(row)
    return rows


def _observed(rng: Generator, factors: Floats, rate: float, looks: int, paths: int) -> Codes:
    """Codes (looks, paths): 1 for each bad request; of a block, their number among its requests."""
    if len(factors) == 2:
        return binary(rng, rate, looks, paths)
    return rng.binomial(len(factors) - 1, rate, (looks, paths)).astype(np.uint8)


def one_long_product(paths: int, good_time: int = GOOD_TIME) -> list[dict[str, Any]]:
    """The rival: a test that multiplies evidence of harm since the start, at alpha = 5%; it falls asleep."""
    factors = quality.fails(-OUTCOMES, MARGIN)
    rows = []
    for case, rate in zip(CASES, (MARGIN + 0.05, MARGIN + 0.20, 1.0), strict=True):
        row: dict[str, Any] = {"case": case, "rate": round(rate, 3)}
        for when, rested in (("fresh", 0), ("after good service", good_time)):
            found = [_product_delay(factors, rate, rested, chunk) for chunk in range(math.ceil(paths / 20))]
            row[when] = spread(np.concatenate(found))
        rows.append(row)
    return rows


def _product_delay(factors: Floats, rate: float, rested: int, chunk: int) -> Ints:
    rng = np.random.default_rng([22, chunk])
    lost = rng.binomial(rested, GOOD, (20, 1))
    logs = lost * factors[1] + (rested - lost) * factors[0]  # capital doesn't depend on the order
    found = np.zeros(20, dtype=np.int64)
    for begin in range(0, FAR, 4000):
        path = logs + np.cumsum(factors[binary(rng, rate, 4000, 20)], axis=0)
        hit = log_mean(path) >= math.log(20.0)
        new = hit.any(axis=0) & (found == 0)
        found[new] = begin + hit.argmax(axis=0)[new] + 1
        logs = path[-1]
        if (found > 0).all():
            break
    return found


def run_lengths(paths: int, looks: int) -> list[dict[str, Any]]:
    """False alarms of a student exactly at the margin, from a fresh start: within 20,000 pairs, and the mean length.

    The mean is all pairs until the first alarms or the end, divided by the number of alarms.
    """
    factors = quality.watch(-OUTCOMES, MARGIN)
    rows = []
    for form, limits in (("CUSUM", THRESHOLDS), ("Shiryaev-Roberts", (SHIRYAEV,))):
        chunks = [
            _first_alarms(np.random.default_rng([23, begin]), factors, limits, (looks, min(CHUNK, paths - begin)))
            for begin in range(0, paths, CHUNK)
        ]
        first = np.concatenate(chunks, axis=1)
        for limit, found in zip(limits, first, strict=True):
            seen = np.where(found > 0, found, looks).sum()
            row: dict[str, Any] = {"form": form, "c": limit, "alarms": int((found > 0).sum()), "pairs": int(seen)}
            row["mean run length"] = round(seen / max(1, row["alarms"]))
            row["false alarms within 20,000"] = float(((found > 0) & (found <= 20_000)).mean())
            rows.append(row)
    return rows


def _first_alarms(rng: Generator, factors: Floats, limits: tuple[float, ...], shape: tuple[int, int]) -> Ints:
    """`shape`: (looks, paths). One limit is Shiryaev's, several are the CUSUM's."""
    looks, paths = shape
    first = np.zeros((len(limits), paths), dtype=np.int64)
    state = None
    for begin in range(0, looks, 4000):
        codes = binary(rng, MARGIN, min(4000, looks - begin), paths)
        boundaries = tuple(math.log(limit) for limit in limits)
        found, state = alarms(factors, codes, boundaries, start=state, shiryaev=limits == (SHIRYAEV,))
        first = np.where((first == 0) & (found > 0), found + begin, first)
    return first


class _Told:
    """Takes what the hard stop tells the promoter."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def send(self, header: Header, *bodies: bytes) -> bool:
        assert isinstance(header, Happened)
        self.kinds.append(header.event.kind.value)
        return True


def hard_stops(runs: int, good_time: int = GOOD_TIME) -> list[dict[str, Any]]:
    """Requests that a failing student still gets in one worker, through the gateway's own hard stop."""
    rows = []
    for rate in (1.0, 0.8, 0.6):
        for when, rested in (("fresh", 0), ("after good service", good_time)):
            rng = np.random.default_rng(24)
            got = [_until_held_out(rng, rate, rested) for _ in range(1 if rate == 1.0 else runs)]
            rows.append({"failing": rate, "when": when, "median": float(np.median(got)), "most": max(got)})
    return rows


def _until_held_out(rng: Generator, rate: float, rested: int) -> int:
    told, version = _Told(), "student-1"
    stop = HardStop(told, Events())
    rollout = Rollout(route="route", revision=1, live=version)
    snapshot = Snapshot(rollouts={"route": rollout}, endpoints={version: "http://127.0.0.1"})
    for _ in range(rested):
        stop.count("route", version, 1, failed=False)
    got = 0
    while version in stop.ready(snapshot, rollout):
        got += 1
        stop.count("route", version, 1, failed=rng.random() < rate)
    if told.kinds != ["hard_stop"]:
        raise RuntimeError(f"the hard stop told the promoter {told.kinds}, not of itself once")
    return got
