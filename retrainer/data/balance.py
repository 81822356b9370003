"""No meaning drowns the others: training examples are clustered, and one that has too many loses its
easiest.

Clusters are those of k-means on the unit vectors of the prompts; the centres come from at most MOST_SAMPLED of them,
drawn evenly. Difficulty is the distance from the centre: where there are plenty of examples, the ones near to it teach
the least (Sorscher et al. 2022). Held-out examples stay as production has them.
"""

import sqlite3

import numpy as np
from numpy.typing import NDArray

from retrainer.data.meanings import Vectors, vectors_of
from router.policy_data import BalancePolicy

MOST_SAMPLED = 20_000
ROUNDS = 10
_VECTORS = """
CREATE TEMP VIEW weighed AS SELECT e.seq, v.vector, row_number() OVER (ORDER BY e.seq) AS n
    FROM examples e JOIN vectors v ON v.seq = e.seq WHERE e.side = 'train' AND e.dropped IS NULL AND NOT e.corrected
"""
_NEAREST = "CREATE TEMP TABLE nearest (seq INTEGER PRIMARY KEY, cluster INTEGER NOT NULL, cosine REAL NOT NULL)"
_TOO_MANY = """
UPDATE examples SET dropped = 'balance' WHERE seq IN (SELECT seq FROM (
    SELECT seq, row_number() OVER (PARTITION BY cluster ORDER BY cosine, seq) AS n FROM nearest) WHERE n > ?)
"""


def balance(db: sqlite3.Connection, policy: BalancePolicy) -> None:
    """Mark what is too much as dropped for `balance`."""
    db.execute(_VECTORS)
    db.execute(_NEAREST)
    count = db.execute("SELECT count(*) FROM weighed").fetchone()[0]
    if count >= 2 * policy.clusters:
        every = -(-count // MOST_SAMPLED)
        sampled = vectors_of(db, "SELECT seq, vector FROM weighed WHERE n % ? = 0", every)
        centres = k_means(np.concatenate([vectors for _, vectors in sampled]), policy.clusters)
        for seqs, vectors in vectors_of(db, "SELECT seq, vector FROM weighed"):
            cosines = vectors @ centres.T
            rows = zip(seqs, cosines.argmax(axis=1).tolist(), cosines.max(axis=1).tolist(), strict=True)
            db.executemany("INSERT INTO nearest VALUES (?, ?, ?)", rows)
        db.execute(_TOO_MANY, (int(policy.most * count / policy.clusters),))
    db.execute("DROP TABLE nearest")
    db.execute("DROP VIEW weighed")


def k_means(vectors: Vectors, clusters: int) -> Vectors:
    """Spherical k-means (Dhillon & Modha 2001) from k-means++ seeds (Arthur & Vassilvitskii 2007): unit centres [k, d]
    of unit vectors [n, d]; the same every time."""
    draw = np.random.default_rng(3)
    chosen = [int(draw.integers(len(vectors)))]
    away = np.full(len(vectors), np.inf)  # squared distance from the nearest seed, halved
    while len(chosen) < clusters:
        away = np.minimum(away, np.maximum(1.0 - (vectors @ vectors[chosen[-1]]).astype(np.float64), 0.0))
        if not away.any():
            break
        chosen.append(int(draw.choice(len(vectors), p=away / away.sum())))
    centres = vectors[chosen]
    for _ in range(ROUNDS):
        nearest: NDArray[np.intp] = (vectors @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1.0), centres)
    return np.asarray(centres, dtype=np.float32)
