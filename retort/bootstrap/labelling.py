"""Many questions at once; each answer goes to the collector, and what is durable is noted, so that a repeated run goes
on where this one ended."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from rich.progress import MofNCompleteColumn

from collector.record import Usage
from retort.bar import open_bar
from retort.bootstrap.prompts import Task
from retort.bootstrap.teacher import Teacher
from retort.errors import StartError
from retort.imports import Foreign, Unusable
from retort.imports.exchange import Target, frame
from retort.imports.intake import Intake

FAILED_IN_A_ROW = 20  # after so many without an answer between them, something is wrong that asking on won't mend


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
    """Keyed digests of what has been labelled, a line each; no text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._keys = set(path.read_text().split("\n")) if path.exists() else set()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, keys: list[str]) -> None:
        """Durably. A line that a crash cut in two is a digest of nothing."""
        with self._path.open("a") as file:
            file.write("\n".join(["", *keys, ""]))
            file.flush()
            os.fsync(file.fileno())
        self._keys.update(keys)


class Labelling:
    """One run, with at most `most` questions at once."""

    def __init__(
        self, teacher: Teacher, target: Target, done: Done, told: Told, *, temperature: float | None, most: int
    ) -> None:
        self._teacher, self._target, self._done, self._told = teacher, target, done, told
        self._temperature, self._most = temperature, most
        # Whoever asks waits for the collector: what isn't durable when this process is killed is asked for again.
        self._answered: asyncio.Queue[tuple[str, list[Foreign]] | None] = asyncio.Queue(most)
        self._failures = 0

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

    @property
    def _settled(self) -> int:
        return self._told.labelled + sum(self._told.left_out.values())

    async def _ask(self, waiting: Iterator[tuple[str, Task]]) -> None:
        for key, task in waiting:
            try:
                found = await task.run(self._teacher, self._temperature, f"bootstrap-{key}")
            except Unusable as error:
                self._leave_out(error)
                self._failures += 1
                if self._failures >= FAILED_IN_A_ROW:
                    raise StartError(f"{self._failures} in a row were not answered, the last one: {error}") from error
            else:
                self._failures = 0
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
                elif await self._send(intake, item[1]):
                    keys.append(item[0])
            await intake.settle()
            self._told.exchanges = intake.durable
            if keys:
                self._done.add(keys)
                self._told.labelled += len(keys)
            show()

    async def _send(self, intake: Intake, found: list[Foreign]) -> bool:
        try:
            # Whatever the provider calls the model that answered: it was asked for this one, and nobody else.
            made = [frame(one, msgspec.structs.replace(self._target, aliases=one.models)) for one in found]
        except Unusable as error:
            self._leave_out(error)
            return False
        for exchange in made:
            await intake.send(exchange)
        return True

    def _leave_out(self, why: Unusable) -> None:
        self._told.left_out[str(why)] = self._told.left_out.get(str(why), 0) + 1
