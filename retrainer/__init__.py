from retrainer.ask import ask, asked
from retrainer.errors import (
    BaseModelError,
    CycleBusy,
    CycleError,
    NotEnoughExamples,
    RetrainerError,
    TrainingDiverged,
)
from retrainer.evaluation.evaluate import Report
from retrainer.evaluation.gate import Override, Verdict, judge
from retrainer.ladder import told_of
from retrainer.state import Cycles, CycleState, Request, Standing, new_id
from retrainer.triggers import due

__all__ = [
    "BaseModelError",
    "CycleBusy",
    "CycleError",
    "CycleState",
    "Cycles",
    "NotEnoughExamples",
    "Override",
    "Report",
    "Request",
    "RetrainerError",
    "Standing",
    "TrainingDiverged",
    "Verdict",
    "ask",
    "asked",
    "due",
    "judge",
    "new_id",
    "told_of",
]
