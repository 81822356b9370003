"""Closed answers by TF-IDF of words and characters, and one logistic regression a field (scikit-learn; L-BFGS)."""

import math
import time
from pathlib import Path
from typing import Any

from retrainer.job import Job
from retrainer.recipes.closed import ClosedRecipe, Task, fields_of, settings_of, temperatures
from retrainer.train.regression import of_each_class

MOST_NGRAMS = 50_000  # of each kind
MOST_WEIGHTS = 20_000_000
NEVER = -30.0  # the logit of a value that no learnt example has
STEPS = 60  # of L-BFGS: what comes after changes the last digit


class Linear(ClosedRecipe):
    """See Recipe."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, fit, base="n-grams")


def fit(task: Task, folder: Path) -> dict[str, Any]:
    """Learn n-grams and weights; on what may choose, temperatures."""
    from exporters.models.closed import Card, write_card  # noqa: PLC0415 - numpy

    began = time.monotonic()
    ngrams, loss = learn(task, folder)
    found = tuple(t for t, _ in temperatures(task, checked(task, folder)))
    write_card(folder, Card(kind="linear", form=task.form, shared=task.shared, frame=task.frame, temperatures=found))
    return {
        "settings": settings_of(task.job, "strength"),
        "losses": [math.fsum(map(math.log, task.form.sizes)), loss],
        "ngrams": ngrams,
        "temperatures": list(found),
        "seconds": time.monotonic() - began,
    }


def learn(task: Task, folder: Path) -> tuple[int, float]:
    """Write n-grams and weights into `folder`; how many n-grams, and the mean log loss of all fields together."""
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - heavy

    from exporters.models.closed_linear import write_linear  # noqa: PLC0415 - numpy
    from exporters.models.ngrams import Ngrams, Reader  # noqa: PLC0415 - with it

    job, sizes = task.job, task.form.sizes
    texts = [one.text for one in task.learnt]
    ngrams = Ngrams.learn(texts, most=min(MOST_NGRAMS, max(1, MOST_WEIGHTS // sum(sizes) // 2)))
    reader = Reader(ngrams)
    rows = [reader.row(text) for text in texts]
    ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    columns = np.concatenate([np.asarray(c, dtype=np.int64) for c, _ in rows])
    values = np.concatenate([np.asarray(w, dtype=np.float32) for _, w in rows])
    table = csr_matrix((values, columns, ends), shape=(len(rows), len(ngrams)))
    chosen = np.array([one.numbers for one in task.learnt])
    weighed = np.array([one.weight for one in task.learnt])
    weights = np.zeros((len(ngrams), sum(sizes)), dtype=np.float32)
    bias = np.full(sum(sizes), NEVER, dtype=np.float32)
    loss = 0.0
    for number, at in enumerate(fields_of(task.form)):
        job.progress("train", number, len(sizes), None)
        seen, found_weights, found_bias, field_loss = regression(
            table, chosen[:, number], weighed, strength=job.policy.retrain.closed.strength
        )
        weights[:, seen + at.start], bias[seen + at.start] = found_weights, found_bias
        loss += field_loss
    job.progress("train", len(sizes), len(sizes), 0.0)
    write_linear(folder, ngrams, weights, bias)
    return len(ngrams), loss


def checked(task: Task, folder: Path) -> Any:
    """The logits of what `learn` wrote, of `task.checked`: [n, all values]."""
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it

    from exporters.models.closed_linear import LinearScores  # noqa: PLC0415 - numpy

    scores = LinearScores.load(folder, task.form)
    return np.array([scores(text)[0] for text, *_ in task.checked]).reshape(-1, sum(task.form.sizes))


def regression(table: Any, chosen: Any, weighed: Any, *, strength: float) -> tuple[Any, Any, Any, float]:
    """The values that occur [k], their weights [n-grams, k] and bias [k], and the mean log loss. `weighed`: of the
    examples."""
    import warnings  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415 - only a cycle pays for it
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - heavy
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy
    from sklearn.metrics import log_loss  # noqa: PLC0415 - heavy

    seen = np.unique(chosen)
    if len(seen) == 1:
        return seen, np.zeros((table.shape[1], 1)), np.zeros(1), 0.0
    model = LogisticRegression(C=strength, max_iter=STEPS, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(table, chosen, weighed)
    weights, bias = of_each_class(model)
    loss = log_loss(chosen, model.predict_proba(table), labels=seen, sample_weight=weighed)
    return seen, weights.T, bias, float(loss)
