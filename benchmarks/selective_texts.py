"""Banking77 and CLINC150 as a route: a teacher (their labels), and a student (a logistic head over a quickly tuned
MiniLM, with a linear one over n-grams) with its confidence in each answer.

The sets are PolyAI's Banking77 (CC BY 4.0) and CLINC150 with out-of-scope queries (CC BY 3.0), as gzipped JSON lines
of text, intent and split.
"""

import functools
import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import selective_encoder
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NEIGHBOURS = 3
KEEP = 0.95  # of the queries within scope, what the novelty gate lets through
KEEP_KNOWING = 0.8  # where some queries out of scope are known


class Answers(NamedTuple):
    """The student's answers to some queries: `confidence` in [0, 1], 0 where the query is novel; `loss` 0 or 1 against
    the teacher; `outside`: whether the teacher says that it is none of the intents; `intent`: the teacher's answer."""

    confidence: Floats
    loss: Floats
    outside: NDArray[np.bool_]
    intent: NDArray[np.str_]

    def at(self, index: NDArray[Any]) -> "Answers":
        return Answers(*(part[index] for part in self))


class Route(NamedTuple):
    """`validation`: chooses thresholds and shares of alpha. `held_out`: what streams are drawn from. `student`: its
    accuracy on held-out queries within its intents, and what the novelty gate does."""

    validation: Answers
    held_out: Answers
    student: dict[str, float]


@functools.cache
def route(name: str, folder: Path, *, seed: int = 0) -> Route:
    """Train a student of `name` (banking77 or clinc150) and ask it. All of its validation queries fit the novelty gate,
    half of them the confidence; the other half is Route.validation. CLINC's out-of-scope training and validation
    queries are in that part: the student learns none of them as an answer."""
    rows = _rows(folder / f"{name}.jsonl.gz")
    texts = [row["text"] for row in rows]
    intent = np.array([row["intent"] for row in rows])
    split = np.array([row["split"] for row in rows])
    rng = np.random.default_rng(seed)
    outside, learnt = intent == "oos", split == "train"
    spare = np.isin(split, ("val", "oos_val", "oos_train"))
    if not spare.any():  # Banking77 has no validation split
        spare = learnt & (rng.random(len(rows)) < 0.15)
        learnt &= ~spare
    number = np.flatnonzero(learnt)
    tuned = selective_encoder.tuned_vectors(name, texts, number, intent[number])
    queries = Queries(np.char.lower(texts), tuned, selective_encoder.vectors(name, texts), intent)
    student = _Student(queries.at(number))
    order = rng.permutation(np.flatnonzero(spare))
    fitting, choosing = order[: len(order) // 2], order[len(order) // 2 :]
    student.fit_gate(queries.at(order))
    student.fit_confidence(queries.at(fitting))
    held = np.flatnonzero(np.isin(split, ("test", "oos_test")))
    answers = student.ask(queries.at(held))
    within = ~outside[held]
    return Route(
        student.ask(queries.at(choosing)),
        answers,
        {
            "queries learnt from": len(number),
            "held-out queries": len(held),
            "held-out queries out of scope": int(outside[held].sum()),
            "accuracy within scope": round(float(1.0 - answers.loss[within].mean()), 4),
            "within scope, taken for novel": round(float((answers.confidence[within] == 0.0).mean()), 4),
            "out of scope, taken for novel": round(float((answers.confidence[~within] == 0.0).mean()), 4)
            if outside[held].any()
            else 0.0,
        },
    )


class Queries(NamedTuple):
    """Lower-case texts, their vectors from the tuned encoder and from the one as it comes (n, 384), and the teacher's
    answers."""

    text: NDArray[np.str_]
    tuned: Floats
    plain: Floats
    intent: NDArray[np.str_]

    def at(self, index: NDArray[Any]) -> "Queries":
        return Queries(*(part[index] for part in self))


class _Student:
    """Two heads whose probabilities are averaged in logs, the training queries, a novelty gate, and a calibrated model
    of whether it is right."""

    def __init__(self, learnt: Queries) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - heavy
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy
        from sklearn.pipeline import make_pipeline, make_union  # noqa: PLC0415 - heavy
        from sklearn.svm import LinearSVC  # noqa: PLC0415 - heavy

        self.learnt = learnt
        self.head = LogisticRegression(C=20.0, max_iter=300, tol=1e-3).fit(learnt.tuned, learnt.intent)
        self.words = make_pipeline(
            make_union(
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2),
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            ),
            LinearSVC(C=0.5, random_state=0),
        ).fit(learnt.text, learnt.intent)
        self.confidence: Any = None
        self.outside: Any = None
        self.novel = np.inf

    def fit_gate(self, known: Queries) -> None:
        """Novel is what looks more like out of scope, by logistic regression on `_features`, than KEEP_KNOWING of these
        queries within scope do; or, where none out of scope is known, what is further from the training queries than
        KEEP of these is."""
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - heavy
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - heavy

        _, features = self._features(known)
        outside = known.intent == "oos"
        if outside.any():
            balanced = LogisticRegression(class_weight="balanced")
            self.outside = make_pipeline(StandardScaler(), balanced).fit(features, outside)
        keep = KEEP_KNOWING if outside.any() else KEEP
        self.novel = float(np.quantile(self._novelty(features)[~outside], keep))

    def fit_confidence(self, known: Queries) -> None:
        """P(right) by logistic regression on `_features`."""
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - heavy
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - heavy

        said, features = self._features(known)
        self.confidence = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, said == known.intent)

    def ask(self, queries: Queries) -> Answers:
        said, features = self._features(queries)
        sure = self.confidence.predict_proba(features)[:, 1]
        sure[self._novelty(features) > self.novel] = 0.0
        return Answers(sure, (said != queries.intent).astype(np.float64), queries.intent == "oos", queries.intent)

    def _novelty(self, features: Floats) -> Floats:
        if self.outside is None:
            return np.asarray(-features[:, 0] - features[:, 3])
        return np.asarray(self.outside.decision_function(features))

    def _features(self, queries: Queries) -> tuple[NDArray[np.str_], Floats]:
        """The answers, and of each, by the tuned encoder and by the one as it comes: mean cosine to the NEIGHBOURS
        nearest training queries and to those with that answer, and the share of ten neighbours that agree. Then log
        odds of the answer, its log ratio to the second, and the log probability that each head gives it."""
        by_meaning = np.log(np.clip(self.head.predict_proba(queries.tuned), 1e-9, 1.0))
        scores = 4.0 * self.words.decision_function(queries.text)
        by_words = scores - np.logaddexp.reduce(scores, axis=1)[:, None]
        both = (by_meaning + by_words) / 2.0
        both -= np.logaddexp.reduce(both, axis=1)[:, None]
        best, rows = both.argmax(axis=1), np.arange(len(both))
        said = self.head.classes_[best]
        top = np.sort(both, axis=1)
        odds = top[:, -1] - np.log1p(-np.minimum(np.exp(top[:, -1]), 1.0 - 1e-9))
        heads = np.column_stack((odds, top[:, -1] - top[:, -2], by_meaning[rows, best], by_words[rows, best]))
        near = [
            np.concatenate([self._near(of[p], learnt, said[p]) for p in np.array_split(rows, max(1, len(rows) // 500))])
            for of, learnt in ((queries.tuned, self.learnt.tuned), (queries.plain, self.learnt.plain))
        ]
        return said, np.column_stack((*near, heads))

    def _near(self, vectors: Floats, learnt: Floats, said: NDArray[np.str_]) -> Floats:
        cosine = vectors @ learnt.T
        near = np.argpartition(-cosine, 10, axis=1)[:, :10]
        closest = -np.sort(-np.take_along_axis(cosine, near, axis=1), axis=1)[:, :NEIGHBOURS]
        same = np.where(self.learnt.intent[None, :] == said[:, None], cosine, -1.0)
        alike = -np.partition(-same, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        agree = (self.learnt.intent[near] == said[:, None]).mean(axis=1)
        return np.column_stack((closest.mean(axis=1), alike.mean(axis=1), agree))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise SystemExit(f"{path} is not there; --data takes the folder that holds banking77 and clinc150 (.jsonl.gz)")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
