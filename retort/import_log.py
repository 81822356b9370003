"""`retort import ROUTE FILE`: another system's log, through the collector and its scrubber, into a route's own.

Texts go to the collector alone, in memory: nothing unscrubbed touches a disk here.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from rich.progress import Progress, TaskID, TaskProgressColumn, TextColumn

from collector import CollectorUnavailable
from gateway.cluster import load_salt
from retort.bar import open_bar
from retort.errors import StartError
from retort.imports import FORMATS, WRONG, Broken, Source, Unusable, Value, format_of, opened, values
from retort.imports.exchange import Target, frame
from retort.imports.intake import Intake
from router import Config

LOOKED_AT = 50  # records, to tell the format
SHOWN = 5  # places of each reason


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says. `teacher`: default the route's first. See docs/data-in-and-out.md."""

    format: str | None = None
    teacher: str | None = None
    aliases: tuple[str, ...] = ()
    any_model: bool = False
    consented: bool = False
    strict: bool = False


class LeftOut(msgspec.Struct):
    """How many records, or exchanges of a record, were not imported for one reason, and where the first stand."""

    count: int = 0
    places: list[int] = []


class Tally(msgspec.Struct):
    """What became of a file's records. `imported`: exchanges that are durable; a record may hold several. `places`:
    lines or records. `broken`: why the file was not read to its end."""

    route: str
    format: str
    places: str
    records: int = 0
    imported: int = 0
    left_out: dict[str, LeftOut] = {}
    broken: str | None = None

    def leave_out(self, reason: str, place: int) -> None:
        """Count one."""
        row = self.left_out.setdefault(reason, LeftOut())
        row.count += 1
        if len(row.places) < SHOWN:
            row.places.append(place)


def import_log(config: Config, route: str, file: str, options: ImportOptions, *, as_json: bool = False) -> int:
    """Returns 0, or 1 where nothing at all was imported or the file broke off. Raises StartError."""
    target = target_of(config, route, options)
    try:
        with opened(file) as source:
            tally = Tally(route, target.format, source.places)
            found = _until_broken(source, tally)
            first = list(itertools.islice(found, LOOKED_AT))
            tally.format = _format(file, source, first, target.format, tally.broken)
            target = msgspec.structs.replace(target, format=tally.format)
            importing = _Import(config, target, tally, strict=options.strict)
            asyncio.run(importing.run(source, itertools.chain(first, found)))
    except (OSError, Broken) as error:
        raise StartError(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}") from error
    except CollectorUnavailable as error:
        raise StartError(f"{error} Start Retort first (retort up), then repeat the command.") from error
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(tally)).decode())
    else:
        print("\n".join(_lines(file, target, tally)))
    return int(tally.imported == 0 or tally.broken is not None)


class _Import:
    """One run. A batch is read, sent, and waited for until it is durable; then comes the next."""

    def __init__(self, config: Config, target: Target, tally: Tally, *, strict: bool) -> None:
        self._target = target
        self._tally = tally
        self._strict = strict
        self._read = FORMATS[target.format].read
        self._intake = Intake(config.state)

    async def run(self, source: Source, found: Iterator[Value]) -> None:
        """Raises CollectorUnavailable; with `strict`, StartError at the first record that can't be used."""
        async with self._intake:
            said = TextColumn("{task.fields[records]} records, {task.fields[imported]} imported")
            with open_bar(TaskProgressColumn(), said) as bar:  # of the file's bytes
                task = bar.add_task(self._target.route, total=source.size, records=0, imported=0)
                for value in found:
                    await self._take(value)
                    self._show(bar, task, source)
                await self._intake.settle()
                self._show(bar, task, source)

    def _show(self, bar: Progress, task: TaskID, source: Source) -> None:
        tally = self._tally
        tally.imported = self._intake.durable
        bar.update(task, completed=source.read, records=tally.records, imported=tally.imported)

    async def _take(self, value: Value) -> None:
        self._tally.records += 1
        try:
            if value.wrong:
                raise Unusable(value.wrong)
            found = self._read(value.data)
        except Unusable as error:
            return await self._leave_out(error, value.place)
        for foreign in found:
            try:
                made = frame(foreign, self._target)
            except Unusable as error:
                await self._leave_out(error, value.place)
                continue
            await self._intake.send(made)

    async def _leave_out(self, why: Unusable, place: int) -> None:
        self._tally.leave_out(str(why), place)
        if self._strict:
            await self._intake.settle()
            where = f"{self._tally.places.removesuffix('s')} {place}"
            raise StartError(f"{where}: {why}; {self._intake.durable} exchanges before it are imported")


def target_of(config: Config, route: str, options: ImportOptions) -> Target:
    """What may be imported, and whose answers it is. Raises StartError."""
    policy = config.routes.get(route)
    if policy is None:
        raise StartError(f"no route {route!r}; the configuration has: {', '.join(sorted(config.routes))}")
    if policy.capture.rate == 0.0:
        raise StartError(f"routes.{route}.capture.rate is 0: nothing of this route is kept, so nothing is imported")
    if policy.capture.consent == "opt-in" and not options.consented:
        raise StartError(
            f"routes.{route}.capture.consent is opt-in: give --consented if all whose texts are in the file have agreed"
        )
    teacher = options.teacher or policy.teachers[0]
    if teacher not in policy.teachers:
        raise StartError(f"--teacher {teacher!r} is none of the route's: {', '.join(policy.teachers)}")
    allowed = [t for t in policy.teachers if config.upstreams[t.partition("/")[0]].distillation_allowed]
    if teacher not in allowed:
        upstream = teacher.partition("/")[0]
        raise StartError(
            f"a student would learn from {teacher!r}, but upstreams.{upstream}.distillation_allowed is not true; read "
            "the provider's terms, then set it"
        )
    return Target(
        route=route,
        policy=policy,
        format=options.format or "",
        teacher=teacher,
        allowed=allowed,
        aliases=options.aliases,
        any_model=options.any_model,
        salt=load_salt(config.state),
        now=time.time(),
    )


def _until_broken(source: Source, tally: Tally) -> Iterator[Value]:
    try:
        yield from values(source)
    except Broken as error:
        tally.broken = str(error)


def _format(file: str, source: Source, first: Sequence[Value], given: str, broken: str | None) -> str:
    """The user's, else what the first records tell. Raises StartError where they are none."""
    good = [value.data for value in first if not value.wrong]
    found = given or next(filter(None, map(format_of, good)), "")
    if not first and (broken or source.shape != "table"):
        why = broken or ("it is empty" if source.shape == "lines" else "it holds no record")
    elif source.shape == "table" and not _is_table(good, given):
        tables = " or ".join(sorted(name for name, known in FORMATS.items() if known.tables))
        raise StartError(
            f"{file}: line 1 is no JSON object, nor the header of a table of {tables}; write JSON lines, as "
            "docs/data-in-and-out.md shows them"
        )
    elif found:
        return found
    elif not good:
        why = (
            f"{source.places.removesuffix('s')} {first[0].place} is {WRONG[first[0].wrong]}, and no later one is better"
        )
    else:
        why = "its first records are of no known format"
    raise StartError(f"{file}: {why}; say --format {'|'.join(sorted(FORMATS))}")


def _is_table(rows: Sequence[Mapping[str, Any]], given: str) -> bool:
    """Whether the columns are some system's."""
    known = [FORMATS[name] for name in ((given,) if given else FORMATS) if FORMATS[name].tables]
    return any(form.is_one(row) for form in known for row in rows)


def _lines(file: str, target: Target, tally: Tally) -> list[str]:
    lines = [
        f"{tally.route}: {tally.imported} exchanges of {tally.records} records imported from {file} ({tally.format}); "
        "those that the log had before are in it once"
    ]
    for reason, row in sorted(tally.left_out.items(), key=lambda item: -item[1].count):
        more = ", ..." if row.count > len(row.places) else ""
        lines.append(f"  {row.count} not: {reason} ({tally.places} {', '.join(map(str, row.places))}{more})")
    if "other_model" in tally.left_out:
        known = ", ".join(target.policy.teachers)
        lines.append(f"  the route's teachers are {known}; --alias NAME says that a name is one, --any-model takes all")
    if tally.broken:
        lines.append(f"  the rest was not read: {tally.broken}")
    return lines
