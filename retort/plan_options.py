"""The arguments of `retort plan`: what its user knows or assumes."""

import argparse
from typing import Literal

import msgspec

from retort.argument_types import cost, number, positive, share
from router import Config

TEXT = "say how long a rollout takes at this traffic, what it exposes and saves"


class StudentCost(msgspec.Struct, frozen=True):
    """USD for each month, or for each 1,000 requests that the student is asked."""

    usd: float = 0.0
    per: Literal["month", "1000"] = "month"


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """None: measured where that is possible, else a default that the plan names.

    `per_day`: requests of the route. `agreement`: with `reference: agreement`; else `discordance` (share of pairs in
    which student and reference differ) and `difference` (mean D). `risk`: mean loss of what a selective student is
    sure of. `slower`, `slow`, `failing`: shares of pairs, answers and requests. Costs in USD.
    """

    per_day: float | None = None
    agreement: float | None = None
    discordance: float | None = None
    difference: float | None = None
    margins: tuple[float, ...] | None = None
    coverage: tuple[float, ...] | None = None
    risk: float | None = None
    slower: float | None = None
    slow: float | None = None
    failing: float = 0.0
    labelled: float | None = None
    cost_per_request: float | None = None
    judge_cost: float | None = None
    student_cost: StudentCost = StudentCost()
    training_cost: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The route, and an option for every field of PlanOptions."""
    parser.add_argument("route")
    add = parser.add_argument
    add("--per-day", type=positive, metavar="N", help="requests a day (default: measured from the log)")
    add("--agreement", type=share, metavar="A", help="expected (default: of the newest version's evaluation, or 0.97)")
    add("--discordance", type=share, metavar="PSI", help="self, judge, truth: share of pairs that differ")
    add("--difference", type=_difference, metavar="D", help="self, judge, truth: mean difference in [-1, 1]; default 0")
    add(
        "--margins", type=_shares, metavar="D,D,...", help="with selective: risks (default: the route's, and around it)"
    )
    add("--coverage", type=_shares, metavar="C,C,...", help="selective: what the student is sure of (0.3,0.6,0.9)")
    add("--risk", type=share, metavar="R", help="selective: mean loss of these (default: a third of max_risk)")
    add("--slower", type=share, metavar="S", help="pairs in which the student is slower (default: latency.good_rate)")
    add("--slow", type=share, metavar="S", help="answers above slo_ms (default: a fifth of what is borne)")
    add("--failing", type=share, default=0.0, metavar="F", help="requests that fail (default: %(default)s)")
    add("--labelled", type=share, metavar="L", help="truth: requests whose right answer arrives")
    add("--cost-per-request", type=cost, metavar="USD", help="of the teacher (default: measured from the log)")
    add("--judge-cost", type=cost, metavar="USD", help="judge: of one call, two a pair (default: the teacher's)")
    add("--student-cost", type=_student_cost, default=StudentCost(), metavar="USD/month|USD/1000", help="default: 0")
    add("--training-cost", type=cost, metavar="USD", help="to say when it is paid back")
    add("--json", action="store_true")


def plan(config: Config, options: argparse.Namespace) -> int:
    """Run the command."""
    from retort.plan import show  # noqa: PLC0415 - numpy and the simulation, which no other command needs

    given = PlanOptions(**{name: getattr(options, name) for name in PlanOptions.__struct_fields__})
    return show(config, options.route, given, as_json=options.json)


def _difference(text: str) -> float:
    found = number(text)
    if not -1.0 <= found <= 1.0:
        raise argparse.ArgumentTypeError(f"must be from -1 to 1; got {text}")
    return found


def _shares(text: str) -> tuple[float, ...]:
    numbers = tuple(sorted({share(part) for part in text.split(",")}))
    if numbers[0] == 0.0:
        raise argparse.ArgumentTypeError(f"must all be above 0; got {text}")
    return numbers


def _student_cost(text: str) -> StudentCost:
    usd, slash, per = text.partition("/")
    if not slash or per not in ("month", "1000"):
        raise argparse.ArgumentTypeError(f"write USD/month or USD/1000 (requests), for example 40/month; got {text}")
    return StudentCost(cost(usd), "month" if per == "month" else "1000")
