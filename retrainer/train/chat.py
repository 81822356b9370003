"""A causal language model learns to give the teacher's answers: sequence-level distillation (Kim & Rush 2016), by LoRA,
by QLoRA, or of all its weights. The loss is taken on the completions alone.

Two things make it fit a CPU and change no gradient (5e-7 relative, measured): the prefix that a batch shares is
computed once, and the vocabulary's logits only where a completion token is predicted; see `retrainer.train.batches`.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerBase

from exporters.models import sync
from retrainer.data.render import Row
from retrainer.errors import BaseModelError
from retrainer.progress import Progress, silent
from retrainer.train.batches import IGNORED, Batch, collate, completion_logits
from retrainer.train.converge import Validation
from retrainer.train.loop import LoopSettings, Trained, device, plan, run
from retrainer.train.models import causal, open_student, require_own_logits
from retrainer.train.step import Loss, Units


class Settings(LoopSettings, frozen=True, kw_only=True):
    """One training. The rank, the rate and the batch are those that taught SmolLM2-135M the sample task best.

    `method`: lora; qlora: over a base in NF4 with doubly quantized constants (Dettmers et al. 2023); full: all weights.
    `targets`: names of linear layers, or all of them but the head, as QLoRA found necessary to equal full fine-tuning.
    `width`: tokens of a row of packed examples, None: not packed. `looks`, `patience`: see Validation."""

    method: Literal["lora", "qlora", "full"] = "lora"
    rank: int = 16
    alpha: int = 32
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    width: int | None = None
    gradient_checkpointing: bool = False
    looks: int = 8
    patience: int = 3

    @property
    def row_width(self) -> int | None:
        """Tokens of a row that examples are packed into, 1 where each takes a row of its own: checkpointing can't go
        back through the cache that a shared prefix needs."""
        return self.width or (1 if self.gradient_checkpointing else None)


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A model and its examples, ready for the loop."""

    model: Any
    rows: Sequence[Row]
    watched: Sequence[Row]
    settings: Settings
    pad: int

    def run(self, folder: Path, *, progress: Progress = silent) -> Trained:
        """Train, from `folder`/checkpoint.safetensors on. Raises what the loop raises."""
        examples = [*self.rows, *self.watched]
        return learn(
            self.model,
            lambda numbers: self._loss([examples[i] for i in numbers]),
            folder,
            self.settings,
            rows=self.rows,
            watched=len(self.watched),
            units_of=lambda i: len(examples[i].completion),
            progress=progress,
        )

    def _loss(self, rows: Sequence[Row]) -> tuple[torch.Tensor, int]:
        sharded = any(isinstance(m, FSDPModule) for m in self.model.modules())  # nor can FSDP go through a cache
        width = self.settings.row_width or (1 if sharded else None)
        batch = collate(rows, pad=self.pad, device=next(self.model.parameters()).device, width=width)
        return loss(self.model, batch), batch.tokens


def learn(
    model: Any,
    loss_of: Loss,
    folder: Path,
    settings: Settings,
    *,
    rows: Sequence[Row],
    watched: int,
    units_of: Units,
    progress: Progress,
) -> Trained:
    """The loop over examples, and a look now and then at the loss of `watched` others, whose numbers follow theirs.
    Raises what the loop raises."""
    numbers, size = range(len(rows), len(rows) + watched), settings.batch_size
    validation = Validation(
        batches=[list(numbers[i : i + size]) for i in range(0, watched, size)],
        loss_of=loss_of,
        units_of=units_of,
        looks=settings.looks,
        patience=settings.patience,
    )
    batches = plan(rows, settings)
    return run(model, batches, loss_of, folder, settings, units_of=units_of, validation=validation, progress=progress)


def prepare(
    base: Path,
    rows: Sequence[Row],
    settings: Settings,
    *,
    tokenizer: PreTrainedTokenizerBase,
    watched: Sequence[Row] = (),
) -> Training:
    """Load the base, with adapters where it is to have some. `watched`: rows whose loss ends the training.

    fp32 on a CPU (bf16 is slow without AVX-512), bf16 autocast on CUDA. Raises BaseModelError.
    """
    torch.manual_seed(settings.seed)
    model = opened(base, settings)
    return Training(model=model, rows=rows, watched=watched, settings=settings, pad=tokenizer.pad_token_id or 0)


def train(
    base: Path,
    rows: Sequence[Row],
    folder: Path,
    settings: Settings,
    *,
    tokenizer: PreTrainedTokenizerBase,
    watched: Sequence[Row] = (),
    progress: Progress = silent,
) -> Trained:
    """Train, and write the adapter to `folder`/adapter (peft's format), or the whole model to `folder`/model. Resumes
    from `folder`/checkpoint.safetensors. Raises BaseModelError, TrainingDiverged, OutOfMemory, CycleError."""
    training = prepare(base, rows, settings, tokenizer=tokenizer, watched=watched)
    trained = training.run(folder, progress=progress)
    save(training.model, folder / ("model" if settings.method == "full" else "adapter"))
    return trained


def opened(base: Path, settings: Settings) -> Any:
    """A model to train: all its weights, or adapters beside its linear layers. Raises BaseModelError."""
    model = _load(base, settings)
    require_own_logits(model, base)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model if settings.method == "full" else adapted(model, settings)


def adapted(model: Any, settings: Settings) -> Any:
    """The model with LoRA's matrices beside its linear layers. Raises BaseModelError for targets that it hasn't."""
    targets = settings.targets if settings.targets == "all-linear" else list(settings.targets)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets, task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft asks transformers for an attribute under its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise BaseModelError(f"retrain.lora_targets: {error}") from error


def loss(model: Any, batch: Batch) -> torch.Tensor:
    """The sum of the cross-entropies of the batch's completion tokens, each times its example's weight."""
    targets = batch.labels[batch.labels != IGNORED]
    logits = completion_logits(causal(model), batch)
    return (batch.weights * torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")).sum()


def _load(base: Path, settings: Settings) -> Any:
    if settings.method != "qlora":
        return open_student(base)
    where = device()
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if torch.distributed.is_initialized() else torch.uint8,  # FSDP shards floats only
    )
    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype, quantization_config=quantized, device_map=str(where))


def save(model: Any, folder: Path) -> None:
    """Write an adapter, or a whole model, which appears whole or not at all."""
    staging = folder.with_name(f".{folder.name}.tmp")
    model.save_pretrained(staging)
    for file in staging.iterdir():
        sync(file)
    if not folder.exists():
        staging.rename(folder)
