"""Traffic whose student is exactly at the boundary: latency in blocks and in pairs, errors, outcomes."""

from collections.abc import Callable

import numpy as np
from evidence_nulls import USERS, Stream, World, even, ramp, user_draws, user_rates
from numpy.random import Generator
from numpy.typing import NDArray

from router.sequential.mixture import Floats

MOST = 40  # requests of a block at the most; a block's code is total * (MOST + 1) + slow
STAGES = 20  # a world that changes has so many shares of its codes, one after the other


def shares_of_codes() -> Floats:
    """V_b of each block code; codes without requests never come."""
    total, slow = np.divmod(np.arange((MOST + 1) ** 2), MOST + 1)
    return np.asarray(np.minimum(slow / np.maximum(total, 1), 1.0))


def blocks(world: Callable[[float], Floats]) -> World:
    """SLO blocks, independent of each other; `world`: the codes' shares at a moment from 0 to 1."""

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        codes = np.empty((looks, paths), dtype=np.uint16)
        for stage, rows in enumerate(np.array_split(np.arange(looks), STAGES)):
            limits = np.cumsum(world(stage / (STAGES - 1)))
            drawn = rng.random((len(rows), paths)) * limits[-1]
            codes[rows] = np.searchsorted(limits, drawn, side="right")
        return Stream(codes, np.ones((looks, paths), dtype=bool))

    return draw


def slow_alike(q: float) -> Callable[[float], Floats]:
    """1 to 16 requests a block, each slow with probability q."""
    return lambda moment: _codes(_counts(4.0), lambda total: [(1.0, q)])


def slow_on_a_ramp(q: float) -> Callable[[float], Floats]:
    """The traffic grows tenfold."""
    return lambda moment: _codes(_counts(0.6 * 10**moment), lambda total: [(1.0, q)])


def slow_in_bursts(q: float) -> Callable[[float], Floats]:
    """Heavy-tailed traffic (Pareto, 1.2); a block with more of it is slower: spells that fill a part of the block."""
    counts = np.diff(-(np.arange(1, MOST + 2.0) ** -1.2), prepend=np.nan)[1:]
    load = 1.0 + 3.0 * np.arange(1, MOST + 1) / MOST
    unit = q / (counts / counts.sum() @ load)  # the mean of the shares is q
    spell = 0.1

    def chances(total: int) -> list[tuple[float, float]]:
        p = unit * load[total - 1]
        inside = min(1.0, 0.6 * p / spell)
        return [(spell, inside), (1.0 - spell, (p - spell * inside) / (1.0 - spell))]

    return lambda moment: _codes(counts / counts.sum(), chances)


def slow_together_later(q: float) -> Callable[[float], Floats]:
    """First each request for itself, at the end whole blocks: the mean stays, the spread drifts."""

    def world(moment: float) -> Floats:
        alone = _codes(_counts(4.0), lambda total: [(1.0, q)])
        together = _codes(_counts(4.0), lambda total: [(q, 1.0), (1.0 - q, 0.0)])
        return (1.0 - moment) * alone + moment * together

    return world


def slow_by_user(q: float) -> Callable[[float], Floats]:
    """Zipf-heavy users who fill a block each; the heaviest is 4 times as slow as the mean."""
    weight = np.arange(1, 101) ** -1.1
    weight /= weight.sum()
    rate = np.linspace(4.0, 0.0, 100) ** 2
    rate *= q / (weight @ rate)
    return lambda moment: _codes(_counts(4.0), lambda total: list(zip(weight, rate, strict=True)))


def _counts(mean: float) -> Floats:
    """Shares of 1, 2, ... MOST requests in a block: Poisson's, without empty blocks."""
    n = np.arange(1, MOST + 1)
    logs = n * np.log(mean) - np.cumsum(np.log(n))
    shares = np.exp(logs - logs.max())
    return np.asarray(shares / shares.sum())


def _codes(counts: Floats, chances: Callable[[int], list[tuple[float, float]]]) -> Floats:
    """Shares of the block codes: `chances` of a block with so many requests, as (weight, probability of slow)."""
    from scipy.stats import binom  # noqa: PLC0415 - heavy: half a second

    table = np.zeros((MOST + 1, MOST + 1))
    for total, share in enumerate(counts, start=1):
        weight, p = np.array(chances(total)).T
        table[total, : total + 1] = share * (weight @ binom.pmf(np.arange(total + 1), total, p[:, None]))
    return table.ravel()


def spells(q: float, *, spell: int, block: int) -> World:
    """A request a slot; spells of `spell` slots begin at any time and run over borders; V_b over `block` slots.

    Codes are numbers of slow slots in a block, as `total * (MOST + 1) + slow`. A slot is slow while any spell lasts.
    """
    begins = 1.0 - (1.0 - q) ** (1.0 / spell)  # P(no spell has begun in `spell` slots) = 1 - q

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        codes = np.empty((looks, paths), dtype=np.uint16)
        before = rng.random((spell - 1, paths), dtype=np.float32) < begins  # a spell may last since before the first
        step = max(1, 4096 // block)
        for row in range(0, looks, step):
            rows = min(step, looks - row)
            new = rng.random((rows * block, paths), dtype=np.float32) < begins
            begun = np.concatenate([before, new])
            count = _lasting(begun, spell).reshape(rows, block, paths).sum(axis=1, dtype=np.uint16)
            codes[row : row + rows] = count + block * (MOST + 1)
            before = begun[len(begun) - spell + 1 :]
        return Stream(codes, np.ones((looks, paths), dtype=bool))

    return draw


def _lasting(begun: NDArray[np.bool_], spell: int) -> NDArray[np.bool_]:
    """Whether any of the last `spell` rows began one; by doubling. Loses the first spell - 1 rows."""
    wide, reach = begun, 1
    while reach < spell:
        more = min(reach, spell - reach)
        wide = wide[more:] | wide[:-more]
        reach += more
    return wide


LogTimes = NDArray[np.float32]


def pairs(common: str, *, noise: str = "normal") -> World:
    """Paired times (codes: 1 where the student was slower), the student's from the teacher's own distribution.

    `common` to both calls of a pair: "none", "drift" (half as long at the end), "ramp" (the load of a growing share),
    "bursts" (5 times as long in spells), "users". `noise`: "normal" or "pareto" (index 1.1, no variance) of the logs'.
    """

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        teacher, student = times(rng, common, noise, paths, looks)
        arm = rng.random((looks, paths), dtype=np.float32) < ramp(looks)
        return Stream((student > teacher).astype(np.uint8), arm, times=(teacher, student))

    return draw


def times(rng: Generator, common: str, noise: str, paths: int, looks: int) -> tuple[LogTimes, LogTimes]:
    """Log times of the teacher and of the student, (looks, paths) each."""
    base = np.zeros((1, 1), dtype=np.float32)
    if common == "drift":
        base = np.linspace(np.log(2.0), 0.0, looks, dtype=np.float32)[:, None]
    elif common == "ramp":
        base = (2.0 * ramp(looks)).astype(np.float32)
    elif common == "bursts":
        begun = rng.random((looks + 49, paths), dtype=np.float32) < 0.004
        base = np.where(_lasting(begun, 50), np.float32(np.log(5.0)), np.float32(0.0))
    elif common == "users":
        base = np.log(user_rates(rng, paths, 1.0)).ravel()[user_draws(rng, paths, looks)]
    return base + _noise(rng, noise, paths, looks), base + _noise(rng, noise, paths, looks)


def _noise(rng: Generator, noise: str, paths: int, looks: int) -> LogTimes:
    if noise == "pareto":
        return rng.standard_exponential((looks, paths), dtype=np.float32) / np.float32(1.1)
    return rng.standard_normal((looks, paths), dtype=np.float32) * np.float32(0.5)


def lone_spells(rate: float, spell: int) -> World:
    """Single requests (code 1: slow, slower, failed), at this rate over all, in spells: one tells of the next.

    The student alone is slow for a while, or its engine starts again. Broken on purpose where every look is a bet.
    """
    world = spells(rate, spell=spell, block=1)

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        stream = world(rng, paths, looks)
        return Stream((stream.codes - (MOST + 1)).astype(np.uint8), stream.arm)

    return draw


def failures(p: float, kind: str) -> World:
    """Failed requests (code 1), at rate p. `kind`: "alike"; "users", each with its own rate; "ramp", where users with
    their own rates join in the order of a hash, and the rate of those who are in is kept at p."""

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        drawn = rng.random((looks, paths), dtype=np.float32)
        rate: NDArray[np.float32] = np.full((1, 1), p, dtype=np.float32)
        if kind != "alike":
            rate = user_rates(rng, paths, p).ravel()[user_draws(rng, paths, looks)]
        if kind == "ramp":
            rate = _joining(rng, p, paths, looks)
        return Stream((drawn < rate).astype(np.uint8), even(rng, paths, looks))

    return draw


def _joining(rng: Generator, p: float, paths: int, looks: int) -> NDArray[np.float32]:
    """Rates of requests by users of equal weight, of whom the first 5, 10, 25, 50% are in: (looks, paths)."""
    taste = np.exp(rng.uniform(-1.1, 1.1, (USERS, paths)))
    rates = []
    for share in (0.05, 0.10, 0.25, 0.50):
        within = taste[: int(share * USERS)]
        rows = rng.integers(0, len(within), (-(-looks // 4), paths))
        rates.append(p * np.take_along_axis(within / within.mean(axis=0), rows, axis=0))
    return np.concatenate(rates)[:looks].astype(np.float32)


def responses(d: float, kind: str) -> World:
    """Outcomes of users, one a conversation; codes 0 or 1.

    P(good | student) = P(good | teacher) - d. `kind`: "alike", "drift" (.3 to .6), "ramp" (drift, and 5 -> 50%), or
    "users" (each user's own rate; one value a user's conversation, arms by conversation, on a ramp).
    """

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        share = ramp(looks) if kind in ("ramp", "users") else np.full((looks, 1), 0.5)
        arm = rng.random((looks, paths), dtype=np.float32) < share
        rate: Floats = np.linspace(0.3, 0.6, looks)[:, None] if kind in ("drift", "ramp") else np.full((1, 1), 0.5)
        if kind == "users":
            rate = np.clip(user_rates(rng, paths, 0.4).ravel()[user_draws(rng, paths, looks)], d, 1.0)
        good = rng.random((looks, paths), dtype=np.float32) < rate - d * arm
        return Stream(good.astype(np.uint8), arm, propensity=np.broadcast_to(share, (looks, paths)))

    return draw
