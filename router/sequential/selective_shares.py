"""The thresholds of selective serving, and how alpha is shared among them, by what a validation set says of them.

A threshold's evidence grows by at most g_k = coverage x KL(risk || max_risk) a request (in logs, Kelly's rate). So the
shares are nine tenths in proportion to g_k, by validation, and a tenth as without it, lest a validation set that
misleads costs more than log 10. Whatever they are, alpha holds: shares are weights of e-values that are fixed before
the first pair. They are not evidence, so validation needs no likeness to what comes.
"""

import numpy as np

from router.errors import RouterError
from router.sequential.mixture import Floats
from router.sequential.selective import even_shares
from router.sequential.threshold import growth

BLIND = 0.1
STRICTEST = 0.05  # the share of requests with a positive confidence that the first threshold accepts
SMALLEST = 1e-6  # the last: everything that is not novel


def thresholds_of(confidence: Floats, count: int = 20) -> tuple[float, ...]:
    """At most `count` thresholds, falling, that accept evenly growing shares of the validation records: from STRICTEST
    of those with a positive confidence to everything with one. Strict ones cost nothing: see `selective`."""
    known = np.asarray(confidence, dtype=np.float64)
    known = known[known > 0.0]
    if not len(known):
        return (SMALLEST,)
    steps = np.quantile(known, 1.0 - np.linspace(STRICTEST, 1.0, count)[:-1])
    return (*sorted({float(min(t, 1.0)) for t in steps if t > SMALLEST}, reverse=True), SMALLEST)


def shares_of(thresholds: tuple[float, ...], confidence: Floats, loss: Floats, *, max_risk: float) -> tuple[float, ...]:
    """One share a threshold, from the confidence and loss (n each, losses in [0, 1]) of validation records. The risk is
    (sum of losses + 1/2) / (n + 1). Raises RouterError where confidence and loss differ in length."""
    confidence, loss = np.asarray(confidence, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if confidence.shape != loss.shape:
        raise RouterError(f"confidence and loss are one value a record each; got {confidence.shape} and {loss.shape}")
    blind = np.array(even_shares(len(thresholds)))
    taken = confidence[:, None] >= np.array(thresholds)
    n = taken.sum(axis=0)
    risk = (loss @ taken + 0.5) / (n + 1.0)
    won = n * growth(risk, max_risk)
    if not won.any():
        return tuple(blind.tolist())
    return tuple(((1.0 - BLIND) * won / won.sum() + BLIND * blind).tolist())
