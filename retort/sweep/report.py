"""What a study found: a page in Markdown with three plots."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import optuna
from optuna.trial import FrozenTrial, TrialState

from retort.sweep.space import Value, as_yaml

LEAST_FOR_IMPORTANCE = 8  # complete trials


class Best(msgspec.Struct, frozen=True, kw_only=True):
    """`agreement` on what may choose (`Job.choosing`), with its 95% interval; `present`: that of the
    present settings. `surely`: whether the interval lies above that. `settings`: to put into the configuration."""

    route: str
    recipe: str
    trials: int
    complete: int
    pruned: int
    failed: int
    agreement: float
    lower: float
    upper: float
    present: float
    surely: bool
    values: dict[str, Value]
    settings: str
    files: list[str]


def report(study: optuna.Study, finished: Sequence[FrozenTrial], route: str, recipe: str, out: Path) -> Best:
    """Write the page and its plots into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    best = study.best_trial
    first = next(t for t in finished if t.user_attrs.get("present"))
    if first.value is not None and best.value is not None and best.value <= first.value:
        best = first
    count = {state: sum(t.state is state for t in finished) for state in TrialState}
    plots = _plots(study, finished, out)
    found = Best(
        route=route,
        recipe=recipe,
        trials=len(finished),
        complete=count[TrialState.COMPLETE],
        pruned=count[TrialState.PRUNED],
        failed=count[TrialState.FAIL],
        agreement=float(best.value or 0.0),
        lower=best.user_attrs["lower"],
        upper=best.user_attrs["upper"],
        present=float(first.value or 0.0),
        surely=best.user_attrs["lower"] > float(first.value or 0.0),
        values=best.params,
        settings=as_yaml(route, best.params),
        files=[str(out / name) for name in ("report.md", *plots)],
    )
    (out / "report.md").write_text("\n".join(_page(found, finished, best, plots)) + "\n")
    return found


def said(found: Best) -> list[str]:
    """For people."""
    sure = "surely better than" if found.surely else "not surely better than"
    return [
        f"{found.route}, {found.recipe}: {found.trials} trials, {found.pruned} given up early, {found.failed} failed",
        f"  best {found.agreement:.1%} agreement on the half of the validation part that judges no cycle (95%: "
        f"{found.lower:.1%} to {found.upper:.1%}), {sure} the present settings' {found.present:.1%}",
        "  the best of many looks better than it is; a cycle is judged by the other half and the test part",
        "",
        found.settings,
    ]


def _page(found: Best, finished: Sequence[FrozenTrial], best: FrozenTrial, plots: Mapping[str, str]) -> list[str]:
    knobs = list(best.params)
    rows = []
    for trial in sorted(finished, key=lambda t: (t.value is None, -(t.value or 0.0))):
        values = " | ".join(f"{trial.params[k]:.4g}" for k in knobs)
        score = "-" if trial.value is None else f"{trial.value:.1%}"
        state = "present settings" if trial.user_attrs.get("present") else _STATES[trial.state]
        seconds = trial.user_attrs.get("seconds") or (trial.duration.total_seconds() if trial.duration else 0.0)
        rows.append(f"| {trial.number} | {state} | {score} | {values} | {seconds:.0f} |")
    head, *rest = said(found)
    return [
        f"# Sweep of {found.route}",
        "",
        head + ".",
        *[line.strip() for line in rest[:2]],
        "",
        "```yaml",
        found.settings,
        "```",
        "",
        *[f"![{title}]({name})" for name, title in plots.items()],
        "",
        f"| trial | | agreement | {' | '.join(knobs)} | s |",
        f"|---|---|---|{'---|' * len(knobs)}---|",
        *rows,
    ]


_STATES = {
    TrialState.COMPLETE: "",
    TrialState.PRUNED: "given up after a third",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "",
    TrialState.WAITING: "",
}


def _plots(study: optuna.Study, finished: Sequence[FrozenTrial], out: Path) -> dict[str, str]:
    import matplotlib  # noqa: PLC0415 - heavy: only a report pays for it

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    drawn = {"history.png": "agreement by trial"}
    with pyplot.rc_context({"figure.figsize": (8.0, 4.5), "font.size": 10.0}):
        _history(finished, pyplot)
        _save(pyplot, out / "history.png")
        complete = [t for t in finished if t.state is TrialState.COMPLETE]
        if len(complete) >= LEAST_FOR_IMPORTANCE and len(complete[0].params) > 1:
            with warnings.catch_warnings():  # of what Optuna calls experimental
                warnings.simplefilter("ignore")
                importances = optuna.importance.get_param_importances(
                    study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
                )
            _importances(importances, pyplot)
            _save(pyplot, out / "importances.png")
            drawn["importances.png"] = "which settings matter (PED-ANOVA, Watanabe et al. 2023)"
        if complete and len(complete[0].params) > 1:
            _parallel(complete, pyplot)
            _save(pyplot, out / "parallel.png")
            drawn["parallel.png"] = "settings and agreement of the complete trials"
    return drawn


def _save(pyplot: Any, path: Path) -> None:
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=120)
    pyplot.close()


def _history(finished: Sequence[FrozenTrial], pyplot: Any) -> None:
    complete = [t for t in finished if t.value is not None and t.state is TrialState.COMPLETE]
    numbers, values = [t.number for t in complete], [t.value or 0.0 for t in complete]
    best = [max(values[: i + 1]) for i in range(len(values))]
    low = [v - t.user_attrs["lower"] for v, t in zip(values, complete, strict=True)]
    high = [t.user_attrs["upper"] - v for v, t in zip(values, complete, strict=True)]
    pyplot.errorbar(numbers, values, yerr=[low, high], fmt="o", color="#3b6fb6", ecolor="#b9cbe4", label="trial, 95%")
    pyplot.step(numbers, best, where="post", color="#d1495b", label="best so far")
    pruned = [t for t in finished if t.state is TrialState.PRUNED]
    pyplot.plot(
        [t.number for t in pruned],
        [t.intermediate_values[0] for t in pruned],
        "x",
        color="#888888",
        label="given up after a third",
    )
    pyplot.axhline(values[0], color="#888888", linestyle=":", label="present settings")
    pyplot.gca().xaxis.get_major_locator().set_params(integer=True)
    pyplot.xlabel("trial")
    pyplot.ylabel("agreement, half of the validation part")
    pyplot.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8, frameon=False)


def _importances(importances: Mapping[str, float], pyplot: Any) -> None:
    names = sorted(importances, key=importances.__getitem__)
    pyplot.barh(names, [importances[name] for name in names], color="#3b6fb6")
    pyplot.xlabel("share of what tells the best tenth of the trials from the others")


def _parallel(complete: Sequence[FrozenTrial], pyplot: Any) -> None:
    knobs = list(complete[0].params)
    scales = [_scale(complete[0].distributions[k], [t.params[k] for t in complete]) for k in knobs]
    values = [t.value or 0.0 for t in complete]
    low, high = min(values), max(values)

    def score(value: float) -> float:
        return (value - low) / (high - low or 1.0)

    colours = pyplot.get_cmap("viridis")
    places = range(len(knobs) + 1)
    for trial, value in sorted(zip(complete, values, strict=True), key=lambda pair: pair[1]):
        heights = [scale(trial.params[k]) for k, scale in zip(knobs, scales, strict=True)]
        pyplot.plot(places, [*heights, score(value)], color=colours(score(value)), linewidth=1.6)
    for place, knob in enumerate(knobs):
        found = [t.params[knob] for t in complete]
        for end, height in ((min(found), scales[place](min(found))), (max(found), scales[place](max(found)))):
            pyplot.annotate(f"{end:.3g}", (place, height), textcoords="offset points", xytext=(4, 0), fontsize=8)
    for end in (low, high):
        pyplot.annotate(f"{end:.1%}", (len(knobs), score(end)), textcoords="offset points", xytext=(4, 0), fontsize=8)
    pyplot.xticks(places, [*knobs, "agreement"])
    pyplot.yticks([])
    pyplot.margins(x=0.12)
    for place in places:
        pyplot.axvline(place, color="#cccccc", linewidth=0.8)


def _scale(distribution: Any, found: Sequence[Value]) -> Callable[[Value], float]:
    """From a value to [0, 1]."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        choices = list(distribution.choices)
        return lambda v: choices.index(v) / max(len(choices) - 1, 1)
    f: Callable[[float], float] = math.log if distribution.log else float
    low, high = f(min(found)), f(max(found))
    return lambda v: (f(v) - low) / (high - low or 1.0)
