"""The demo's live progress: counts, a training cycle's phase, evidence against its boundary."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from retort.demo.watch import Watch
from retrainer import Standing


class Bars:
    """A few bars, drawn while the block lasts."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:34s}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=console, refresh_per_second=4)
        self._tasks: dict[str, TaskID] = {}
        self._following: list[asyncio.Task[None]] = []

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._following:
            task.cancel()
        self._bars.stop()

    def follow(self, name: str, total: int, count: Callable[[], int]) -> None:
        """A bar that follows a count."""

        async def watch() -> None:
            while True:
                self._set(name, count(), total, f"{count()}/{total}")
                await asyncio.sleep(0.25)

        self._following.append(asyncio.create_task(watch()))

    def cycle(self, standing: Standing | None) -> None:
        """A training cycle's phase, with the estimate of what is left of it."""
        if standing:
            left = "" if standing.seconds_left is None else f", {standing.seconds_left:.0f} s left"
            self._set(standing.phase, standing.done, standing.total, f"{standing.done}/{standing.total}{left}")

    async def evidence(self, watch: Watch, version: str) -> None:
        """A version's tests and alarms against their boundaries, in log e-values, until cancelled."""
        while True:
            moment = watch.look()
            if moment is not None:
                for kind, rows in (("test", moment.tests), ("alarm", moment.alarms)):
                    for key, (value, boundary) in rows.items():
                        owner, _, name = key.partition(" ")
                        if owner == version:
                            text = f"log e {value:6.2f} of {boundary:.2f}"
                            self._set(f"{kind} {name}", max(value, 0.0), boundary, text)
                share = moment.fraction if moment.challenger == version else float(moment.live == version)
                self._set("traffic share", share, 1.0, f"{share:.0%}")
            await asyncio.sleep(0.5)

    def _set(self, name: str, done: float, total: float, text: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, text=text)
        self._bars.update(self._tasks[name], completed=min(done, total), total=total, text=text)
