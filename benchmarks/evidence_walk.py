"""Walks many paths at once through the tests' own log factors, one look an observation.

Most modules bet by the observation alone, and are asked once for the log factors of every value that can come (slower
or not, 3 slow answers of 7, ...): a table (values, bets). Paths are then arrays of value numbers, and a path's capital
after each observation is a product over the table's rows: the same numbers as `Mixture.fold` or `Cusum.fold` over the
same observations, some ten times faster (`test_evidence_short.py` holds them against each other). Where a bet depends
on the past (quality), the module is given whole paths. Time is the first axis everywhere: (looks, paths).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from router.sequential.mixture import Floats, crossing, log_mean, mixture_logs

Codes = NDArray[np.integer]  # (looks, paths): which value came
Ints = NDArray[np.int64]
Passes = Callable[[Codes], Floats]  # whole paths' codes (paths, looks) to log factors (paths, looks, bets)

STRIDE = 64  # looks after which paths that have crossed are dropped
TINY = 1e-200  # capital below it is lifted to it: no denormals, and what comes of it stays under 1e-190 of a boundary
SLICE = 40_000  # observations at once, where the module is given whole paths
ROUNDING = 1.0 - 1e-9  # a product and a sum of logs differ by less; in favour of crossing


def weights(bets: int) -> Floats:
    """The share of each bet in `log_mean`, read off it."""
    alone = np.where(np.eye(bets, dtype=bool), 0.0, -np.inf)
    return np.exp(log_mean(alone))


def crossings(factors: Floats, codes: Codes, log_boundary: float) -> Ints:
    """The look at which a test's mean capital first reaches the boundary on each path; 0 where never.

    `factors`: (values, bets) log factors; `codes`: (looks, paths).
    """
    table, boundary = np.ascontiguousarray(np.exp(factors).T), np.exp(log_boundary) * ROUNDING
    looks, paths = codes.shape
    found, alive = np.zeros(paths, dtype=np.int64), np.arange(paths)
    capital = np.repeat(weights(len(table))[:, None], paths, axis=1)
    for begin in range(0, looks, STRIDE):
        block = codes[begin : begin + STRIDE] if len(alive) == paths else codes[begin : begin + STRIDE, alive]
        hit = np.zeros(len(alive), dtype=np.int64)
        factor = np.empty_like(capital)
        for step, now in enumerate(block):
            np.take(table, now, axis=1, out=factor, mode="clip")
            capital *= factor
            total = capital.sum(axis=0)
            if total.max() >= boundary:
                hit[(total >= boundary) & (hit == 0)] = begin + step + 1
        crossed = hit > 0
        if crossed.any():
            found[alive[crossed]] = hit[crossed]
            alive, capital = alive[~crossed], np.ascontiguousarray(capital[:, ~crossed])
            if not len(alive):
                break
        np.maximum(capital, TINY, out=capital)
    return found


def alarms(
    factors: Floats,
    codes: Codes,
    log_boundaries: tuple[float, ...],
    *,
    start: Floats | None = None,
    shiryaev: bool = False,
) -> tuple[Ints, Floats]:
    """The look at which an e-detector's mean first reaches each boundary, (boundaries, paths), 0 where never; and M_j
    at the end, (bets, paths), for `start`.

    CUSUM: M <- max(M, 1) L; with `shiryaev`, Shiryaev and Roberts' M <- (M + 1) L. `start` is None for a fresh one.
    """
    table, limits = np.ascontiguousarray(np.exp(factors).T), np.exp(log_boundaries) * ROUNDING
    paths = codes.shape[1]
    found = np.zeros((len(limits), paths), dtype=np.int64)
    state = np.zeros((len(table), paths)) if start is None else start.copy()
    shares, factor = weights(len(table)), np.empty((len(table), paths))
    for step, now in enumerate(codes):
        np.take(table, now, axis=1, out=factor, mode="clip")
        if shiryaev:
            state += 1.0
        else:
            np.maximum(state, 1.0, out=state)
        state *= factor
        mean = shares @ state
        if mean.max() >= limits[0]:
            for i, limit in enumerate(limits):
                found[i, (mean >= limit) & (found[i] == 0)] = step + 1
        np.minimum(state, 1e150, out=state)  # far above every boundary; a dead student's would overflow
    return found, state


def path_crossings(passes: Passes, codes: Codes, log_boundary: float, *, soon: int | None = None) -> Ints:
    """`crossings` for a test whose bets depend on the path so far. `soon`: a look by which most paths have crossed."""
    looks, paths = codes.shape
    limit = log_boundary + np.log(ROUNDING)
    found, todo = np.zeros(paths, dtype=np.int64), np.arange(paths)
    for horizon in (looks,) if soon is None else (min(soon, looks), looks):
        size = max(1, SLICE // horizon)
        for who in (todo[begin : begin + size] for begin in range(0, len(todo), size)):
            capital = mixture_logs(passes(np.ascontiguousarray(codes[:horizon, who].T)))
            near = capital.max(axis=(1, 2)) >= limit  # a mean is never above its largest part
            found[who[near]] = crossing(log_mean(capital[near]), limit)
        todo = todo[found[todo] == 0]
    return found


def interval(hits: int, runs: int, level: float = 0.999) -> tuple[float, float]:
    """Clopper and Pearson's one-sided bounds of a rate, the lower and the upper, each at `level`."""
    from scipy.stats import beta  # noqa: PLC0415 - heavy: half a second

    low = beta.ppf(1.0 - level, hits, runs - hits + 1) if hits else 0.0
    high = beta.ppf(level, hits + 1, runs - hits) if hits < runs else 1.0
    return float(low), float(high)


def spread(looks: Ints, scale: float = 1.0) -> dict[str, float]:
    """Median and 90th percentile of the looks until a crossing; inf where that many never crossed."""
    waits = np.sort(np.where(looks > 0, looks * scale, np.inf))
    median, late = (float(waits[int(np.ceil(share * len(waits))) - 1]) for share in (0.5, 0.9))
    return {"median": median, "p90": late, "never": float((looks == 0).mean())}
