"""A cycle as a run of Weights & Biases: settings and facts as config, numbers as summary, the curves as history.

The client writes its files into the cycle's folder, and sends them where WANDB_API_KEY and WANDB_BASE_URL say; with
WANDB_MODE=offline `wandb sync` does that later. What it would tell of the machine by itself is turned off.
"""

from datetime import UTC, datetime

import wandb

from retrainer.tracking import Told

INIT_SECONDS, FINISH_SECONDS = 30.0, 120.0


def tell(project: str, told: Told) -> None:
    """Make the cycle's run in `project` (PROJECT or ENTITY/PROJECT); told again it is the same run. Raises what the
    client does, TimeoutError where the server doesn't take it all in time: the files stay."""
    told.folder.mkdir(parents=True, exist_ok=True)
    entity, _, name = project.rpartition("/")
    times = {"begun": told.begun, "ended": told.ended}
    facts = told.facts | {key: datetime.fromtimestamp(at, UTC).isoformat() for key, at in times.items()}
    try:
        run = wandb.init(
            entity=entity or None,
            project=name,
            id=told.cycle_id,
            name=told.cycle_id,
            group=told.facts["route"],
            job_type="cycle",
            config={**told.settings, "retort": facts},
            dir=told.folder,
            resume="allow",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
                init_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
            ),
        )
        for step in range(max(map(len, told.curves.values()), default=0)):  # once each: steps only go up
            at = {key: {"loss": losses[step]} for key, losses in told.curves.items() if step < len(losses)}
            run.log(at, step=step + 1)
        run.summary.update(told.numbers)
        run.finish(exit_code=0 if told.good else 1)
    finally:
        wandb.teardown()
