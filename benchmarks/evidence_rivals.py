"""What is commonly done instead, on the same paths: each says of every path whether it promoted the student.

All are one-sided at 5% by their own account (1.645), start only when there is something to judge, and may stop at any
look that they are said to take.
"""

from collections.abc import Callable

import numpy as np
from evidence_nulls import DIFFERENCES, STUDENT_RIGHT, TEACHER_RIGHT, Stream
from evidence_nulls_latency import MOST
from evidence_walk import path_crossings
from numpy.typing import NDArray

from router.sequential import quality

Hits = NDArray[np.bool_]  # (paths)
Counts = NDArray[np.float32]

Z = 1.645
FLOOR = 100  # answers (in each arm, where there are two) before the first z-test
SMALL_FLOOR = 10  # the best-arm rule's, in each arm
LOOKS = 100
PASSED = FAILED = 5  # checks: the canary goes 10, 20, 30, 40, 50%, then live; rolled back at the fifth failed one
INTERVAL = 50  # student requests


def sums(values: NDArray[np.generic]) -> Counts:
    """Running sums over the looks."""
    return np.asarray(np.cumsum(values, axis=0, dtype=np.float32))


def looked_at(z: NDArray[np.floating], looks: int | None) -> Hits:
    """Whether z was over the limit at any look, or at any of so many evenly spaced ones, the last among them."""
    if looks is not None:
        z = z[:: -max(1, len(z) // looks)]
    return np.asarray((z > Z).any(axis=0))


def z_paired(d: float, looks: int | None) -> Callable[[Stream], Hits]:
    """A z-test on the mean of D + d."""

    def promoted(stream: Stream) -> Hits:
        differences = DIFFERENCES.astype(np.float32)[stream.codes]
        n = np.arange(1, len(differences) + 1, dtype=np.float32)[:, None]
        mean = sums(differences) / n
        variance = np.maximum(sums(differences**2) / n - mean**2, 1e-6)
        return looked_at(((mean + d) / np.sqrt(variance / n))[FLOOR:], looks)

    return promoted


def arms(stream: Stream) -> tuple[Counts, Counts, Counts, Counts]:
    """Running numbers and right answers: (student's n, its right ones, teacher's n, its right ones)."""
    student = stream.arm
    return (
        sums(student),
        sums(student & STUDENT_RIGHT[stream.codes]),
        sums(~student),
        sums(~student & TEACHER_RIGHT[stream.codes]),
    )


def z_pooled(d: float, looks: int | None) -> Callable[[Stream], Hits]:
    """Two proportions, each pooled over all that its arm has answered so far."""

    def promoted(stream: Stream) -> Hits:
        n, right, others, others_right = arms(stream)
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b = right / n, others_right / others
            error = np.sqrt(a * (1.0 - a) / n + b * (1.0 - b) / others)
            z = np.where((n >= FLOOR) & (others >= FLOOR), (a - b + d) / np.maximum(error, 1e-6), 0.0)
        return looked_at(z, looks)

    return promoted


def best_arm(d: float, delta: float = 0.05) -> Callable[[Stream], Hits]:
    """Stops when the student's arm (its rate + d) leads: Gaussian likelihood ratio over ln((1 + ln t) / delta), with
    the arms' own variances, from 10 answers in each arm."""

    def promoted(stream: Stream) -> Hits:
        n, right, others, others_right = arms(stream)
        t = np.arange(1, len(n) + 1)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b = right / n, others_right / others
            variance = np.maximum(a * (1.0 - a), 1e-6) / n + np.maximum(b * (1.0 - b), 1e-6) / others
            lead = a - b + d
            ratio = lead**2 / (2.0 * variance)
        enough = (n >= SMALL_FLOOR) & (others >= SMALL_FLOOR) & (lead > 0.0)
        return np.asarray((enough & (ratio >= np.log((1.0 + np.log(t)) / delta))).any(axis=0))

    return promoted


def checks(passed: NDArray[np.bool_], there: NDArray[np.bool_]) -> Hits:
    """Which paths have PASSED checks passed before FAILED failed; (checks, paths) in their order."""
    good, bad = np.cumsum(passed & there, axis=0), np.cumsum(~passed & there, axis=0)
    return np.asarray(((good >= PASSED) & (bad < FAILED)).any(axis=0))


def threshold(bad: Callable[[Stream], NDArray[np.bool_]], most: float) -> Callable[[Stream], Hits]:
    """A progressive-delivery controller's rule: in each interval of 50 student requests, the share of bad ones is at
    most `most`; five passed checks promote, five failed ones roll back. `bad`: (looks, paths)."""

    def promoted(stream: Stream) -> Hits:
        student = stream.arm
        order = np.cumsum(student, axis=0) - 1
        whole = (order[-1] + 1) // INTERVAL
        row, path = np.nonzero(student)
        interval = order[row, path] // INTERVAL
        count = np.zeros((max(1, int(whole.max())) + 1, student.shape[1]))
        np.add.at(count, (interval, path), bad(stream)[row, path])
        return checks(count / INTERVAL <= most + 1e-9, np.arange(len(count))[:, None] < whole)

    return promoted


def kth_pairs(d: float) -> Callable[[Stream], Hits]:
    """The betting test itself, on false pairs: the k-th answer of the student's arm with the k-th of the teacher's."""
    differences = np.array([-1.0, 0.0, 1.0, -d])

    def promoted(stream: Stream) -> Hits:
        looks, paths = stream.codes.shape
        codes = np.full((looks, paths), 3, dtype=np.uint8)  # no more pairs: D = -d, which changes no capital
        for path in range(paths):
            mine = STUDENT_RIGHT[stream.codes[stream.arm[:, path], path]].astype(np.int8)
            others = TEACHER_RIGHT[stream.codes[~stream.arm[:, path], path]].astype(np.int8)
            k = min(len(mine), len(others))
            codes[:k, path] = mine[:k] - others[:k] + 1
        return path_crossings(lambda paths: quality.passes(differences[paths], d), codes, np.log(20.0)) > 0

    return promoted


def z_rate(p: float, looks: int | None) -> Callable[[Stream], Hits]:
    """A z-test that single requests are bad (code 1) at a rate under p."""

    def promoted(stream: Stream) -> Hits:
        n = np.arange(1, len(stream.codes) + 1, dtype=np.float32)[:, None]
        z = (p - sums(stream.codes) / n) / np.sqrt(p * (1.0 - p) / n)
        return looked_at(z[FLOOR:], looks)

    return promoted


def z_requests(q: float) -> Callable[[Stream], Hits]:
    """A z-test after each block, on all the requests in all blocks as if none knew of another."""

    def promoted(stream: Stream) -> Hits:
        total, slow = np.divmod(stream.codes, MOST + 1)
        n = sums(total)
        z = (q - sums(slow) / n) / np.sqrt(q * (1.0 - q) / n)
        return looked_at(np.where(n >= FLOOR, z, 0.0), None)

    return promoted


def slow_checks(q: float, blocks: int = 6) -> Callable[[Stream], Hits]:
    """The controller's rule on latency: the share of slow requests in each minute (six blocks) is at most q."""

    def promoted(stream: Stream) -> Hits:
        total, slow = np.divmod(stream.codes[: len(stream.codes) // blocks * blocks].astype(np.int32), MOST + 1)
        shape = (-1, blocks, stream.codes.shape[1])
        total, slow = total.reshape(shape).sum(axis=1), slow.reshape(shape).sum(axis=1)
        return checks(slow <= q * total, np.ones(total.shape, dtype=bool))

    return promoted


def z_times(looks: int | None) -> Callable[[Stream], Hits]:
    """The arms' mean log times, each pooled over the whole ramp."""

    def promoted(stream: Stream) -> Hits:
        assert stream.times is not None
        teacher, student = stream.times
        n, others = sums(stream.arm), sums(~stream.arm)
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b = sums(student * stream.arm) / n, sums(teacher * ~stream.arm) / others
            va = sums(student**2 * stream.arm) / n - a**2
            vb = sums(teacher**2 * ~stream.arm) / others - b**2
            z = (b - a) / np.sqrt(va / n + vb / others)
        return looked_at(np.where((n >= FLOOR) & (others >= FLOOR), z, 0.0), looks)

    return promoted
