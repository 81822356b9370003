"""What a run of swaps under load came to, from its answers: times by what happened meanwhile, and arms that changed."""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from swap_load import Answer

Span = tuple[float, float]
Times = dict[str, dict[str, float]]


def times(answers: Sequence[Answer], spans: Sequence[Span]) -> Times:
    """Of the student's answers that were due within one of the spans; of a kind with fewer than two, nothing."""
    of: dict[str, Callable[[Answer], float | None]] = {
        "plain": lambda a: None if a.stream else a.seconds,
        "stream": lambda a: a.seconds if a.stream else None,
        "first text of a stream": lambda a: a.first,
    }
    due = [a for a in answers if a.arm == "student" and any(begin <= a.at <= end for begin, end in spans)]
    found = {}
    for name, take in of.items():
        seconds = [s for a in due if (s := take(a)) is not None]
        if len(seconds) > 1:
            cuts = statistics.quantiles(seconds, n=100)
            found[name] = {
                "answers": len(seconds), "p50_ms": round(cuts[49] * 1000, 1), "p99_ms": round(cuts[98] * 1000, 1)
            }  # fmt: skip
    return found


def ratios(found: Times, steady: Times) -> dict[str, float]:
    """p99, times the steady one."""
    return {name: round(found[name]["p99_ms"] / steady[name]["p99_ms"], 2) for name in steady if name in found}


def arms(answers: Sequence[Answer]) -> int:
    """Answers that came from another arm than most of their conversation's."""
    found: dict[int, Counter[str]] = {}
    for answer in answers:
        if answer.served:
            found.setdefault(answer.session, Counter())[answer.arm] += 1
    return sum(sum(count.values()) - max(count.values()) for count in found.values())


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and longest."""
    return {"median": round(statistics.median(seconds), 2), "longest": round(max(seconds), 2)}
