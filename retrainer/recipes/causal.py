"""What all recipes share whose student is a causal language model: tokens, evaluation, export to onnxruntime-genai."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporters.models import GENAI, QUANTIZERS, to_onnx
from retrainer.data.curate import Example
from retrainer.evaluation.generator import Generator
from retrainer.job import Job
from retrainer.recipes.recipe import Exported
from retrainer.recipes.served import SERVED

Fit = Callable[[Job, Path], dict[str, Any]]


class Causal:
    """See Recipe. `fit`, the recipe's own part: trains, and leaves a dense Hugging Face folder at the path given."""

    runtime = GENAI

    def __init__(self, job: Job, fit: Fit) -> None:
        self._job, self._fit = job, fit
        self.base = job.student.base
        self._merged = job.folder / "merged"

    def prepare(self) -> str:
        """See Recipe."""
        return self._job.base.revision

    def fits(self, example: Example) -> bool:
        """See Recipe."""
        return self._job.fits(self._job.row(example))

    def train(self) -> dict[str, Any]:
        """See Recipe."""
        return self._fit(self._job, self._merged)

    def baseline(self) -> Generator:
        """See Recipe. The untrained base."""
        from retrainer.evaluation.generate import TorchGenerator  # noqa: PLC0415 - heavy: torch

        return TorchGenerator(self._job.base.folder)

    def trained(self) -> Generator:
        """See Recipe."""
        from retrainer.evaluation.generate import TorchGenerator  # noqa: PLC0415 - heavy: torch

        return TorchGenerator(self._merged)

    def export(self, artefact: Path) -> dict[str, Any]:
        """See Recipe. The graph is load-tested."""
        quantization = self._job.policy.retrain.quantization
        to_onnx(self._merged, artefact, quantization=quantization, log=self._job.folder / "export.log")
        return {"quantization": QUANTIZERS[quantization]}

    def exported(self, artefact: Path) -> Exported:
        """See Recipe."""
        return SERVED[self.runtime](artefact)

    def most_tokens(self, answers: list[str]) -> int:
        """See Recipe."""
        from retrainer.evaluation.generate import longest_answer  # noqa: PLC0415 - heavy: torch

        return longest_answer(self._job.tokenizer, answers)
