"""Many questions at once; each answer goes to the collector, and what is durable is noted, so that a repeated run goes
on where this one ended."""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from rich.progress import MofNCompleteColumn

from collector.record import Usage
from retort.bar import open_bar
from retort.bootstrap.prompts import CutShort, Task
from retort.bootstrap.teacher import Teacher
from retort.errors import StartError
from retort.imports import Foreign, Unusable
from retort.imports.exchange import Target, frame
from retort.imports.intake import Intake

FAILED_IN_A_ROW = 20  # after so many without an answer between them, something is wrong that asking on won't mend
# What is wrong with one prompt alone, if others are answered: all have the same parameters.
_OF_ONE = ("http_400", "http_413", "http_422", "no_user")


class Told(msgspec.Struct, kw_only=True):
    """What came of a run. `tasks`: in the file; `before`: labelled by earlier runs. `exchanges`: in the log now.
    `left_out`: tasks by the reason why they have no label; a repeated run asks for them again."""

    route: str
    teacher: str
    tasks: int
    before: int
    labelled: int = 0
    exchanges: int = 0
    left_out: dict[str, int] = {}
    calls: int = 0
    used: Usage = Usage()
    usd: float | None = None
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """For people."""
        usd = "" if self.usd is None else f", {self.usd:,.4f} USD"
        before = f", {self.before} were before" if self.before else ""
        used = f"{self.used.prompt_tokens:,} tokens in, {self.used.completion_tokens:,} out"
        rows = [f"  {count} not: {reason}" for reason, count in sorted(self.left_out.items())]
        return [
            f"{self.route}: {self.labelled} of {self.tasks} labelled by {self.teacher}{before}",
            f"  {self.exchanges} exchanges; {self.calls} calls in {self.seconds:.0f} s, {used}{usd}",
            *rows,
        ]


class Done:
    """Keyed digests of what has been labelled, a line each; no text. Raises StartError where another process labels the
    same route: both would pay for the same."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise StartError("another `retort bootstrap` labels this route; wait for its end") from None
        self._file.seek(0)
        self._keys = set(self._file.read().split("\n"))

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, keys: list[str]) -> None:
        """Durably. A line that a crash cut in two is a digest of nothing."""
        self._file.write("\n".join(["", *keys, ""]))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._keys.update(keys)

    def close(self) -> None:
        """Let another process label the route."""
        self._file.close()


class Labelling:
    """One run, with at most `most` questions at once."""

    def __init__(
        self, teacher: Teacher, target: Target, done: Done, told: Told, *, temperature: float | None, most: int
    ) -> None:
        self._teacher, self._target, self._done, self._told = teacher, target, done, told
        self._temperature, self._most = temperature, most
        # Whoever asks waits for the collector: what isn't durable when this process is killed is asked for again.
        self._answered: asyncio.Queue[tuple[str | None, list[Foreign]] | None] = asyncio.Queue(most)
        self._failures, self._answers = 0, False
        self._broke: StartError | None = None

    async def run(self, state: str, tasks: Mapping[str, Task]) -> None:
        """Ask for all. Raises StartError, Unreachable, CollectorUnavailable."""
        async with Intake(state) as intake:
            with open_bar(MofNCompleteColumn()) as bar:
                row = bar.add_task(self._target.route, total=len(tasks))
                waiting = iter(tasks.items())
                try:
                    async with asyncio.TaskGroup() as group:
                        asking = [group.create_task(self._ask(waiting)) for _ in range(self._most)]
                        group.create_task(self._keep(intake, lambda: bar.update(row, completed=self._settled)))
                        await asyncio.wait(asking)
                        await self._answered.put(None)
                except* Exception as errors:  # the first says what happened; the others were ended by it
                    raise errors.exceptions[0] from None
        if self._broke is not None:  # what had been answered is kept
            raise self._broke

    @property
    def _settled(self) -> int:
        return self._told.labelled + sum(self._told.left_out.values())

    async def _ask(self, waiting: Iterator[tuple[str, Task]]) -> None:
        for key, task in waiting:
            if self._broke is not None:
                return
            try:
                found = await task.run(self._teacher, self._temperature, f"bootstrap-{key}")
            except Unusable as error:
                self._leave_out(error)
                self._failures += str(error) not in _OF_ONE or not self._answers
                if self._failures >= FAILED_IN_A_ROW:
                    said = f"{self._failures} in a row were not answered, the last one: {error}"
                    self._broke = self._broke or StartError(said)
                if isinstance(error, CutShort):  # what it has said is kept; it is asked for again
                    await self._answered.put((None, error.exchanges))
            else:
                self._failures, self._answers = 0, True
                await self._answered.put((key, found))

    async def _keep(self, intake: Intake, show: Callable[[], None]) -> None:
        """Send what has been answered; when it is durable, note it. What comes meanwhile waits for the next round."""
        last = False
        while not last:
            batch = [await self._answered.get()]
            while not self._answered.empty():
                batch.append(self._answered.get_nowait())
            keys = []
            for item in batch:
                if item is None:
                    last = True
                else:
                    keys += await self._send(intake, *item)
            await intake.settle()
            self._told.exchanges = intake.durable
            if keys:
                self._done.add(keys)
                self._told.labelled += len(keys)
            show()

    async def _send(self, intake: Intake, key: str | None, found: list[Foreign]) -> list[str]:
        """The key, where it is labelled now: where one exchange of its conversation can be kept."""
        kept, why = 0, None
        for one in found:
            try:
                # Whatever the provider calls the model that answered: it was asked for this one, and nobody else.
                made = frame(one, msgspec.structs.replace(self._target, aliases=one.models))
            except Unusable as error:
                why = error
                continue
            await intake.send(made)
            kept += 1
        if key is None:
            return []
        if not kept and why is not None:
            self._leave_out(why)
            return []
        return [key]

    def _leave_out(self, why: Unusable) -> None:
        self._told.left_out[str(why)] = self._told.left_out.get(str(why), 0) + 1
