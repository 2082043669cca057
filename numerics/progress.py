"""A progress bar that is silent unless asked for, on standard error: standard output is for results."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """A context manager around one bar.

    Args:
        shown: whether anything is printed.
        title: what is being done.
        total: number of steps.
    """

    def __init__(self, shown: bool, title: str, total: int) -> None:
        self.shown = bool(shown)
        self._bar = None
        if self.shown:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = RichProgress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(title, total=total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, steps: int) -> None:
        """So many more steps are done."""
        if self._bar is not None:
            self._bar.advance(self._task, steps)
