"""How much two rankings of ids agree. A list is ordered, the best first; of an id that stands twice the first counts.

Sources: NDCG: Jarvelin & Kekalainen 2002 (gain / log2(1 + rank)); tau-b: Kendall 1945.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np


def recall_at_k(given: Sequence[str], expected: Sequence[str], k: int) -> float:
    """Share of the reference's first k ids that are among the first k given. 1.0 where the reference is empty."""
    wanted = set(_first(expected, k))
    return len(wanted & set(_first(given, k))) / len(wanted) if wanted else 1.0


def ndcg_at_k(given: Sequence[str], gains: Mapping[str, float] | Collection[str], k: int) -> float:
    """Discounted gain of the first k given ids over that of the best order, in [0, 1].

    `gains`: of each id, 0 or more; of a plain collection each id's gain is 1. 1.0 where nothing has any gain. Raises
    ValueError for a negative gain.
    """
    worth = dict(gains) if isinstance(gains, Mapping) else dict.fromkeys(gains, 1.0)
    if any(gain < 0.0 for gain in worth.values()):
        raise ValueError("gains must be 0 or more")
    best = _dcg(sorted(worth.values(), reverse=True)[: _positive(k)])
    return _dcg([worth.get(i, 0.0) for i in _first(given, k)]) / best if best else 1.0


def mrr(given: Sequence[str], relevant: Collection[str]) -> float:
    """1 / rank of the first relevant id; 0.0 where none is given. (Its mean over requests is the MRR.)"""
    return next((1.0 / rank for rank, i in enumerate(_first(given, len(given) or 1), start=1) if i in relevant), 0.0)


def kendall(given: Sequence[str], expected: Sequence[str]) -> float:
    """Kendall's tau-b over the ids of both lists, in [-1, 1]; O(n^2).

    tau-b = (concordant - discordant) / sqrt((pairs - tied in one) (pairs - tied in the other)). Ids that a list doesn't
    hold are tied behind its last. Where a list ties all ids, the formula is 0/0: 1.0 where both lists hold the same ids
    (one, or none), else 0.0.
    """
    first, second = _ranks(given), _ranks(expected)
    ids = list(dict.fromkeys((*given, *expected)))
    a = _signs([first.get(i, len(first)) for i in ids])
    b = _signs([second.get(i, len(second)) for i in ids])
    untied = float(np.abs(a).sum()) * float(np.abs(b).sum())
    if untied == 0.0:
        return float(first == second)
    return float((a * b).sum()) / math.sqrt(untied)


def _first(ids: Sequence[str], k: int) -> list[str]:
    return list(dict.fromkeys(ids))[: _positive(k)]


def _positive(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    return k


def _ranks(ids: Sequence[str]) -> dict[str, int]:
    return {i: rank for rank, i in enumerate(dict.fromkeys(ids))}


def _signs(ranks: Sequence[int]) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Of each pair, which comes first: (n, n), antisymmetric."""
    column = np.asarray(ranks, dtype=np.float64)
    return np.sign(column[:, None] - column[None, :])


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(1 + rank) for rank, gain in enumerate(gains, start=1))
