"""What a cycle came to, for MLflow or Weights & Biases: settings, numbers, the learning curve, where the artefact is.

One run a cycle, told when the cycle has ended, by a process of its own: the clients are heavy, and wait for servers.
Nothing of a record's text goes there: numbers, names and digests alone.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from retrainer.state import Cycles, CycleState
from router.config import Config
from router.policy import RoutePolicy

log = logging.getLogger("retort.retrainer")

_REPORTS = ("evaluate_base", "evaluate_student", "evaluate_quantized")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A cycle as a tracker is told of it. `folder`: the cycle's own. `begun`, `ended`: Unix seconds. `facts`: who,
    what and where. `settings`: the student's and the training's by their names in the configuration, and under
    `train` what the recipe used in the end. `numbers`: each phase's seconds, the data set's size, what the evaluations
    measured. `curves`: each training's losses by step; a ladder's have their rung before the name, `RUNG.train`."""

    cycle_id: str
    folder: Path
    begun: float
    ended: float
    good: bool
    facts: dict[str, str]
    settings: dict[str, Any]
    numbers: dict[str, dict[str, float]]
    curves: dict[str, list[float]]


def main() -> None:
    """Tell of the cycle that the daemon names on standard input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s tracking  %(name)s %(message)s")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # seconds; 120, and 7 times again, are its own
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # crash reports, which may hold what a traceback does
    order = json.loads(sys.stdin.readline())
    config = Config.model_validate(order["config"])
    state = Cycles(config.state).load(order["cycle"])
    if state is not None:
        track(config, state)


def track(config: Config, state: CycleState) -> None:
    """Tell the tracker of the route, if it has one, of a cycle that has ended. A server that is away is logged, and no
    cycle fails by it."""
    policy = RoutePolicy.model_validate(state.policy)
    tracking = policy.retrain.tracking
    if tracking is None:
        return
    try:
        told = _told(config, state, policy)
        if tracking.mlflow is not None:
            from retrainer import tracking_mlflow  # noqa: PLC0415 - heavy: only a cycle that is tracked pays for it

            tracking_mlflow.tell(tracking.mlflow, tracking.experiment or "retort", told)
        elif tracking.wandb is not None:
            from retrainer import tracking_wandb  # noqa: PLC0415 - heavy, too

            tracking_wandb.tell(tracking.wandb, told)
    except Exception as failed:  # whatever the client raises: the edge to another system
        log.warning("retrainer.not_tracked", extra={"cycle": state.request.cycle_id, "error": str(failed)})


def _told(config: Config, state: CycleState, policy: RoutePolicy) -> Told:
    request, dataset = state.request, state.phases.get("dataset") or {}
    facts = {
        "cycle": request.cycle_id,
        "route": request.route,
        "reason": request.reason,
        "who": request.who,
        "outcome": state.outcome or "",
        "dataset": dataset.get("digest", ""),
    }
    if state.outcome == "registered":
        facts["artefact"] = _artefact(config, request.cycle_id)
    if state.error:
        facts["error"] = state.error[:5000]
    return Told(
        cycle_id=request.cycle_id,
        folder=Cycles(config.state).folder(request.cycle_id),
        begun=state.started_at,
        ended=state.finished_at or state.started_at,
        good=state.outcome in ("registered", "refused", "skipped"),
        facts=facts,
        settings=_settings(policy, state),
        numbers=_numbers(state),
        curves={key: [float(loss) for loss in made.get("losses") or []] for key, made in _trainings(state)},
    )


def _artefact(config: Config, cycle_id: str) -> str:
    """Where it is: a folder's URI, or below the store's own."""
    store = config.artefacts
    return f"{store.rstrip('/')}/{cycle_id}" if "://" in store else (Path(store).absolute() / cycle_id).as_uri()


def _settings(policy: RoutePolicy, state: CycleState) -> dict[str, Any]:
    given = {"student": policy.student, "retrain": policy.retrain}
    found = {name: s.model_dump(mode="json", exclude={"tracking"}) for name, s in given.items() if s is not None}
    return found | {key: made["settings"] for key, made in _trainings(state) if made.get("settings")}


def _trainings(state: CycleState) -> list[tuple[str, dict[str, Any]]]:
    """The students' results of training: one, or those of a ladder's rungs in their order."""
    return [(key, made) for key, made in state.phases.items() if key.rpartition(".")[2] == "train"]


def _numbers(state: CycleState) -> dict[str, dict[str, float]]:
    counts = (state.phases.get("dataset") or {}).get("counts") or {}
    found = {"seconds": state.seconds, "examples": counts}
    for key, report in state.phases.items():
        if key.rpartition(".")[2] in _REPORTS:
            found[key] = {name: value for name, value in report.items() if isinstance(value, int | float)}
        elif key.rpartition(".")[2] == "compare":
            scores = {"newest": report["newest"], "frozen": (report["frozen"] or {}).get("scores", {})}
            found |= {
                f"{key}.{part}": {name: score["value"] for name, score in by_report.items()}
                for part, by_report in scores.items()
            }
    return {part: {name: float(value) for name, value in numbers.items()} for part, numbers in found.items()}


if __name__ == "__main__":
    main()
