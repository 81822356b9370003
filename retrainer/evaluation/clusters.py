"""Where a student errs: agreement by cluster of requests, with examples; and what it lost against its predecessor.

Where the teacher's answers are few, each is a cluster; else requests are clustered by k-means of their novelty vectors
(hashed words and n-grams, `exporters.models.novelty`), and named by the words that stand out in them.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from retrainer.data.curate import Example
from retrainer.evaluation.bounds import interval, weighted_mean
from retrainer.evaluation.evaluate import Report

MOST_EXAMPLES = 5000  # whose vectors are taken
MOST_LABELS = 60  # different answers, each given twice on average, up to which an answer is a cluster
MOST_CLUSTERS = 8
LEAST_IN_CLUSTER = 25  # records that a cluster of requests has on average
SHOWN = 3  # examples
LENGTH = 200  # characters of each text shown


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A record as people see it, its texts cut. `before`: the previous student's answer."""

    request: str
    teacher: str
    student: str
    reason: str
    before: str | None = None


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """`n`: records with a score. `lower`, `upper`: see Report. `worst`: the first few of the least score under 1."""

    name: str
    n: int
    agreement: float
    lower: float
    upper: float
    worst: list[Shown]


class Regressions(msgspec.Struct, frozen=True, kw_only=True):
    """Records on which the candidate scores less than the previous student (`lost`), and more (`won`), of `n`. `p`:
    exact two-sided McNemar (1947) of that, the records taken as independent. `fell`: by how much the mean score is
    lower (negative: higher). `examples`: the greatest losses."""

    previous: str
    n: int
    lost: int
    won: int
    p: float
    examples: list[Shown]
    fell: float = 0.0


def clusters(report: Report, judged: Sequence[Example]) -> list[Cluster]:
    """The weakest first."""
    members: dict[str, list[int]] = {}
    for i, name in enumerate(_names(judged)):
        if report.outcomes[i].value is not None:
            members.setdefault(name, []).append(i)
    made = [_cluster(name, places, report, judged) for name, places in members.items()]
    return sorted(made, key=lambda c: (c.agreement, c.name))


def regressions(report: Report, previous: Report, name: str, judged: Sequence[Example]) -> Regressions:
    """Both reports are of the records `judged`. `name`: the previous version's id."""
    drops: list[tuple[float, int]] = []
    won = n = 0
    fell = 0.0
    for i, (now, then) in enumerate(zip(report.outcomes, previous.outcomes, strict=True)):
        if now.value is None or then.value is None:
            continue
        n += 1
        fell += then.value - now.value
        won += now.value > then.value
        if now.value < then.value:
            drops.append((now.value - then.value, i))
    shown = [_shown(i, report, judged, before=previous.outcomes[i].text) for _, i in sorted(drops)[:SHOWN]]
    return Regressions(
        previous=name,
        n=n,
        lost=len(drops),
        won=won,
        p=_mcnemar(len(drops), won),
        examples=shown,
        fell=fell / n if n else 0.0,
    )


def _cluster(name: str, places: Sequence[int], report: Report, judged: Sequence[Example]) -> Cluster:
    values = {i: v for i in places if (v := report.outcomes[i].value) is not None}
    groups, weights = [judged[i].group or judged[i].id for i in values], [judged[i].weight for i in values]
    lower, upper = interval(list(values.values()), confidence=report.confidence, groups=groups, weights=weights)
    worst = sorted((i for i in places if values[i] < 1.0), key=values.__getitem__)[:SHOWN]
    return Cluster(
        name=name,
        n=len(places),
        agreement=weighted_mean(list(values.values()), weights),
        lower=lower,
        upper=upper,
        worst=[_shown(i, report, judged) for i in worst],
    )


def _shown(i: int, report: Report, judged: Sequence[Example], *, before: str | None = None) -> Shown:
    return Shown(
        request=judged[i].messages[-1]["content"][:LENGTH],
        teacher=judged[i].answer[:LENGTH],
        student=report.outcomes[i].text[:LENGTH],
        reason=report.outcomes[i].reason,
        before=None if before is None else before[:LENGTH],
    )


def _names(judged: Sequence[Example]) -> list[str]:
    """Each record's cluster."""
    labels = Counter(e.answer.strip() for e in judged)
    if len(labels) <= min(MOST_LABELS, len(judged) / 2):
        return [e.answer.strip()[:LENGTH] for e in judged]
    count = min(MOST_CLUSTERS, len(judged) // LEAST_IN_CLUSTER)
    if count < 2 or len(judged) > MOST_EXAMPLES:
        return ["all requests"] * len(judged)
    assigned = _k_means(judged, count)
    titles = _titles(judged, assigned)
    return [titles[c] for c in assigned]


def _k_means(judged: Sequence[Example], count: int) -> list[int]:
    from exporters.models.novelty import Neighbours  # noqa: PLC0415 - numpy: only a cycle pays for it
    from retrainer.data.k_means import k_means, nearest  # noqa: PLC0415 - numpy

    vectors = Neighbours.of([e.messages for e in judged]).vectors
    return [int(c) for c in nearest(vectors, k_means(vectors, count))]


def _titles(judged: Sequence[Example], assigned: Sequence[int]) -> Mapping[int, str]:
    """The three words of each cluster that are the most frequent against all records' (count^2 / count in all)."""
    words = [set(re.findall(r"[^\W\d_]{3,}", e.messages[-1]["content"].casefold())) for e in judged]
    everywhere = Counter(w for found in words for w in found)
    titles: dict[int, str] = {}
    for cluster in sorted(set(assigned)):
        here = Counter(w for found, c in zip(words, assigned, strict=True) if c == cluster for w in found)
        best = sorted(here, key=lambda w: (-(here[w] ** 2) / everywhere[w], w))[:3]
        titles[cluster] = f"{cluster + 1}: {', '.join(best)}"
    return titles


def _mcnemar(lost: int, won: int) -> float:
    n = lost + won
    tail = sum(math.comb(n, k) for k in range(min(lost, won) + 1))
    return float(min(1.0, 2 * tail / 2**n))
