"""`retort demo`: introduced, told, and what came of it all."""

import asyncio
import time
from contextlib import closing
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from collector import Stream, open_log
from retort.demo import settings
from retort.demo.outcome import as_json, print_table, unfinished, write_json
from retort.demo.picture import draw
from retort.demo.settings import Places, prepare
from retort.demo.story import Demo, DemoFailed
from retort.errors import StartError
from retort.process import set_up_logging


def run_demo(folder: str, *, engine: str, log: str | None, json_path: str | None, picture: str | None) -> int:
    """Run it in an empty folder; returns 0 where the student was promoted and both bad ends were caught.

    `engine`: the runtime that serves the student. `log`: the URL of an empty log, if not a file in the folder.
    """
    place = Path(folder)
    if place.exists() and any(place.iterdir()):
        raise StartError(f"{folder} is not empty; the demo starts from nothing: remove it, or choose another --dir")
    if log:
        with closing(open_log(log)) as held:
            if held.keys(Stream.EVIDENCE):
                raise StartError(f"{log} is not empty; the demo starts from nothing: choose another prefix")
    began = time.monotonic()
    set_up_logging("demo")
    console = Console()
    places = prepare(place, log=log, engine=engine)
    _introduce(console, places, engine)
    demo = Demo(places, console)
    try:
        outcome = asyncio.run(demo.run())
    except DemoFailed as failure:
        if json_path:
            write_json(unfinished(str(failure), demo.sent, demo.phases), Path(json_path))
        raise
    with demo.phase("picture"):
        draw(outcome, Path(picture) if picture else places.folder / "demo.png")
    seconds = round(time.monotonic() - began, 1)
    outcome = msgspec.structs.replace(outcome, phases=demo.phases, seconds=seconds)
    print_table(console, outcome)
    if json_path:
        write_json(as_json(outcome), Path(json_path))
    return 0 if outcome.complete else 1


def _introduce(console: Console, places: Places, engine: str) -> None:
    console.print(
        "[bold]Retort's loop, from an empty folder.[/bold] The teacher is the sample teacher, a stand-in for a paid "
        f"API with a latency of {settings.TEACHER_MS:.0f} ms: the speed-up against it measures nothing but itself.\n"
        f"Everything is in {places.folder}; what the processes say is in retort.log there."
    )
    table = Table(
        "setting", "here", "production's default", title="to fit the time, the demo has its own settings", box=None
    )
    for row in settings.beside_defaults(engine):
        table.add_row(*row)
    console.print(table)
