"""No meaning drowns the others: training examples are clustered, and one that has too many loses its
easiest.

Clusters are those of k-means on the unit vectors of the prompts; the centres come from at most MOST_SAMPLED of them,
drawn evenly. Difficulty is the distance from the centre: where there are plenty of examples, the ones near to it teach
the least (Sorscher et al. 2022). Held-out examples stay as production has them.
"""

import sqlite3

import numpy as np

from retrainer.data.k_means import k_means
from retrainer.data.meanings import vectors_of
from router.policy_data import BalancePolicy

MOST_SAMPLED = 20_000
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
