"""How many pairs a good student needs: betting, the sequential tests that know one more number, and a fixed n."""

import math
from typing import Any

import evidence_nulls as pairs
import numpy as np
from evidence_walk import Codes, Ints, crossings, path_crossings, spread

from router.sequential import quality, sprt
from router.sequential.mixture import Floats

ALPHA, BETA = 0.05, 0.1
LIMIT = math.log(1.0 / ALPHA)
CHUNK = 250
RIGHT = 0.95  # the teacher's rate
EQUAL = ((0.05, 0.05), (0.05, 0.095), (0.02, 0.05), (0.02, 0.095))  # margin, discordance
AGREEMENT = tuple((d, rate) for d in (0.07, 0.10) for rate in (0.01, 0.02, 0.033, 0.04, 0.05))


def waits(world: pairs.World, tests: dict[str, Floats], margin: float, shape: tuple[int, int]) -> dict[str, Ints]:
    """The pair at which each test passes on each path, all on the same paths; 0 where it hasn't after all looks.

    `tests`: log factors by code. The betting test, whose bets depend on the path, is added. `shape`: (paths, looks).
    """
    paths, looks = shape
    found: dict[str, list[Ints]] = {name: [] for name in ("betting", *tests)}

    def passes(codes: Codes) -> Floats:
        return quality.passes(pairs.DIFFERENCES[codes], margin)

    for begin in range(0, paths, CHUNK):
        stream = world(np.random.default_rng([11, begin]), min(CHUNK, paths - begin), looks)
        found["betting"].append(path_crossings(passes, stream.codes, LIMIT, soon=looks // 8))
        for name, factors in tests.items():
            found[name].append(crossings(factors, stream.codes, LIMIT))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def equal_students(paths: int, looks: int) -> list[dict[str, Any]]:
    """A student as good as its teacher: D = 1 and -1 in psi/2 of the pairs each."""
    rows = []
    for d, psi in EQUAL:
        right = np.where(pairs.STUDENT_RIGHT, 1.0, 0.0)
        tests = {
            "betting on a fixed grid": quality.passes_on_grid(pairs.DIFFERENCES, d),
            "binary SPRT, teacher's rate known": sprt.binary(right, RIGHT - d, RIGHT),
        }
        if psi > d:
            tests["trinomial SPRT, discordance known"] = sprt.paired(pairs.DIFFERENCES, d, psi)
        found = waits(pairs.iid(0.0, psi), tests, d, (paths, looks))
        row: dict[str, Any] = {"margin": d, "discordance": psi}
        row |= {name: spread(n) for name, n in found.items()}
        row["fixed n, paired"] = fixed_paired(d, psi)
        row["fixed n, teacher's rate known"] = fixed_binary(RIGHT - d, RIGHT)
        rows.append(row)
    return rows


def agreeing_students(paths: int, looks: int) -> list[dict[str, Any]]:
    """A student that loses this share of its pairs."""
    rows = []
    for d, rate in AGREEMENT:
        tests = {
            "betting on a fixed grid": quality.passes_on_grid(pairs.DIFFERENCES, d),
            "binary SPRT, its rate known": sprt.agreement(pairs.DIFFERENCES, d, 1.0 - rate),
        }
        found = waits(pairs.iid(rate, rate), tests, d, (paths, looks))
        row: dict[str, Any] = {"margin": d, "disagreement": rate}
        row |= {name: spread(n) for name, n in found.items()}
        row["fixed n, its rate known"] = fixed_binary(1.0 - d, 1.0 - rate)
        rows.append(row)
    return rows


def fixed_binary(p0: float, p1: float) -> int:
    """The first n at which an exact binomial test at alpha has power 1 - beta against p1 (it is a saw-tooth in n; the
    normal approximation says 239 for .90 against .95, and 1,221 for .93)."""
    from scipy.stats import binom  # noqa: PLC0415 - heavy: half a second

    n = np.arange(1, 20_000)
    least = binom.ppf(1.0 - ALPHA, n, p0) + 1  # P(X >= least | p0) <= alpha
    enough = binom.sf(least - 1, n, p1) >= 1.0 - BETA
    return int(n[enough][0])


def fixed_paired(d: float, psi: float) -> int:
    """n of a paired z-test at alpha with power 1 - beta for an equal student, by the normal approximation."""
    from scipy.stats import norm  # noqa: PLC0415 - heavy: half a second

    at_null = norm.ppf(1.0 - ALPHA) * math.sqrt(max(psi, d) - d**2)
    root = float(at_null + norm.ppf(1.0 - BETA) * math.sqrt(psi)) / d
    return math.ceil(root**2)
