"""What LoRA, QLoRA and full fine-tuning share: the training that a route's policy asks for."""

from typing import Any, Literal

import msgspec

from retrainer.job import Job
from retrainer.train import presets
from router.policy_student import RetrainPolicy

Method = Literal["lora", "qlora", "full"]
METHODS: dict[str, Method] = {"lora": "lora", "qlora": "qlora", "full": "full"}


def trained(job: Job, method: Method) -> dict[str, Any]:
    """Train in the job's folder `train`, in several processes where the policy names a launch configuration. What they
    leave is a finished training's checkpoint, from which this process goes on. Returns what the manifest keeps."""
    from retrainer.train.chat import train  # noqa: PLC0415 - heavy: torch, peft
    from retrainer.train.launch import launch  # noqa: PLC0415

    made = settings(job.policy.retrain, method, max_steps=job.max_steps)
    folder = job.folder / "train"
    if job.policy.retrain.launch is not None:
        launch(job, method, job.policy.retrain.launch)
    done = train(
        job.base.folder,
        job.rows,
        folder,
        made,
        tokenizer=job.tokenizer,
        watched=job.watched_rows,
        progress=job.progress,
    )
    return {"settings": msgspec.to_builtins(made), **msgspec.to_builtins(done)}


def settings(
    retrain: RetrainPolicy,
    method: Method,
    *,
    max_steps: int | None = None,
    share: float = 1.0,
    limit: float | None = None,
) -> Any:
    """A training's settings (`retrainer.train.chat.Settings`), with the recipe's own where the policy has none.
    `share`: of the epochs, where a recipe has several trainings; `limit`: of `max_steps`, by default as much."""
    from retrainer.train.chat import Settings  # noqa: PLC0415 - heavy: torch, peft

    adapter: dict[str, Any] = {}
    if method != "full":
        adapter = {"rank": retrain.lora_rank, "alpha": presets.alpha(retrain), "targets": retrain.lora_targets}
    return Settings(
        method=method,
        **adapter,
        learning_rate=presets.learning_rate(retrain, method),
        weight_decay=presets.WEIGHT_DECAY if method == "full" else 0.0,
        batch_size=retrain.batch_size,
        epochs=retrain.epochs * share,
        width=retrain.max_tokens if retrain.packing else None,
        gradient_checkpointing=retrain.gradient_checkpointing,
        looks=retrain.validations,
        patience=retrain.patience,
        checkpoint_steps=retrain.checkpoint_steps,
        checkpoint_seconds=retrain.checkpoint_every,
        seed=retrain.seed,
        max_steps=max(1, round(max_steps * (share if limit is None else limit))) if max_steps else None,
    )
