"""Clusters of unit vectors, the same every time."""

import numpy as np
from numpy.typing import NDArray

from retrainer.data.meanings import Vectors

ROUNDS = 10
NOTHING = 1e-6  # a sum of squared distances that rounding makes of equal vectors


def seeds(vectors: Vectors, count: int, *, first: int, draw: np.random.Generator) -> list[int]:
    """Places of `count` of the unit vectors [n, d] that are far from each other (k-means++, Arthur & Vassilvitskii
    2007): each drawn by the squared distance to the nearest before it, beginning with `first`. Fewer where all the
    others are equal to these."""
    chosen = [first]
    away = np.full(len(vectors), np.inf)  # squared distance from the nearest seed, halved
    while len(chosen) < count:
        away = np.minimum(away, np.maximum(1.0 - vectors @ vectors[chosen[-1]], 0.0).astype(np.float64))
        if away.sum() < NOTHING:
            break
        chosen.append(int(draw.choice(len(vectors), p=away / away.sum())))
    return chosen


def k_means(vectors: Vectors, clusters: int) -> Vectors:
    """Spherical k-means (Dhillon & Modha 2001): unit centres [k, d] of unit vectors [n, d]."""
    draw = np.random.default_rng(3)
    centres = vectors[seeds(vectors, clusters, first=int(draw.integers(len(vectors))), draw=draw)]
    for _ in range(ROUNDS):
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest(vectors, centres), vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1.0), centres)
    return np.asarray(centres, dtype=np.float32)


def nearest(vectors: Vectors, centres: Vectors) -> NDArray[np.intp]:
    """Which of the unit centres [k, d] each of the unit vectors [n, d] has the greatest cosine with."""
    return np.asarray((vectors @ centres.T).argmax(axis=1))
