"""Traffic whose student is exactly at the margin: pairs of answers.

Each world draws (looks, paths) of what came, with E[D | past] = -d at every look; how often student and teacher are
right, how often they differ, who is asked and how often all change as the world says. Rates are compared with 24-bit
uniforms, which moves one by at most 6e-8.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from evidence_walk import Codes
from numpy.random import Generator
from numpy.typing import NDArray

from router.sequential.mixture import Floats

BOTH_RIGHT, BOTH_WRONG, LOST, WON = range(4)  # of the student, against the teacher
DIFFERENCES = np.array([0.0, 0.0, -1.0, 1.0])
STUDENT_RIGHT = np.array([True, False, False, True])
TEACHER_RIGHT = np.array([True, False, True, False])

SLOTS, USERS = 4096, 400  # a request's user is a slot's user: weights are exact, so that a path's mean is exactly -d
GRADES = 8  # graded scores are eighths
AUDIT = 0.2
HARD = 0.3  # share of requests that a student which serves selectively defers


@dataclass(frozen=True, eq=False)
class Stream:
    """What came, (looks, paths). `arm`: where the student served the user; pairs are made of both arms' requests.

    `times`: of paired latency, the logs of the teacher's and the student's times. `propensity`: of outcomes, the
    probability of the student's arm.
    """

    codes: Codes
    arm: NDArray[np.bool_]
    times: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    propensity: Floats | None = None


World = Callable[[Generator, int, int], Stream]  # random numbers, paths, looks


def categorical(rng: Generator, shares: Floats, paths: int) -> Codes:
    """Codes (looks, paths) with the probabilities `shares` (looks, codes), independent given the look."""
    limits = np.cumsum(shares, axis=1).astype(np.float32)
    drawn = rng.random((len(shares), paths), dtype=np.float32)
    codes = np.zeros(drawn.shape, dtype=np.uint8)
    for code in range(shares.shape[1] - 1):
        codes += drawn >= limits[:, code, None]
    return codes


def ramp(looks: int) -> Floats:
    """The student's share of the traffic: 5, 10, 25, 50%, each for a quarter of the looks; (looks, 1)."""
    return np.repeat([0.05, 0.10, 0.25, 0.50], -(-looks // 4))[:looks, None]


def outcomes(teacher: Floats, won: Floats, d: float) -> Floats:
    """The four codes' shares, (looks, 4), for a teacher's rate, a share of wins and a student that is d worse."""
    lost = won + d
    return np.stack([teacher - lost, 1.0 - teacher - won, lost, won], axis=-1)


def iid(d: float, discordance: float = 0.095) -> World:
    """The teacher is right in 95%; the arms are drawn even."""

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        shares = outcomes(np.array(0.95), np.array((discordance - d) / 2), d)
        return Stream(categorical(rng, np.tile(shares, (looks, 1)), paths), even(rng, paths, looks))

    return draw


def drift(d: float, low: float = 0.80, high: float = 0.95, *, ramped: bool = True) -> World:
    """Requests get easier: the teacher's rate drifts from `low` to `high`, and fewer pairs differ; also with a ramp."""

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        teacher = np.linspace(low, high, looks)
        codes = categorical(rng, outcomes(teacher, (1.0 - teacher) / 2, d), paths)
        arm = rng.random((looks, paths), dtype=np.float32) < ramp(looks) if ramped else even(rng, paths, looks)
        return Stream(codes, arm)

    return draw


def users(d: float, discordance: float = 0.095, *, session: int = 1) -> World:
    """Zipf-heavy users, each with its own loss rate and its own teacher's rate, in a fixed arm of a ramp 5 -> 50%.

    `session`: requests in a row by one user. Above 1 a request tells of the next, and d is the mean only on average.
    """

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        lost, wrong = user_rates(rng, paths, (discordance + d) / 2), user_rates(rng, paths, 0.03)
        who = user_draws(rng, paths, looks, session)
        won = (discordance - d) / 2
        drawn = rng.random((looks, paths), dtype=np.float32)
        losses, wrongs = lost.ravel()[who], wrong.ravel()[who]
        codes = np.full(drawn.shape, BOTH_RIGHT, dtype=np.uint8)
        codes[drawn < losses + won + wrongs] = BOTH_WRONG
        codes[drawn < losses + won] = WON
        codes[drawn < losses] = LOST
        return Stream(codes, rng.random(paths * USERS, dtype=np.float32)[who] < ramp(looks))

    return draw


def user_rates(rng: Generator, paths: int, mean: float) -> NDArray[np.float32]:
    """A rate a user, (paths, USERS), from a third to 3 times the mean or so; by traffic they are exactly the mean."""
    taste = np.exp(rng.uniform(-1.1, 1.1, (paths, USERS)))
    weight = np.bincount(slot_users(), minlength=USERS) / SLOTS
    return np.asarray(mean * taste / (taste @ weight)[:, None], dtype=np.float32)


def slot_users() -> NDArray[np.int32]:
    """Whose slot each is: user k has a share of about 1/k^1.1; the heaviest 20%."""
    share = np.arange(1, USERS + 1) ** -1.1
    return np.searchsorted(np.cumsum(share / share.sum()), (np.arange(SLOTS) + 0.5) / SLOTS).astype(np.int32)


def user_draws(rng: Generator, paths: int, looks: int, session: int = 1) -> NDArray[np.int32]:
    """The number of each request's user in (paths, USERS) flattened, (looks, paths)."""
    who = slot_users()[rng.integers(0, SLOTS, (-(-looks // session), paths), dtype=np.uint16)]
    return np.repeat(who, session, axis=0)[:looks] + np.arange(paths, dtype=np.int32) * USERS


def even(rng: Generator, paths: int, looks: int) -> NDArray[np.bool_]:
    """Arms by a coin."""
    return rng.integers(0, 2, (looks, paths), dtype=np.uint8).astype(bool)


def graded(d: float, *, loses_only: bool) -> World:
    """Scores in eighths, whose judge grows stricter: both arms' means fall from .95 to .75, d apart.

    `loses_only`: of agreement, where the reference has 1: first few pairs lose much, then many lose a little.
    Codes are (student's - teacher's eighths) + 8.
    """

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        if loses_only:
            moved = np.linspace(0.0, 1.0, looks)[:, None]
            shares = (1.0 - moved) * _eighths(-d, 1.0) + moved * _eighths(-d, 2 * d)
        else:
            shares = np.stack([_two_judged(mean, d) for mean in np.linspace(0.95, 0.75, looks)])
        return Stream(categorical(rng, shares, paths), even(rng, paths, looks))

    return draw


GRADED = np.arange(-GRADES, GRADES + 1) / GRADES  # D by code


def _eighths(mean: float, largest: float) -> Floats:
    """Shares of the codes with this mean D: losses of up to `largest`, at most, and agreement."""
    worst = max(1, round(largest * GRADES))
    each = np.zeros(len(GRADED))
    each[GRADES - worst : GRADES] = 1.0 / worst
    lost = -mean / -(each @ GRADED)
    each *= lost
    each[GRADES] = 1.0 - lost
    return each


def _two_judged(teacher: float, d: float) -> Floats:
    """Shares of the codes where both scores are binomial eighths, apart from each other."""
    scores = [_binomial(teacher), _binomial(teacher - d)]
    return np.convolve(scores[1], scores[0][::-1])


def _binomial(p: float) -> Floats:
    ways = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1])
    count = np.arange(GRADES + 1)
    return np.asarray(ways * p**count * (1.0 - p) ** (GRADES - count))


# Pairs of a ramp where the student defers what it is unsure of. A pair's weight: (the smallest inclusion) / (its own).
MIXED_WEIGHTS = np.array([1.0, 1.0, 1.0, AUDIT, AUDIT, AUDIT])
MIXED_DIFFERENCES = np.array([-1.0, 0.0, 1.0] * 2)


def mixed(d: float, discordance: float) -> World:
    """A ramp 5 -> 50%: sure answers that were served are pairs in 20%, deferred ones and the teacher's arm's always.

    Over all requests the mean of D is -d: -d/3 where the student is sure, the rest where it isn't.
    """
    easy, hard = -d / 3, -d * (1.0 - (1.0 - HARD) / 3) / HARD
    won = (discordance - d) / 2

    def differences(mean: float) -> Floats:
        return np.array([won - mean, 1.0 - 2 * won + mean, won])

    def draw(rng: Generator, paths: int, looks: int) -> Stream:
        share = ramp(looks)
        audited = share * (1.0 - HARD) * AUDIT * differences(easy)
        always = (1.0 - share) * (1.0 - HARD) * differences(easy) + HARD * differences(hard)
        mass = np.concatenate([audited, always], axis=1)
        codes = categorical(rng, mass / mass.sum(axis=1, keepdims=True), paths)
        return Stream(codes, even(rng, paths, looks))

    return draw
