"""The seam between a cycle and the ways to make a student."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from exporters.models import Generated, Messages
from exporters.models.genai import Tick
from retrainer.data.curate import Example
from retrainer.evaluation.generator import Generator
from retrainer.job import Job


class Exported(Protocol):
    """A Generator of what will be served."""

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
        stepwise: bool = False,
    ) -> list[Generated]:
        """See Generator. `stepwise`: as an engine answers golden prompts, one token a pass."""

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
