"""The `section` task as a route: what a chat student (LoRA on SmolLM2-135M, int8) answered to 3,000 package records,
and how sure it is of each answer. Recorded by `section_student.py`; 70.9% is right, so it can't be promoted whole.

Half of the records are its held-out ones: they fit the confidence, as a training cycle does, and choose thresholds and
shares. The other half is what streams are drawn from.
"""

import gzip
from pathlib import Path

import msgspec
import numpy as np
from selective_texts import Answers, Route

from exporters.models import Calibration, Confidence, Signals
from exporters.models.confidence import Gate
from retrainer.evaluation.assess import NOVEL_ABOVE
from retrainer.evaluation.calibrate import Labelled, Part, auroc, fit

RECORDED = Path(__file__).with_name("data") / "section_answers.jsonl.gz"
HELD_OUT = 1500


class _Recorded(msgspec.Struct):
    package: str
    section: str
    score: float
    whole: Signals
    prefix: Signals
    novelty: float


def section() -> Route:
    """The route of the recorded answers."""
    decode = msgspec.json.Decoder(_Recorded).decode
    rows = [decode(line) for line in gzip.decompress(RECORDED.read_bytes()).splitlines()]
    known, rest = rows[:HELD_OUT], rows[HELD_OUT:]
    labelled = [
        Labelled(group=r.package, whole=r.whole, prefix=r.prefix, novelty=r.novelty, value=r.score) for r in known
    ]
    confidence = Confidence(
        Calibration(
            method="logistic",
            whole=fit(labelled),
            prefix=fit(labelled, prefix=True),
            novelty=Gate(threshold=float(np.quantile([r.novelty for r in known], NOVEL_ABOVE)), examples=1500),
        )
    )
    choosing = [row for row, made in zip(known, labelled, strict=True) if made.part is Part.CHOOSE]
    held = _answers(confidence, rest)
    sure = held.confidence > 0.0
    return Route(
        _answers(confidence, choosing),
        held,
        {
            "held-out records": len(rest),
            "agreement of all answers": round(float(1.0 - held.loss.mean()), 4),
            "AUROC of the confidence": round(float(auroc(held.confidence[sure], 1.0 - held.loss[sure]) or 0.0), 4),
        },
    )


def _answers(confidence: Confidence, rows: list[_Recorded]) -> Answers:
    return Answers(
        np.array([confidence.of(row.whole, novelty=row.novelty) for row in rows]),
        np.array([1.0 - row.score for row in rows]),
        np.zeros(len(rows), dtype=np.bool_),
        np.array([row.section for row in rows]),
    )
