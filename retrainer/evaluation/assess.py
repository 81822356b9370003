"""What a quantized student knows of itself: its confidence, calibrated on the records that it was evaluated on, and
the novelty of inputs. Both go into the artefact, where the engine finds them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models import Calibration, Confidence, sync, write_atomic
from exporters.models.confidence import FILE, NOVELTY_FILE, Gate
from retrainer.data.curate import Example
from retrainer.evaluation.calibrate import Labelled, Part, Quality, fit, lacking, quality
from retrainer.evaluation.evaluate import ERRORS, Report
from retrainer.evaluation.metrics import quantile
from retrainer.evaluation.thresholds import Start, choose
from router.policy_quality import SelectivePolicy

# Of the held-out records' novelty. They are like the training set, so so few of their like are kept from the student.
NOVEL_ABOVE = 0.99


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """`method`, `reason`, `novelty`: of the calibration. `whole`, `prefix`: how good the confidences are on the records
    that nothing was fitted on and that are not novel, and `uncalibrated` how good exp(mean log probability) is there.
    `thresholds`, `shares`, `start`: where the route serves selectively, see `retrainer.evaluation.thresholds`."""

    method: str
    reason: str | None
    records: dict[str, int]
    novelty: Gate | None
    whole: Quality | None
    prefix: Quality | None
    uncalibrated: Quality | None
    thresholds: list[float] = []
    shares: list[float] = []
    start: Start | None = None

    def summary(self) -> dict[str, Any]:
        """For the manifest."""
        return dict(msgspec.to_builtins(self))


def assess(
    artefact: Path,
    report: Report,
    judged: Sequence[Example],
    train: Sequence[Example],
    *,
    selective: SelectivePolicy | None,
) -> Assessment:
    """Write confidence.json and the novelty's file into the folder `artefact`.

    `report`: of the quantized student, on the records `judged`. `train`: what it was trained on. Where the records are
    too few, or all alike, the confidence is exp(mean log probability), and `reason` says so.
    """
    from exporters.models.novelty import Neighbours  # noqa: PLC0415 - numpy: only a cycle pays for it

    neighbours = Neighbours.of([e.messages for e in train]) if train else None
    novelties = [neighbours.novelty(e.messages) if neighbours else 0.0 for e in judged]
    records = _labelled(report, judged, novelties)
    gate = None
    if neighbours is not None and judged:
        neighbours.save(artefact / NOVELTY_FILE)
        sync(artefact / NOVELTY_FILE)
        gate = Gate(threshold=quantile(novelties, NOVEL_ABOVE), examples=len(neighbours))
    calibration = _calibrated(records, gate)
    write_atomic(artefact / FILE, msgspec.json.format(msgspec.json.encode(calibration)))
    return _assessed(Confidence(calibration, neighbours), records, selective)


def _labelled(report: Report, judged: Sequence[Example], novelties: Sequence[float]) -> list[Labelled]:
    return [
        Labelled(
            group=e.group or e.id,
            whole=o.whole,
            prefix=o.prefix,
            novelty=novelty,
            value=o.value,
            weight=e.weight,
            error=o.reason in ERRORS,
        )
        for o, e, novelty in zip(report.outcomes, judged, novelties, strict=True)
        if o.value is not None and o.whole is not None and o.prefix is not None
    ]


def _calibrated(records: Sequence[Labelled], gate: Gate | None) -> Calibration:
    reason = lacking(records)
    if reason is not None:
        return Calibration(method="mean_probability", reason=reason, novelty=gate)
    return Calibration(
        method="logistic",
        whole=fit(records),
        prefix=fit(records, prefix=True),
        novelty=gate,
        records={part.value: sum(r.part is part for r in records) for part in Part},
    )


def _assessed(confidence: Confidence, records: Sequence[Labelled], selective: SelectivePolicy | None) -> Assessment:
    calibration = confidence.calibration
    if calibration.method == "logistic":  # else nothing was fitted, and all records may judge
        records = [r for r in records if r.part is Part.CHOOSE]
    values = [r.value for r in records]
    plain = Confidence()
    whole = [confidence.of(r.whole, novelty=r.novelty) for r in records]
    lost, groups, weights = [1.0 - v for v in values], [r.group for r in records], [r.weight for r in records]
    risk = selective.max_risk if selective else None
    found = None if risk is None else choose(whole, lost, max_risk=risk, groups=groups, weights=weights)
    start = found.start if found else None
    if start is not None:
        errors = sum(r.error for r, c in zip(records, whole, strict=True) if c >= start.threshold)
        start = msgspec.structs.replace(start, errors=errors)
    known = [r for r in records if not confidence.novel(r.novelty)]  # a 0 there is no claim that the answer is wrong
    labels = [r.value for r in known]
    return Assessment(
        method=calibration.method,
        reason=calibration.reason,
        records=calibration.records,
        novelty=calibration.novelty,
        whole=quality([c for c in whole if c > 0.0], labels),
        prefix=quality([confidence.of(r.prefix, novelty=r.novelty, prefix=True) for r in known], labels),
        uncalibrated=quality([plain.of(r.whole, novelty=0.0) for r in known], labels),
        thresholds=found.values if found else [],
        shares=found.shares if found else [],
        start=start,
    )
