"""Whom a run descends from, and who descends from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clew.errors import ClewError
from clew.runs import Run, RunInfo, State


@dataclass(frozen=True)
class Relative:
    """A run that another one was forked from, or the other way round.

    Attributes:
        name: Its id.
        step: The step at which they part; None where nobody noted it.
        state: How it stands; None for a parent that is not here.
    """

    name: str
    step: int | None
    state: State | None

    def __str__(self) -> str:
        return self.name if self.step is None else f"{self.name}@{self.step}"


class Kin:
    """Looks for the relatives of a run in its workspace; the folder of runs is read again only when it has changed.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self._runs = run.path.parent
        self._name = run.id
        self._info = _info(run)
        self._changed = -1
        self._known: dict[str, RunInfo | None] = {}

    @property
    def parent(self) -> Relative | None:
        """The run that it was forked from."""
        if self._info is None or not self._info.parent:
            return None
        name = self._info.parent
        return Relative(name, self._info.fork_step, _state(self._runs / name))

    def children(self) -> tuple[Relative, ...]:
        """Return the runs that were forked from it, in the order of their names."""
        changed = self._runs.stat().st_mtime_ns
        if changed != self._changed:
            self._changed = changed
            self._list()
        mine = [(name, info) for name, info in sorted(self._known.items()) if info and info.parent == self._name]
        return tuple(Relative(name, info.fork_step, _state(self._runs / name)) for name, info in mine)

    def _list(self) -> None:
        names = [path.parent.name for path in self._runs.glob("*/run.json") if not path.parent.name.startswith(".")]
        self._known = {name: self._known.get(name) or _info(Run(self._runs / name)) for name in names}


def _info(run: Run) -> RunInfo | None:
    try:
        return run.info
    except (ClewError, OSError):
        return None


def _state(folder: Path) -> State | None:
    return Run(folder).state if (folder / "run.json").is_file() else None
