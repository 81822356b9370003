"""The command `retort`: reads its arguments, and hands over to the module of the same duty."""

import argparse
import asyncio
import getpass
import json
import os
import sys
from collections.abc import Callable, Sequence

from collector import CollectorError
from retort import plan_options, recipe_options
from retort.argument_types import port
from retort.cli_training import add_training
from retort.errors import StartError
from retort.extras import need
from retort.process import EXIT_USAGE, leave_no_dump, set_up_logging
from retort.settings import DEFAULT_CONFIG, be_offline, load, share_metrics
from router import Config, RouterError, json_schema

ROOMS = {
    "gateway": "one gateway worker",
    "collector": "the collector: captures, scores, scrubs and appends to the log",
    "promoter": "the promoter: folds the log's evidence into rollout decisions",
    "retrainer": "the retrainer: trains a candidate when its triggers fire",
    "engine": "one engine: serves the students that the registry wants",
}
ACTIONS = {
    "promote": "move a version to live by hand",
    "rollback": "take traffic back to the teacher",
    "pause": "freeze a route's stage moves; alarms still take traffic back",
    "resume": "end a pause",
    "pin": "keep a version as it is; alarms still take traffic back",
    "unpin": "end a pin",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    options = _parser().parse_args(argv)
    leave_no_dump()
    be_offline()
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        status = run(options)
        sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:  # who read it has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (StartError, CollectorError, RouterError) as error:  # a log that can't be reached, for example
        print(f"retort: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, StartError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="retort", description="An inference gateway with a distillation loop.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], *, text: str, config: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        if config:
            sub.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
        return sub

    up = command("up", _up, text="start and supervise every process on this machine; Ctrl-C drains and stops them")
    up.add_argument("--port", type=port, help="the gateway's port (default: from the configuration's listen)")

    _add_rooms(command)
    teacher = command("sample-teacher", _sample_teacher, text="run the stand-in for a paid API", config=False)
    teacher.add_argument("--port", type=port, default=8090)
    teacher.add_argument("--latency-ms", type=float, default=600.0)

    demo = command("demo", _demo, text="show the whole loop on real input, from an empty folder", config=False)
    demo.add_argument("--engine", choices=("onnxruntime", "vllm"), default="onnxruntime", help="what serves it")
    demo.add_argument("--log", metavar="URL", help="an empty log, such as kafka://HOST:PORT/PREFIX (default: a file)")
    demo.add_argument("--json", metavar="FILE", help="write the figures there")
    demo.add_argument("--picture", metavar="FILE", help="write the plot there (default: demo.png in DIR)")
    demo.add_argument("--dir", default="out/demo", help="an empty or new folder (default: %(default)s)")

    status = command("status", _status, text="show routes, versions, stages, evidence against its boundary, savings")
    status.add_argument("--json", action="store_true")

    plan_options.add_arguments(command("plan", _plan, text=plan_options.TEXT))

    for name, text in ACTIONS.items():
        action = command(name, _operate, text=text)
        action.set_defaults(action=name)
        action.add_argument("route")
        if name in ("promote", "pin"):
            action.add_argument("version")
        elif name == "rollback":
            action.add_argument(
                "version",
                nargs="?",
                help="default: all that answer clients, else the one in shadow; a candidate that waits is rejected",
            )
        action.add_argument("--why", required=True, help="kept in the log with your name")
        action.add_argument("--who", default=getpass.getuser(), help="default: your login name")

    add_training(command)
    replay = command("replay", _replay, text="recompute every decision from the log; exit 1 on a difference")
    replay.add_argument("--route")
    replay.add_argument(
        "--from", dest="start", type=int, default=0, metavar="OFFSET", help="begin at the last decision before it"
    )
    replay.add_argument(
        "--what-if", action="append", default=[], metavar="KEY=VALUE", help="what another policy would have decided"
    )
    replay.add_argument("--json", action="store_true")

    _add_data(command)
    _add_import(command)
    check = command("check", _check, text="validate a configuration", config=False)
    check.add_argument("file")
    recipe_options.add_arguments(command("recipe", recipe_options.run, text=recipe_options.TEXT, config=False))
    command("schema", _schema, text="print the configuration's JSON Schema", config=False)
    return parser


def _add_data(command: Callable[..., argparse.ArgumentParser]) -> None:
    taken = command("export", _export, text="write the log's interactions, scrubbed, for others to read")
    what = taken.add_mutually_exclusive_group(required=True)
    what.add_argument("--route", help="all of a route's")
    what.add_argument("--group", metavar="NAME", help="what is new since this group's last run, of all routes")
    taken.add_argument("--format", choices=("jsonl", "parquet", "openai"), default="jsonl")
    taken.add_argument("--out", required=True, metavar="PATH", help="a file, - for standard output; a group's folder")

    erase = command("erase", _erase, text="remove a person's records, and say which data sets and versions held them")
    erase.add_argument("--subject", action="append", default=[], metavar="ID", help="as clients name it; repeatable")
    erase.add_argument("--hashed", action="append", default=[], metavar="HASH", help="as the log names it; repeatable")
    erase.add_argument("--json", action="store_true")


def _add_rooms(command: Callable[..., argparse.ArgumentParser]) -> None:
    for name, text in ROOMS.items():
        room = command(name, _room, text=f"run {text}")
        room.set_defaults(room=name)
        if name == "gateway":
            room.add_argument("--host")
            room.add_argument("--port", type=port)
            room.add_argument("--reuse-port", action="store_true", help="share the port with other workers")
        if name == "collector":
            room.add_argument("--gateway", metavar="URL", help="where a judge is asked (default: from listen)")
        if name == "engine":
            room.add_argument("name", help="its name under engines: in the configuration")


def _add_import(command: Callable[..., argparse.ArgumentParser]) -> None:
    importing = command("import", _import, text="take another system's log into a route's own, through the scrubber")
    add = importing.add_argument
    add("route")
    add("file", help="JSON lines, JSON or CSV, also compressed by gzip; - is standard input")
    add("--format", choices=("openai", "stored", "litellm", "langfuse"), help="default: told by the first records")
    add("--teacher", metavar="UPSTREAM/MODEL", help="whose answers they are if they don't say (default: the first)")
    add("--alias", action="append", default=[], metavar="NAME", help="another name for that teacher, in the file")
    add("--any-model", action="store_true", help="answers of other models too: their terms are yours to know")
    add("--consented", action="store_true", help="all whose texts are in it agreed; needed where consent is opt-in")
    add("--strict", action="store_true", help="stop at the first record that can't be used")
    add("--json", action="store_true")


def _load(options: argparse.Namespace) -> Config:
    config = load(options.config)
    share_metrics(config.state)
    return config


def _database(config: Config) -> list[str]:
    """The extra that the registry needs."""
    return ["postgres"] if config.registry.startswith("postgresql://") else []


def _tracking(config: Config) -> list[str]:
    """The extras that the retrainer needs where a route's cycles are tracked."""
    asked = [policy.retrain.tracking for policy in config.routes.values() if policy.student]
    return sorted({"tracking" if tracking.mlflow else "wandb" for tracking in asked if tracking})


def _room(options: argparse.Namespace) -> int:
    config = _load(options)
    own = [options.room] if options.room in ("collector", "engine", "retrainer") else []
    own += _tracking(config) if options.room == "retrainer" else []
    need(options.room, *own, *_database(config))
    set_up_logging(options.room)
    from retort.process import run_room  # noqa: PLC0415
    from retort.rooms import room  # noqa: PLC0415 - each process loads its own room alone

    return run_room(room(options, config), config)


def _up(options: argparse.Namespace) -> int:
    from retort.up import up  # noqa: PLC0415

    config = load(options.config)
    students = any(policy.student for policy in config.routes.values())
    own = ["collector", *["engine"] * bool(config.engines), *["retrainer"] * students]
    need("up", *own, *_tracking(config), *_database(config))
    set_up_logging("up")
    return asyncio.run(up(config, os.path.abspath(options.config), port=options.port))  # noqa: PTH100


def _sample_teacher(options: argparse.Namespace) -> int:
    from aiohttp import web  # noqa: PLC0415

    from retort.sample.teacher import create_app  # noqa: PLC0415

    app = create_app(latency=options.latency_ms / 1000)
    try:
        web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None)
    except OSError as error:
        raise StartError(
            f"sample-teacher: port {options.port} can't be used: {error.strerror}; give another --port"
        ) from error
    return 0


def _status(options: argparse.Namespace) -> int:
    from retort.status import show  # noqa: PLC0415

    return show(load(options.config), as_json=options.json)


def _plan(options: argparse.Namespace) -> int:
    return plan_options.plan(load(options.config), options)


def _operate(options: argparse.Namespace) -> int:
    from retort.operate import operate  # noqa: PLC0415

    return operate(
        load(options.config),
        options.action,
        options.route,
        version=getattr(options, "version", None),
        who=options.who,
        why=options.why,
    )


def _demo(options: argparse.Namespace) -> int:
    need("demo", "collector", "engine", "retrainer", "demo")
    from retort.demo.command import run_demo  # noqa: PLC0415 - heavy

    where = {"log": options.log, "json_path": options.json, "picture": options.picture}
    return run_demo(options.dir, engine=options.engine, **where)


def _replay(options: argparse.Namespace) -> int:
    from retort.replay import replay  # noqa: PLC0415

    config, changes = load(options.config), options.what_if
    return replay(config, route=options.route, start=options.start, changes=changes, as_json=options.json)


def _export(options: argparse.Namespace) -> int:
    from retort.export import export, export_new  # noqa: PLC0415

    config = load(options.config)
    if options.group:
        return export_new(config, options.group, form=options.format, folder=options.out)
    return export(config, options.route, form=options.format, out=options.out)


def _erase(options: argparse.Namespace) -> int:
    from retort.erase import erase  # noqa: PLC0415 - heavy: the retrainer's data sets
    from retrainer import RetrainerError  # noqa: PLC0415

    if not options.subject and not options.hashed:
        raise StartError("say whose records: --subject ID, or --hashed HASH")
    try:
        return erase(_load(options), names=options.subject, hashed=options.hashed, as_json=options.json)
    except RetrainerError as error:  # of a data set or a suite that can't be read
        raise StartError(f"{error}; mend or remove it, and run this again") from error


def _import(options: argparse.Namespace) -> int:
    from retort.import_log import ImportOptions, import_log  # noqa: PLC0415

    given = ImportOptions(
        format=options.format,
        teacher=options.teacher,
        aliases=tuple(options.alias),
        any_model=options.any_model,
        consented=options.consented,
        strict=options.strict,
    )
    return import_log(load(options.config), options.route, options.file, given, as_json=options.json)


def _check(options: argparse.Namespace) -> int:
    from retort.check import check  # noqa: PLC0415

    return check(load(options.file), options.file)


def _schema(options: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2))
    return 0
