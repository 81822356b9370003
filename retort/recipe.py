"""`retort recipe FILE`: tries a configuration's recipes dry, and says what a training would take."""

import json
from pathlib import Path
from typing import Any

import msgspec

from exporters.models.devices import SPARE
from retort.errors import StartError
from retrainer.errors import BaseModelError
from retrainer.recipes.check import TRAINED, Checked, check
from retrainer.recipes.estimate import Estimate, Load, estimate, memory, speed
from retrainer.train.sequence import METHODS
from router import Config

GB = 1e9
CARRIED = "bases"  # beside the configuration: config.json and tokenizer_config.json of bases that aren't here


def recipe(config: Config, file: str, load: Load, *, route: str | None, as_json: bool) -> int:
    """Returns 0 where every student can be trained on this machine, 1 where one doesn't fit. Raises StartError where a
    recipe is wrong."""
    routes = {n: p for n, p in config.routes.items() if p.student is not None and route in (None, n)}
    if not routes:
        raise StartError(f"{file}: no route with a student" + (f" {route!r}" if route else ""))
    flops = speed()
    reports: dict[str, Any] = {}
    for name, policy in routes.items():
        if policy.student is None:
            continue
        retrain = policy.retrain
        try:
            found = check(policy.student, retrain, state=config.state, carried=Path(file).parent / CARRIED)
        except BaseModelError as error:
            raise StartError(f"{file}: route {name}: {error}") from error
        asked = msgspec.structs.replace(load, batch_size=retrain.batch_size, epochs=retrain.epochs)
        device, main = memory()
        made = estimate(
            found.shape,
            asked,
            METHODS[TRAINED[policy.student.recipe]],
            checkpointing=retrain.gradient_checkpointing,
            cuda=device != main,
            flops=flops,
        )
        reports[name] = _report(found, made, device=device, main=main)
        if not as_json:
            _print(name, policy.student.recipe, reports[name], asked)
    if as_json:
        print(json.dumps(reports, indent=2))
    return 0 if all(not report["lacks"] for report in reports.values()) else 1


def _report(found: Checked, made: Estimate, *, device: int, main: int) -> dict[str, Any]:
    lacks = []
    if made.least > device:
        lacks.append(f"training takes {_gb(made.least)} with one example at a time, and this machine has {_gb(device)}")
    if made.merging > main:
        lacks.append(f"merging takes {_gb(made.merging)} of main memory, and this machine has {_gb(main)}")
    notes = [*found.notes]
    if device != main and device < SPARE * 2 * found.shape.weights:
        notes.append("the GPU has no room for it in bf16: it is evaluated on the processors, which takes long")
    whole = {"least": made.least, "whole": made.whole, "checkpoint": made.checkpoint}
    found = msgspec.structs.replace(found, notes=notes)
    return {**msgspec.to_builtins(found), "estimate": {**msgspec.to_builtins(made), **whole}, "lacks": lacks}


def _print(name: str, recipe: str, report: dict[str, Any], load: Load) -> None:
    shape, made, chosen = report["shape"], report["estimate"], report["settings"]
    here = "" if report["here"] else "; its weights are not on this machine"
    print(f"{name}: {report['base']} ({report['architecture']}, {shape['weights'] / 1e9:.2f} billion weights){here}")
    whole = chosen["method"] == "full"
    how = "all weights" if whole else f"r {chosen['rank']}, alpha {chosen['alpha']} on {', '.join(report['targets'])}"
    print(f"  recipe    {recipe}, {how}; rate {chosen['learning_rate']:.2g}, batch {chosen['batch_size']}")
    print(f"  trains    {shape['trainable']:,} weights ({shape['trainable'] / shape['weights']:.2%})")
    parts = ("weights", "adapters", "gradients", "optimizer", "activations_least")
    sums = ", ".join(f"{part.replace('_least', '')} {_gb(made[part])}" for part in parts)
    print(
        f"  memory    {_gb(made['least'])} with one example at a time ({sums}); {_gb(made['whole'])} with a whole batch"
    )
    print(f"  merging   {_gb(made['merging'])} of main memory")
    print(f"  disk      {_gb(made['checkpoint'])} a checkpoint, twice while one is replaced")
    what = f"{load.examples:,} examples of {load.prompt} + {load.completion} tokens, {load.epochs:g} epoch(s)"
    print(f"  time      about {_duration(made['seconds'])} for {what}, on this machine")
    for note in report["notes"]:
        print(f"  note      {note}")
    for lack in report["lacks"]:
        print(f"  TOO LARGE {lack}")


def _gb(size: float) -> str:
    return f"{size / GB:.2f} GB" if size < 10 * GB else f"{size / GB:.0f} GB"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
