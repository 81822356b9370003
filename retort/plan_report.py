"""What `retort plan` says, as frozen values: the JSON has these names. None: never, or not known."""

import msgspec
import numpy as np

from retort.plan_money import Money
from router.sequential.mixture import Floats


class Figure(msgspec.Struct, frozen=True):
    """The median and the 90th percentile over the simulated rollouts; None where so many never get there."""

    median: float | None
    p90: float | None


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan rests on. `sources`: where each came from, in words. `alpha`: of the `version`-th version."""

    requests_per_day: float
    eligible_share: float
    mode: str
    reference: str
    test: str
    version: int
    alpha: float
    n_max: int
    loss: float
    win: float
    slower: float
    slow: float
    failing: float
    cost_per_request: float | None
    sources: dict[str, str]


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One margin (with `selective`: one risk and one coverage). `pairs`: until the quality test passes, or the
    threshold is certified. `days_to_decision`: in shadow, also where it ends in keeping the teacher.
    `probability`: to go live. `saved_per_month`: net, in USD."""

    margin: float
    coverage: float | None
    pairs: Figure
    days_to_decision: Figure
    days_to_live: Figure
    probability: float
    saved_per_month: float | None


class StageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stage at the route's own margin. `needs`: days (median) of each thing that is waited for; `limit`: of the
    longest."""

    name: str
    fraction: float
    days: Figure
    requests: Figure
    needs: dict[str, float | None]
    limit: str


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """A student that changes while it serves `fraction` of the traffic: what users get until the alarm. `case`: how far
    below the margin it falls (with `selective`: above the risk), or that all of its answers are wrong."""

    case: str
    at: str
    fraction: float
    pairs: Figure
    hours: Figure
    answers: Figure
    wrong: Figure


class HardStop(msgspec.Struct, frozen=True, kw_only=True):
    """A student whose calls fail: requests until a worker stops it, which a fallback answers."""

    errors: int
    window: int
    workers: int
    most_requests: int


class Savings(msgspec.Struct, frozen=True, kw_only=True):
    """USD. `trial`: from shadow to live. `month`: 30 days of live. `parallel`: once, after it went live."""

    trial: Money
    month: Money
    parallel: float
    training: float | None
    payback_days: float | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer. `stages`, `exposures` and `savings` are of the route's own margin and, with `selective`, of the
    middle coverage. `savings`: None where no price is known, or the student would not go live in half of the runs."""

    route: str
    assumptions: Assumptions
    scenarios: list[Scenario]
    stages: list[StageRow]
    requests_before_live: Figure
    exposures: list[Exposure]
    hard_stop: HardStop
    savings: Savings | None
    notes: list[str]


def figure(values: Floats, scale: float = 1.0) -> Figure:
    """Of values on paths; inf: never. Without interpolation, since a middle between a number and never is no number."""
    return Figure(*(finite(float(np.quantile(values, q, method="inverted_cdf")) * scale) for q in (0.5, 0.9)))


def finite(value: float) -> float | None:
    """None for never."""
    return value if np.isfinite(value) else None
