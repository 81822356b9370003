"""`retort export`: the log's interactions, scrubbed as they are, for others to read.

One file of a route, whole or not at all. Or, with a group, what is new since the group's last run, of all routes: into
the next numbered file of a folder; the group goes on from there once that file is complete on the disk.
"""

import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from collector import Interactions, NewestRight, Stream, open_interactions
from exporters.models import sync
from retort.errors import StartError
from retort.export_forms import next_part, writer
from router import Config

PAGE = 2000
MOST = 200_000  # records of one run of a group
SECONDS = 2.0  # without a new one, until a group's run ends


def export(config: Config, route: str, *, form: str, out: str) -> int:
    """Write a route's interactions to a file, or to `-`. Returns 0. Raises StartError, LogError."""
    if route not in config.routes:
        raise StartError(f"no route {route!r}; the configuration has: {', '.join(sorted(config.routes))}")
    if out == "-" and form == "parquet":
        raise StartError("--format parquet needs --out FILE")
    read = written = 0
    with (
        open_interactions(config) as interactions,
        _right_answers(interactions, [route]) as right,
        _file(out) as file,
        _progress() as bar,
    ):
        end = interactions.end(route)
        task = bar.add_task(route, total=end)
        rows = writer(form, file)
        records = interactions.of(route, end=end)
        while page := list(islice(records, PAGE)):
            read += len(page)
            written += rows.write([record for _, record in page], right.of([record.id for _, record in page]))
            bar.update(task, completed=page[-1][0] + 1)
        rows.close()
    _tell(out, read, written)
    return 0


def export_new(config: Config, group: str, *, form: str, folder: str, most: int = MOST) -> int:
    """Write what is new to a group, at most so many records, to a folder's next file; none where nothing is. Returns 0.
    Raises StartError, LogError."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with (
        open_interactions(config) as interactions,
        closing(interactions.log.consumer(Stream.INTERACTIONS, group=group)) as consumer,
    ):
        entries = consumer.poll(PAGE, seconds=10 * SECONDS)
        if not entries:
            print(f"nothing new for group {group}", file=sys.stderr)
            return 0
        path = next_part(place, form)
        read = written = 0
        with (
            _right_answers(interactions, interactions.log.keys(Stream.FEEDBACK)) as right,
            _file(str(path)) as file,
            _progress() as bar,
        ):
            task = bar.add_task(group, total=None)
            rows = writer(form, file)
            while entries:
                read += len(entries)
                records = [record for _, record in interactions.opened(entries)]
                written += rows.write(records, right.of([record.id for record in records]))
                bar.update(task, completed=read)
                entries = consumer.poll(PAGE, seconds=SECONDS) if read < most else []
            rows.close()
        consumer.commit()
    _tell(str(path), read, written)
    return 0


@contextmanager
def _right_answers(interactions: Interactions, routes: Sequence[str]) -> Iterator[NewestRight]:
    """Those that clients have reported, in a temporary file that nobody else sees."""
    with closing(sqlite3.connect("")) as db:
        newest = NewestRight(db)
        for route in routes:
            for _, right in interactions.right_answers(route):
                newest.take(right)
        yield newest


@contextmanager
def _file(out: str) -> Iterator[BinaryIO]:
    """Appears whole, on the disk, or not at all."""
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    staging = path.with_name(f".{path.name}.tmp")
    try:
        with staging.open("wb") as file:
            yield file
        sync(staging)
        staging.replace(path)
        sync(path.parent)
    except OSError as error:
        raise StartError(f"{out} can't be written: {error.strerror}") from error
    finally:
        staging.unlink(missing_ok=True)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _tell(out: str, read: int, written: int) -> None:
    left = f"; {read - written} hold nothing that this format takes" if written < read else ""
    print(f"{out}: {written} of {read} records{left}", file=sys.stderr)
