"""What all recipes share whose student is a causal language model: tokens, evaluation, and its export: to
onnxruntime-genai, or as a Hugging Face folder to vLLM."""

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from exporters.models import GENAI, QUANTIZERS, VLLM, ExportFailed, parity, require, to_awq, to_dense, to_gptq, to_onnx
from exporters.models.awq_layout import group_size
from retrainer.data.curate import Example
from retrainer.evaluation.generator import Generator
from retrainer.job import Job
from retrainer.recipes.calibration import conversations
from retrainer.recipes.recipe import Exported
from retrainer.recipes.served import SERVED, reader

Fit = Callable[[Job, Path], dict[str, Any]]

MOST_COMPARED = 64  # held-out answers that an export is compared on
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


class Causal:
    """See Recipe. `fit`, the recipe's own part: trains, and leaves a dense Hugging Face folder at the path given."""

    def __init__(self, job: Job, fit: Fit) -> None:
        self._job, self._fit = job, fit
        self.base = job.student.base
        self.runtime = VLLM if job.serving.runtime == "vllm" else GENAI
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
        """See Recipe. A graph is load-tested, and whatever is written is compared with the unquantized student on
        held-out conversations."""
        quantizer = self._adapter(artefact) if self._job.serving.adapters else self._write(artefact)
        rows = (row for row in map(self._job.row, self._job.data.held_out) if self._job.fits(row))
        known = [(row.prompt, row.completion) for row in islice(rows, MOST_COMPARED)]
        found = parity(self._merged, lambda: reader(self.runtime, artefact), known)
        bounds = self._job.policy.retrain.parity
        require(found, max_kl=bounds.max_kl, min_top1=bounds.min_top1)
        return {"quantization": quantizer, "parity": msgspec.to_builtins(found)}

    def _write(self, artefact: Path) -> str:
        """The student as it will be served; returns who quantized it, and how."""
        job, how = self._job, self._job.policy.retrain.quantized_for(self._job.serving.runtime)
        folder, log, group = self._merged, job.folder / "export.log", None
        if how in ("awq", "gptq"):
            folder = job.folder / how
            if not folder.exists():  # it takes minutes: whatever was killed goes on after it
                quantize = to_awq if how == "awq" else to_gptq
                quantize(self._merged, folder, samples=conversations(job), log=job.folder / "quantize.log")
            group = group_size(folder)
        elif how == "none":
            folder = job.folder / "dense"
            to_dense(self._merged, folder)
        if self.runtime == VLLM:
            shutil.copytree(folder, artefact, dirs_exist_ok=True)
        else:
            to_onnx(folder, artefact, quantization=how, log=log)
        return QUANTIZERS[how].format(group=group)

    def _adapter(self, artefact: Path) -> str:
        """The adapter alone, for a server that has its base."""
        trained = self._job.folder / "train" / "adapter"
        if not trained.is_dir():
            raise ExportFailed(
                f"the recipe {self._job.student.recipe} leaves no adapter, and the engine serves adapters alone; take "
                "lora or qlora, or an engine without vllm.adapters_on"
            )
        for name in _ADAPTER:
            shutil.copyfile(trained / name, artefact / name)
        return "LoRA adapter"

    def exported(self, artefact: Path) -> Exported:
        """See Recipe."""
        return SERVED[self.runtime](artefact)

    def most_tokens(self, answers: list[str]) -> int:
        """See Recipe."""
        from retrainer.evaluation.generate import longest_answer  # noqa: PLC0415 - heavy: torch

        return longest_answer(self._job.tokenizer, answers)
