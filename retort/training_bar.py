"""One bar that shows the phases of a training in this process, one after the other, each with an estimate."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from retrainer.errors import Interrupted


class TrainingBar:
    """A retrainer's Progress; use as a context manager. Nothing is drawn where nobody watches. `before`: said before
    each phase's name, such as which trial it is. `unwanted`: whether the work should end."""

    def __init__(self, unwanted: Callable[[], bool] = lambda: False) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:28s}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._bars.add_task("starting", total=None, left="")
        self.before = ""
        self._unwanted = unwanted

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, phase: str, done: int, total: int, seconds_left: float | None) -> None:
        """See Progress. Raises Interrupted."""
        if self._unwanted():
            raise Interrupted
        left = "" if seconds_left is None else f"{seconds_left:.0f} s left"
        said = f"{self.before}{phase}"
        self._bars.update(self._bar, description=said, completed=done, total=total, left=left)
