"""Progress bars for a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from clew.cli.progress import Tracked
from clew.cli.text import clock, headline
from clew.runs import State

_MARKS = {State.COMPLETED: "[green]✓[/]", State.FAILED: "[red]✗[/]"}


class Bars:
    """One bar a run; a bar that has ended stays as its last line.

    Args:
        console: Where to; None means stdout.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._bars = _new(console)
        self._held = False
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, tracked: Tracked) -> None:
        """Add a bar, which moves to and fro until the run says how far it goes."""
        if self._held:
            self._held, self._bars = False, _new(self._console)
            self._bars.start()
        self._tasks[tracked.label] = self._bars.add_task(
            escape(tracked.label),
            total=None,
            mark=" ",
            count="",
            speed="",
            figure="",
            left="",
        )
        if tracked.is_loading:
            self.load(tracked)
        else:
            self.update(tracked)

    def load(self, tracked: Tracked) -> None:
        """Say in the place of the steps what it does, and for how long."""
        does = "starting" if tracked.attempt <= 1 else f"attempt {tracked.attempt} starts"
        passed = clock(time.monotonic() - tracked.since)
        self._bars.update(self._tasks[tracked.label], count=f"{does} ({tracked.loading}, {passed})")

    def update(self, tracked: Tracked) -> None:
        """Move the bar."""
        progress = tracked.progress
        self._bars.update(
            self._tasks[tracked.label],
            completed=progress.step,
            total=progress.total,
            count=f"{progress.step}/{progress.total or '?'} {progress.unit}",
            speed=progress.speed,
            figure=headline(progress.metrics),
            left=progress.remaining,
        )

    def end(self, tracked: Tracked, state: State) -> None:
        """Leave the bar as it is, with the time that the run took."""
        self.update(tracked)
        task = self._tasks.pop(tracked.label)
        left = f"{state} after {clock(time.monotonic() - tracked.since)}"
        self._bars.update(task, mark=_MARKS.get(state, "[yellow]·[/]"), left=left, speed="")
        self._bars.stop_task(task)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def hold(self) -> None:
        """Leave the bars as they stand; the next run gets new ones below."""
        self._bars.stop()
        self._held = True


def _new(console: Console | None) -> RichProgress:
    return RichProgress(
        TextColumn("{task.fields[mark]}"),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[speed]}", style="dim"),
        TextColumn("{task.fields[figure]}", style="cyan"),
        TextColumn("{task.fields[left]}", style="dim"),
        console=console,
    )
