"""Waits for a run to carry a long command out, and shows how far it is: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from clew.cli.displays import SILENCE_SECONDS
from clew.cli.progress import loading
from clew.cli.text import clock, is_terminal
from clew.errors import RunFailed
from clew.logs.setup import present
from clew.runs import Event, JournalTail, Run, State
from clew.runs.journal import journal_files
from clew.runs.states import OWNED
from clew.session.commands import APPLIED
from clew.session.live import Refused

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_POLL_SECONDS = 0.05


class Looking:
    """Reads a run's journal from here on: shows the progress that it tells, and notices what becomes of a command.

    It is a watcher of runs as well (:class:`clew.targets.watching.Watcher`).

    Args:
        run: Whose journal.
        name: What it is called before people; empty is its id.
    """

    def __init__(self, run: Run, name: str = "") -> None:
        sizes = {path.name: path.stat().st_size for path, *_ in journal_files(run.path / "journal")}
        self.command = ""
        self._loading: tuple[str, float] | None = None
        self.answer: Event | None = None
        self._run = run
        self._name = name or run.id
        self._tail = JournalTail(run.path / "journal", sizes)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said: tuple[str, int] = ("", 0)

    def __enter__(self) -> Self:
        if is_terminal() and present().level != "quiet":
            from rich.progress import Progress

            self._bar = Progress(transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def wait(self, seconds: float = math.inf) -> None:
        """Return when the command is settled; RunFailed if the run ends before, or the time is up."""
        deadline = time.monotonic() + seconds
        while True:
            state = self._run.state  # before the journal: what is settled before the end is seen
            self.tick()
            if self.answer is not None:
                return
            if state not in OWNED:
                raise RunFailed(f"the run ended before it could do that: {state}", where=self._name)
            if time.monotonic() > deadline:
                what = f"it has not answered within {seconds:g} s; the command {self.command} still waits"
                raise RunFailed(what, where=self._name)
            time.sleep(_POLL_SECONDS)

    def result(self) -> Mapping[str, Any]:
        """Return what the journal says of the command that was carried out; Refused if it was not."""
        assert self.answer is not None, "it was waited for"
        if self.answer["outcome"] != APPLIED:
            raise Refused(f"{self.answer['verb']} {self.answer['outcome']}", where=self._name)
        result: Mapping[str, Any] = self.answer.get("result") or {}
        return result

    def started(self, label: str, run: Run) -> None:
        """Know that its worker loads what it needs, until it says how far it is."""
        self._loading = loading(run.info.job), time.monotonic()

    def reused(self, label: str, run: Run) -> None:
        """Show nothing."""

    def ended(self, label: str, run: Run, state: State) -> None:
        """Read the last of it."""
        self.tick()

    def tick(self) -> None:
        """Read on."""
        for event in self._tail.poll():
            if event["kind"] == "progress":
                self._loading = None
                self._show(event["done"], event["total"], event["what"])
            elif event["kind"] == "command" and event.get("id") == self.command:
                self._loading, self.answer = None, event
        if self._loading is not None:
            self._show_loading(*self._loading)

    def _show_loading(self, does: str, since: float) -> None:
        """As a line, once, when it is worth one."""
        passed = time.monotonic() - since
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(self._name, total=None)
            self._bar.update(self._task, description=f"{self._name}: {does}, {clock(passed)}")
        elif passed >= SILENCE_SECONDS and present().level != "quiet":
            self._loading = None
            print(f"{self._name}: {does}", flush=True)

    def _show(self, done: int, total: int, what: str) -> None:
        """As lines, one for each tenth of the way."""
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(self._name, total=total)
            self._bar.update(self._task, completed=done, total=total, description=f"{self._name}: {what}")
        elif present().level != "quiet" and (mark := (what, 10 * done // max(1, total))) != self._said:
            self._said = mark
            print(f"{self._name}: {done:,} of {total:,} {what}", flush=True)
