"""A cycle as a run of MLflow: settings as parameters, numbers and the curves as metrics, the facts as tags."""

from collections.abc import Iterator, Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from retrainer.tracking import Told

_BATCH = 1000  # metrics that MLflow takes at once
_CYCLE = "retort.cycle"


def tell(uri: str, name: str, told: Told) -> None:
    """Make the cycle's run in the experiment `name`, once. Raises what MLflow does."""
    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    if client.search_runs([experiment], filter_string=f"tags.`{_CYCLE}` = '{told.cycle_id}'"):
        return
    begun, ended = round(told.begun * 1000), round(told.ended * 1000)
    run = client.create_run(experiment, start_time=begun, run_name=told.cycle_id)
    metrics = [Metric(key, value, ended, 0) for key, value in _flat(told.numbers)]
    for key, losses in told.curves.items():
        metrics += [Metric(f"{key}.loss", loss, begun, step) for step, loss in enumerate(losses, 1)]
    client.log_batch(
        run.info.run_id,
        params=[Param(key, str(value)[:5000]) for key, value in _flat(told.settings)],
        tags=[RunTag(f"retort.{key}", value) for key, value in told.facts.items()],
    )
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + _BATCH])
    client.set_terminated(run.info.run_id, "FINISHED" if told.good else "FAILED", end_time=ended)


def _flat(values: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    """`a.b` for what stands under b in a; what is None is left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{key}.")
        elif value is not None:
            yield f"{head}{key}", value
