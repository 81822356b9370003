"""A plan for people: tables in the terminal."""

import math

from rich.console import Console
from rich.table import Table

from retort.plan_report import Assumptions, Figure, Plan


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """All of it."""
    console = console or Console()
    console.print(f"[bold]{plan.route}[/bold]  {_rests_on(plan.assumptions)}", soft_wrap=True)
    for table in (_scenarios(plan), _stages(plan), _exposures(plan)):
        console.print()
        console.print(table)
    _below(console, plan)


def _rests_on(a: Assumptions) -> str:
    said = [
        f"{a.requests_per_day:,.0f} requests a day ({a.sources['requests_per_day']}), {a.eligible_share:.0%} eligible",
        f"{a.reference}, {a.mode}: {a.loss:.1%} of pairs lost ({a.sources['loss']})"
        + (f", {a.win:.1%} won" * bool(a.win)),
        f"slower than the teacher in {a.slower:.0%} of pairs ({a.sources['slower']})",
        f"{a.slow:.1%} above the SLO ({a.sources['slow']}), {a.failing:.1%} failing",
        f"alpha {a.alpha:.3g}, version {a.version}, n_max {a.n_max:,}",
    ]
    if a.cost_per_request is not None:
        said.append(f"{a.cost_per_request:.4g} USD a request ({a.sources['cost_per_request']})")
    return "\n  ".join(["", *said]).strip()


def _scenarios(plan: Plan) -> Table:
    selective = plan.assumptions.mode == "selective"
    table = _table("Until a decision: median (90%)")
    for column in ("risk", "coverage") if selective else ("margin",):
        table.add_column(column, justify="right")
    for column in ("pairs to pass", "in shadow", "until live", "goes live", "USD a month"):
        table.add_column(column, justify="right")
    for row in plan.scenarios:
        table.add_row(
            f"{row.margin:g}",
            *([f"{row.coverage:.0%}"] if row.coverage is not None else []),
            _both(row.pairs),
            _lasts(row.days_to_decision),
            _lasts(row.days_to_live),
            f"{row.probability:.0%}",
            "-" if row.saved_per_month is None else f"{row.saved_per_month:,.2f}",
        )
    return table


def _stages(plan: Plan) -> Table:
    table = _table("The stages at the route's own margin")
    for column in ("stage", "share", "lasts", "student answers", "waits for"):
        table.add_column(column, justify="left" if column in ("stage", "waits for") else "right")
    for row in plan.stages:
        needs = sorted(row.needs.items(), key=lambda need: math.inf if need[1] is None else need[1], reverse=True)
        waits = ", ".join(f"{need} {_days(days)}" for need, days in needs[:2] if days != 0.0)
        table.add_row(row.name, f"{row.fraction:.0%}", _lasts(row.days), _both(row.requests), waits)
    return table


def _exposures(plan: Plan) -> Table:
    table = _table("A student that gets worse than the margin while it serves, until the alarm")
    for column in ("case", "at", "pairs", "lasts", "answers", "of these wrong"):
        table.add_column(column, justify="left" if column in ("case", "at") else "right")
    for row in plan.exposures:
        table.add_row(
            row.case, row.at, _both(row.pairs), _lasts(row.hours, 1.0 / 24.0), _both(row.answers), _both(row.wrong)
        )
    return table


def _below(console: Console, plan: Plan) -> None:
    stop = plan.hard_stop
    console.print(
        f"\nA student whose calls fail is out after {stop.errors} failures in {stop.window} requests of a worker: at "
        f"most {stop.most_requests} requests over {stop.workers}, which the teacher answers.",
        soft_wrap=True,
    )
    before = _both(plan.requests_before_live)
    console.print(f"Student answers before live: {before}.", soft_wrap=True)
    if plan.savings:
        trial, month = plan.savings.trial, plan.savings.month
        console.print(
            f"The trial: {trial.saved:,.2f} USD saved, {trial.saved - trial.net:,.2f} spent (audits "
            f"{trial.audits:,.2f}, second calls {trial.second_calls:,.2f}, judge {trial.judge:,.2f}, student "
            f"{trial.student:,.2f}); parallel {plan.savings.parallel:,.2f}.\n"
            f"A month of live: {month.saved:,.2f} USD saved, {month.saved - month.net:,.2f} spent: net "
            f"{month.net:,.2f}.",
            soft_wrap=True,
        )
        if plan.savings.training is not None:
            days = plan.savings.payback_days
            when = "never" if days is None else f"after {days:,.1f} days"
            console.print(f"The training's {plan.savings.training:,.2f} USD are paid back {when}.", soft_wrap=True)
    for note in plan.notes:
        console.print(f"[yellow]note[/yellow]: {note}", soft_wrap=True)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)


def _both(figure: Figure) -> str:
    """The median, and the 90th percentile where it is another."""
    return _pair(*("never" if value is None else f"{value:,.0f}" for value in (figure.median, figure.p90)))


def _lasts(figure: Figure, days: float = 1.0) -> str:
    """The same of a duration in units of so many days."""
    return _pair(*(_days(None if value is None else value * days) for value in (figure.median, figure.p90)))


def _pair(median: str, p90: str) -> str:
    return median if median == p90 else f"{median} ({p90})"


def _days(days: float | None) -> str:
    if days is None:
        return "never"
    if days >= 2.0:
        return f"{days:,.1f} d" if days < 10.0 else f"{days:,.0f} d"
    hours = days * 24.0
    if hours >= 2.0:
        return f"{hours:.1f} h" if hours < 10.0 else f"{hours:.0f} h"
    return f"{hours * 60.0:.0f} min"
