"""What a study varies: of the settings that the field tunes, those that the route's recipe reads."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from router import RoutePolicy
from router.policy_fields import Strict

# By their names under `retrain`. Ranges around the present value `c`, with their sources:
RANKS = (8, 16, 64, 128)  # of LoRA: the usual presets (Hu et al. 2021; Dettmers et al. 2023 found 8 to 256 alike)
_AROUND = {"learning_rate": 4.0, "closed.learning_rate": 4.0, "closed.strength": 10.0}  # c divided by it to c times it
_BETWEEN = {
    "epochs": (1.0, 3.0),
    "closed.epochs": (1.0, 6.0),
    "distil.temperature": (3.0, 20.0),  # Hinton et al. 2015
    "distil.alpha": (0.5, 0.9),
}
KNOBS = ("lora_rank", *_AROUND, *_BETWEEN)

Value = float | int


class Reads:
    """A policy that notes which of its settings are read, for a recipe to be run with once."""

    def __init__(self, of: Strict, found: set[str], prefix: str = "") -> None:
        self._of, self._found, self._prefix = of, found, prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._of, name)
        self._found.add(self._prefix + name)
        return Reads(value, self._found, f"{self._prefix}{name}.") if isinstance(value, Strict) else value


def present(policy: RoutePolicy, reads: set[str], settings: Mapping[str, Any]) -> dict[str, Value]:
    """The present values of what may be varied. `settings`: what the training says that it used, where the policy
    leaves a value to the recipe."""
    found = {}
    for knob in KNOBS:
        if knob in reads:
            value: Any = policy.retrain
            for part in knob.split("."):
                value = getattr(value, part)
            value = settings.get(knob.rpartition(".")[2]) if value is None else value
            if value is not None:
                found[knob] = value
    return found


def distributions(current: Mapping[str, Value]) -> dict[str, BaseDistribution]:
    """The range of each; the present value always lies within."""
    found: dict[str, BaseDistribution] = {}
    for knob, value in current.items():
        if knob == "lora_rank":
            found[knob] = CategoricalDistribution(sorted({*RANKS, value}))
        elif knob in _AROUND:
            found[knob] = FloatDistribution(value / _AROUND[knob], value * _AROUND[knob], log=True)
        else:
            low, high = _BETWEEN[knob]
            found[knob] = FloatDistribution(min(low, value), max(high, value))
    return found


def changed(policy: RoutePolicy, values: Mapping[str, Value], *, share: float = 1.0) -> RoutePolicy:
    """The policy with these values, and with so much of the epochs."""
    given = policy.model_dump(mode="json")
    for knob, value in values.items():
        *sections, last = knob.split(".")
        at = given["retrain"]
        for section in sections:
            at = at[section]
        at[last] = value
    given["retrain"]["epochs"] *= share
    return RoutePolicy.model_validate(given)


def as_yaml(route: str, values: Mapping[str, Value]) -> str:
    """To put into the configuration."""
    nested: dict[str, Any] = {}
    for knob, value in values.items():
        section, _, last = knob.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[last] = value
    lines = ["routes:", f"  {route}:", "    retrain:"]
    for name, value in nested.items():
        if isinstance(value, dict):
            inside = ", ".join(f"{k}: {_number(v)}" for k, v in value.items())
            lines.append(f"      {name}: {{{inside}}}")
        else:
            lines.append(f"      {name}: {_number(value)}")
    return "\n".join(lines)


def _number(value: Value) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
