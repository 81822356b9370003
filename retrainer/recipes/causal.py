"""What all recipes share whose student is a causal language model: tokens, evaluation, and its export: to
onnxruntime-genai, or as a Hugging Face folder to vLLM."""

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from exporters.models import (
    GENAI,
    QUANTIZERS,
    VLLM,
    ExportFailed,
    Parity,
    parity,
    require,
    staged,
    to_awq,
    to_dense,
    to_gptq,
    to_onnx,
)
from exporters.models.awq_layout import group_size
from exporters.models.four_bits import Method
from exporters.models.parity import Part
from retrainer.data.curate import Example
from retrainer.evaluation.generator import Generator
from retrainer.job import Job
from retrainer.recipes.calibration import conversations
from retrainer.recipes.recipe import Exported
from retrainer.recipes.served import SERVED, reader
from retrainer.recipes.w4a16 import attempt, remove_others
from router.policy_student import Quantization

Fit = Callable[[Job, Path], dict[str, Any]]

MOST_COMPARED = 64  # answers that an export is compared on
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
        """See Recipe. A graph is load-tested, and whatever is written is compared with the unquantized student."""
        how = self._job.policy.retrain.quantized_for(self._job.serving.runtime)
        found, told = None, dict[str, Any]()
        if self._job.serving.adapters:
            how, quantizer = "none", self._adapter(artefact)
        elif how == "w4a16":
            tried = attempt(self._job.folder, lambda method: self._near(self._four_bits(method)))
            how, found, told = tried.best, tried.near[tried.best], {"parity_by": tried.told()}
            quantizer = self._write(how, artefact)
            remove_others(how, self._rounded, self._graph)
        else:
            quantizer = self._write(how, artefact)
        found = found or self._near(artefact)
        require(found, *self._job.policy.retrain.parity.bounds(how))
        return {"quantization": how, "quantizer": quantizer, "parity": msgspec.to_builtins(found), **told}

    def _near(self, artefact: Path) -> Parity:
        """On held-out conversations; where there are none (or none short enough), on some that were learnt from: what
        is broken shows on these as well."""
        fitting = (row for row in map(self._job.row, self._job.data.held_out) if self._job.fits(row))
        held_out = list(islice(fitting, MOST_COMPARED))
        rows = [(row.prompt, row.completion) for row in held_out or self._job.rows[:MOST_COMPARED]]
        of: Part = "held-out" if held_out else "training"
        return parity(self._merged, lambda: reader(self.runtime, artefact), rows, of=of)

    def _write(self, how: Quantization, artefact: Path) -> str:
        """The student as it will be served; returns by what it is quantized."""
        group = None
        if how in ("awq", "gptq"):
            shutil.copytree(self._four_bits(how), artefact, dirs_exist_ok=True)
            group = group_size(self._rounded(how))
        elif self.runtime == VLLM:
            to_dense(self._merged, self._job.folder / "dense")
            shutil.copytree(self._job.folder / "dense", artefact, dirs_exist_ok=True)
        else:
            to_onnx(self._merged, artefact, quantization=how, log=self._job.folder / "export.log")
        return QUANTIZERS[how].format(group=group)

    def _four_bits(self, method: Method) -> Path:
        """The student in 4 bits as it will be served. It takes minutes: whatever was killed goes on after it."""
        job, rounded, graph = self._job, self._rounded(method), self._graph(method)
        if not rounded.exists():
            quantize = to_awq if method == "awq" else to_gptq
            quantize(self._merged, rounded, samples=conversations(job), log=job.folder / "quantize.log")
        if self.runtime == VLLM:
            return rounded
        if not graph.exists():
            with staged(graph) as staging:
                to_onnx(rounded, staging, quantization=method, log=job.folder / "export.log")
        return graph

    def _rounded(self, method: Method) -> Path:
        return self._job.folder / method

    def _graph(self, method: Method) -> Path:
        return self._job.folder / f"{method}-onnx"

    def _adapter(self, artefact: Path) -> str:
        """The adapter alone, for a server that has its base; returns what it is."""
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
