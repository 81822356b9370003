"""What a cycle came to, for MLflow: parameters, metrics, the learning curve, and where the artefact is.

One run a cycle, told when the cycle has ended. Nothing of a record's text goes there: numbers, names and digests alone.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrainer.state import CycleState
from router.config import Config
from router.policy import RoutePolicy

log = logging.getLogger("retort.retrainer")

_BATCH = 1000  # metrics that MLflow takes at once
_REPORTS = ("evaluate_base", "evaluate_student", "evaluate_quantized")
_CYCLE = "retort.cycle"


def track(config: Config, state: CycleState, error: str | None = None) -> None:
    """Tell the tracking server of the route, if it has one. A server that is away is logged, and no cycle fails by it.

    `error`: why the cycle failed, where its state doesn't say it.
    """
    policy = RoutePolicy.model_validate(state.policy)
    if policy.retrain.tracking is None:
        return
    try:
        _tell(config, state, policy, error)
    except Exception as failed:  # whatever the client raises: the edge to another system
        log.warning("retrainer.not_tracked", extra={"cycle": state.request.cycle_id, "error": str(failed)})


def _tell(config: Config, state: CycleState, policy: RoutePolicy, error: str | None) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415 - heavy: only a cycle that is tracked pays for it
    from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

    if policy.retrain.tracking is None:
        return
    name, request = policy.retrain.tracking.experiment, state.request
    client = MlflowClient(tracking_uri=policy.retrain.tracking.mlflow)
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    if client.search_runs([experiment], filter_string=f"tags.`{_CYCLE}` = '{request.cycle_id}'"):
        return
    begun, ended = round(state.started_at * 1000), round((state.finished_at or state.started_at) * 1000)
    dataset = state.phases.get("dataset") or {}
    tags = {
        _CYCLE: request.cycle_id,
        "retort.route": request.route,
        "retort.reason": request.reason,
        "retort.who": request.who,
        "retort.outcome": state.outcome or "failed",
        "retort.dataset": dataset.get("digest", ""),
    }
    if state.outcome == "registered":
        tags["retort.artefact"] = _artefact(config, request.cycle_id)
    if why := state.error or error:
        tags["retort.error"] = why[:5000]
    run = client.create_run(experiment, start_time=begun, run_name=request.cycle_id)
    metrics = [Metric(key, value, ended, 0) for key, value in _metrics(state).items()]
    losses = (state.phases.get("train") or {}).get("losses") or []
    metrics += [Metric("train.loss", float(loss), begun, step) for step, loss in enumerate(losses, 1)]
    client.log_batch(
        run.info.run_id,
        params=[Param(key, value) for key, value in _parameters(policy, state).items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + _BATCH])
    finished = "FINISHED" if state.outcome in ("registered", "refused", "skipped") else "FAILED"
    client.set_terminated(run.info.run_id, finished, end_time=ended)


def _artefact(config: Config, cycle_id: str) -> str:
    """Where it is: a folder's URI, or below the store's own."""
    store = config.artefacts
    return f"{store.rstrip('/')}/{cycle_id}" if "://" in store else (Path(store).absolute() / cycle_id).as_uri()


def _parameters(policy: RoutePolicy, state: CycleState) -> dict[str, str]:
    """The student's and the training's settings, by their names in the configuration; as `train.NAME` those that the
    recipe used in the end."""
    given = {"student": policy.student, "retrain": policy.retrain}
    found: dict[str, str] = {}
    for name, section in given.items():
        if section is not None:
            _flatten(name, section.model_dump(mode="json", exclude={"tracking"}), found)
    for key, result in state.phases.items():
        if key.rpartition(".")[2] == "train":
            _flatten(key, result.get("settings") or {}, found)
    return found


def _flatten(name: str, value: Any, found: dict[str, str]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _flatten(f"{name}.{key}", inner, found)
    elif value is not None:
        found[name] = str(value)[:5000]


def _metrics(state: CycleState) -> dict[str, float]:
    """Each phase's seconds, the data set's size, and every number of the evaluations."""
    found = {f"seconds.{phase}": float(seconds) for phase, seconds in state.seconds.items()}
    for part, count in ((state.phases.get("dataset") or {}).get("counts") or {}).items():
        found[f"examples.{part}"] = float(count)
    for key, report in state.phases.items():
        if key.rpartition(".")[2] in _REPORTS:
            numbers = {k: v for k, v in report.items() if isinstance(v, int | float)}
            found |= {f"{key}.{name}": float(value) for name, value in numbers.items()}
    return found
