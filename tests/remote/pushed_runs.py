"""Runs for pushing: of the counting job, carried out in this process."""

from __future__ import annotations

from pathlib import Path

from clew.runs import Command, Run, State, Workspace
from clew.worker import work
from support import tiny_run


def attempt(run: Run, *, stop: bool = False) -> Run:
    """Carry out the next attempt; it ends after its first step if it is to stop."""
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    if stop:
        run.inbox.post(Command("stop", at=1))
    work(run, number)
    return run


def stopped_run(workspace: Workspace, name: str = "walk", **config: object) -> Run:
    """A run with one checkpoint and more to do."""
    return attempt(tiny_run(workspace, name=name, **config), stop=True)


def done_run(workspace: Workspace, name: str = "walk", **config: object) -> Run:
    return attempt(tiny_run(workspace, name=name, **config))


def tree(folder: Path, *without: str) -> dict[str, bytes]:
    """Every file below a folder, but those whose first part is left out."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name: content for name, content in found.items() if name.split("/")[0] not in without}
