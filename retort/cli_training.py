"""The commands around training: their arguments, and which module runs them."""

import argparse
import getpass
from collections.abc import Callable
from pathlib import Path

from retort.argument_types import cost, count, positive, share
from retort.errors import StartError
from retort.extras import need
from retort.settings import load

Command = Callable[..., argparse.ArgumentParser]


def add_training(command: Command) -> None:
    """Add them to the command line."""
    retrain = command("retrain", _retrain, text="run one training cycle now")
    retrain.add_argument("route")
    retrain.add_argument("--max-steps", type=int, help="stop training after so many steps")
    retrain.add_argument(
        "--held-out", metavar="FILE", help="JSON lines of {messages, answer} to judge the candidate on"
    )
    retrain.add_argument("--override-gate", metavar="WHY", help="register the candidate even if the gate says no")
    retrain.add_argument("--who", default=getpass.getuser(), help="default: your login name")
    ended = command("cancel", _cancel, text="end a route's training cycle for good, running or waiting")
    ended.add_argument("route")
    ended.add_argument("--why", default="no longer wanted")
    ended.add_argument("--who", default=getpass.getuser(), help="default: your login name")
    card = command("card", _card, text="print the path of a version's model card, to open in a browser")
    card.add_argument("version")
    card.add_argument("--markdown", action="store_true", help="of its Markdown form")
    artefacts = command("artefacts", _artefacts, text="list all versions' artefacts, and remove what nobody needs")
    artefacts.add_argument("--remove", action="store_true", help="those that may go")
    artefacts.add_argument("--unknown", action="store_true", help="those of no version of a route may go, too")
    artefacts.add_argument("--json", action="store_true")
    _add_bootstrap(command)
    _add_evaluate(command)
    _add_sweep(command)
    listed = command("cycles", _cycles, text="list the training cycles: who or what started them, on what, the outcome")
    listed.add_argument("route", nargs="?")
    listed.add_argument("--json", action="store_true", help="the audit log's lines")


def _add_bootstrap(command: Command) -> None:
    add = command("bootstrap", _bootstrap, text="have prompts or scenarios labelled by the teacher").add_argument
    add("route")
    add("file", help="prompts: a text a line, or JSON lines of {messages}; scenarios: YAML")
    add("--form", choices=("lines", "messages", "scenarios"), help="default: told by the file's name")
    add("--system", metavar="FILE", help="a system prompt for what has none")
    add("--teacher", metavar="UPSTREAM/MODEL", help="default: the route's first")
    add("--ask", metavar="ROUTE", help="where it is asked (default: its route without capture and student)")
    add("--gateway", metavar="URL", help="default: from listen")
    add("--temperature", type=_temperature, default=0.3, help="or none, for models that take none (default: 0.3)")
    add("--concurrency", type=count, default=8, metavar="N", help="questions at once (default: %(default)s)")
    add("--answer-tokens", type=float, metavar="N", help="for the estimate (default: as in the log, else 150)")
    add("--consented", action="store_true", help="all whose texts are in it agreed; needed where consent is opt-in")
    add("--yes", action="store_true", help="don't ask whether to spend that")
    add("--json", action="store_true")


def _add_evaluate(command: Command) -> None:
    add = command("evaluate", _evaluate, text="say what a student would reach and save, and route nothing").add_argument
    add("route")
    add("--student", required=True, metavar="BASE", help="as routes.ROUTE.student.base")
    add("--recipe", help="default: the route's")
    add("--examples", type=count, metavar="N", help="the newest so many (default: retrain.max_examples)")
    add("--untrained", action="store_true", help="ask the base alone, in a minute: where a student would start from")
    add(
        "--max-risk",
        type=share,
        metavar="SHARE",
        help="as a student that serves what it is sure of, at this risk",
    )
    add("--who", default=getpass.getuser(), help="default: your login name")
    add("--max-steps", type=count, metavar="N", help="end the training early")
    add("--per-day", type=positive, metavar="N", help="requests a day (default: measured from the log)")
    add("--cost-per-request", type=cost, metavar="USD", help="of the teacher (default: as in the log)")
    add("--json", action="store_true")


def _add_sweep(command: Command) -> None:
    add = command("sweep", _sweep, text="study a route's training settings; a repeated command goes on").add_argument
    add("route")
    add("--trials", type=count, default=20, metavar="N", help="all together (default: %(default)s)")
    add("--who", default=getpass.getuser(), help="default: your login name")
    add("--recipe", help="default: the route's")
    add("--examples", type=count, metavar="N", help="the newest so many (default: retrain.max_examples)")
    add("--seed", type=int, help="default: retrain.seed")
    add("--out", metavar="DIR", help="the report's folder (default: out/sweep-ROUTE)")
    add("--json", action="store_true")


def _temperature(text: str) -> float | None:
    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 2.0:
        raise argparse.ArgumentTypeError(f"must be from 0 to 2, or none; got {text}")
    return value


def _retrain(options: argparse.Namespace) -> int:
    need("retrain", "retrainer")
    from retort.retrain import retrain  # noqa: PLC0415

    return retrain(
        load(options.config),
        options.route,
        max_steps=options.max_steps,
        why=options.override_gate,
        who=options.who,
        held_out=options.held_out,
    )


def _artefacts(options: argparse.Namespace) -> int:
    from retort.artefacts import artefacts  # noqa: PLC0415

    return artefacts(load(options.config), removes=options.remove, unknown=options.unknown, as_json=options.json)


def _card(options: argparse.Namespace) -> int:
    from retort.card import card  # noqa: PLC0415

    return card(load(options.config), options.version, form="markdown" if options.markdown else "html")


def _bootstrap(options: argparse.Namespace) -> int:
    from retort.bootstrap.command import BootstrapOptions, bootstrap  # noqa: PLC0415

    given = {name: getattr(options, name) for name in BootstrapOptions.__struct_fields__}
    given["system"] = None if options.system is None else _text(options.system)
    config = load(options.config)
    return bootstrap(config, options.route, options.file, BootstrapOptions(**given), as_json=options.json)


def _evaluate(options: argparse.Namespace) -> int:
    need("evaluate", "collector", "retrainer")
    from retort.evaluate import EvaluateOptions, evaluate  # noqa: PLC0415

    given = EvaluateOptions(**{name: getattr(options, name) for name in EvaluateOptions.__struct_fields__})
    return evaluate(load(options.config), options.route, given, as_json=options.json)


def _sweep(options: argparse.Namespace) -> int:
    need("sweep", "collector", "retrainer", "sweep")
    from retort.sweep.command import SweepOptions, sweep  # noqa: PLC0415

    given = SweepOptions(**{name: getattr(options, name) for name in SweepOptions.__struct_fields__})
    return sweep(load(options.config), options.route, given, as_json=options.json)


def _cancel(options: argparse.Namespace) -> int:
    need("cancel", "retrainer")
    from retort.cancel import cancel_cycle  # noqa: PLC0415

    return cancel_cycle(load(options.config), options.route, who=options.who, why=options.why)


def _cycles(options: argparse.Namespace) -> int:
    need("cycles", "retrainer")
    from retort.cycles import cycles  # noqa: PLC0415

    return cycles(load(options.config), options.route, as_json=options.json)


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from error
