"""Other ways to choose the threshold of confidence, on the same streams: CSA's rule, BARGAIN, and an oracle.

CSA (Khosravi & Huo 2026, arXiv 2605.20270) by its rule: an e-process a threshold, each against alpha / thresholds, the
loosest certified one serves. It is given the bets that ours has, and thresholds that cover as ours do.
BARGAIN (Zeighami et al., the package `bargain`) is a batch method: it is given all confidences of the batch at once and
asks for the labels that it wants, within a budget. Its precision form answers our question, with "the student is right"
as what is precise.
"""

import contextlib
import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.sequential.threshold import growth

Floats = NDArray[np.float64]
BETS = np.geomspace(0.1, 0.9, 8)


def csa(thresholds: Floats, confidence: Floats, loss: Floats, *, max_risk: float, alpha: float) -> NDArray[np.int64]:
    """The number, from 1, of the loosest certified threshold when each pair came and after the last (n + 1)."""
    force = np.zeros(len(loss) + 1, dtype=np.int64)
    factors = np.log1p(-(loss - max_risk)[:, None] * BETS / (1.0 - max_risk))  # (n, bets)
    for k, threshold in enumerate(thresholds):
        logs = np.cumsum(np.where((confidence >= threshold)[:, None], factors, 0.0), axis=0)
        certified = np.exp(np.clip(logs, -700.0, 600.0)).mean(axis=1) >= len(thresholds) / alpha
        force[1:][certified] = k + 1
    return force


def oracle(confidence: Floats, risk: Floats, *, max_risk: float) -> float:
    """The loosest threshold above 0 with a risk of at most max_risk, from confidence and the chance of a loss of a
    whole population; 2 where there is none."""
    order = np.argsort(-confidence, kind="stable")
    mean = np.cumsum(risk[order]) / np.arange(1, len(order) + 1)
    last = np.append(np.diff(confidence[order]) != 0.0, True)  # a threshold takes all of its equals
    safe = np.flatnonzero((mean <= max_risk) & last)
    safe = safe[(safe >= len(order) // 200) & (confidence[order][safe] > 0.0)]
    return float(confidence[order][safe[-1]]) if len(safe) else 2.0


def attainable(confidence: Floats, risk: Floats, *, max_risk: float, alpha: float, pairs: int) -> float:
    """The coverage of the loosest threshold that the best of all bets, known beforehand, certifies within `pairs`: its
    expected log capital, pairs x coverage x KL(risk || max_risk), is log(1/alpha) by then. No test needs fewer."""
    order = np.argsort(-confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    won = pairs * count / len(order) * growth(np.cumsum(risk[order]) / count, max_risk)
    enough = np.flatnonzero(won >= np.log(1.0 / alpha))
    return float((enough[-1] + 1) / len(order)) if len(enough) else 0.0


def bargain(
    confidence: Floats, loss: Floats, *, max_risk: float, alpha: float, budget: int, seed: int
) -> tuple[float, int]:
    """BARGAIN's threshold for a batch (above 1 where it finds none), and how many labels it asked for."""
    os.environ.setdefault("OPENAI_API_KEY", "unused")  # its module makes a client when it is imported
    from BARGAIN import BARGAIN_P, Oracle, Proxy  # noqa: PLC0415 - a development package, slow to import

    class Student(Proxy):  # type: ignore[misc]
        def proxy_func(self, i: Any) -> tuple[int, float]:
            return 1, float(confidence[int(i)])

    class Teacher(Oracle):  # type: ignore[misc]
        def oracle_func(self, i: Any, proxy_output: Any) -> tuple[bool, int]:
            right = int(loss[int(i)] == 0.0)
            return bool(right), right

    asked = Teacher(verbose=False, max_workers=1)
    method = BARGAIN_P(
        Student(verbose=False, max_workers=1), asked, delta=alpha, target=1.0 - max_risk, budget=budget, seed=seed
    )
    with contextlib.redirect_stderr(io.StringIO()), np.errstate(divide="ignore", invalid="ignore"):
        chosen = method.process(list(range(len(confidence))))
    inside = np.zeros(len(confidence), dtype=np.bool_)
    inside[np.array(chosen, dtype=np.int64)] = True
    ranked = np.argsort(confidence)[::-1]  # as BARGAIN ranks
    count = int((~inside[ranked]).argmax()) if not inside.all() else len(ranked)
    # What it adds beyond its threshold are labelled answers; one by chance at the edge moves it by a rank.
    return (float(confidence[ranked[count - 1]]) if count else 2.0), asked.get_number_preds()
