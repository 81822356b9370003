"""The seam between a cycle and the ways to make a student."""

from pathlib import Path
from typing import Any, Protocol

from retrainer.data.curate import Example
from retrainer.evaluation.generator import Generator
from retrainer.job import Job


class Exported(Generator, Protocol):
    """A Generator of what will be served."""

    def length(self, answer: str) -> int:
        """How many of its own tokens an answer takes, without the end token."""


class Recipe(Protocol):
    """How a student is made. Everything is read from and left in the job's folder; whatever was killed is called again.

    `runtime`: what serves its artefact. `base`: the name of what it starts from.
    """

    runtime: str
    base: str

    def __init__(self, job: Job) -> None: ...

    def prepare(self) -> str:
        """Find what the student starts from; returns what identifies it. Raises BaseModelError."""

    def fits(self, example: Example) -> bool:
        """Whether an example is short enough to be learnt from."""

    def train(self) -> dict[str, Any]:
        """Train, from the last checkpoint on; returns what the manifest keeps: settings, losses, seconds and so on.
        Raises TrainingDiverged, CycleError."""

    def baseline(self) -> Generator:
        """What answers without any training: a student must be better."""

    def trained(self) -> Generator:
        """The trained student, as exact as it can be."""

    def export(self, artefact: Path) -> dict[str, Any]:
        """Write what will be served into the empty folder `artefact`; returns what the manifest keeps of it. Raises
        ArtefactError."""

    def exported(self, artefact: Path) -> Exported:
        """What will be served, as it will answer."""

    def most_tokens(self, answers: list[str]) -> int:
        """How long an answer may get, in its own tokens: as the longest of these, and a little more."""
