"""A workspace: the folder that holds ``runs/`` and ``plans/``."""

from __future__ import annotations

import os
from pathlib import Path

from clew.errors import UserError, did_you_mean
from clew.runs.run import Run

VARIABLE = "CLEW_WORKSPACE"


class Workspace:
    """The runs and plans below one folder.

    Args:
        root: The folder; None takes ``$CLEW_WORKSPACE``, else the current directory.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or os.environ.get(VARIABLE) or ".").absolute()

    @property
    def runs(self) -> Path:
        """The folder of runs."""
        return self.root / "runs"

    @property
    def plans(self) -> Path:
        """The folder of plans."""
        return self.root / "plans"

    @property
    def environment(self) -> Path | None:
        """The workspace's ``clew.yaml`` with what is true of this machine; None when there is none."""
        path = self.root / "clew.yaml"
        return path if path.is_file() else None

    def list_runs(self) -> list[Run]:
        """Return every run, the oldest first."""
        return [Run(path) for path in sorted(self._folders(), key=lambda path: (path / "run.json").stat().st_mtime)]

    def find_run(self, name: str) -> Run:
        """Return the run of that name; a path to its directory is taken too.

        Raises:
            UserError: If there is none; with the nearest name.
        """
        for path in (self.runs / name, Path(name).absolute()):
            if name and (path / "run.json").is_file():
                return Run(path)
        names = [path.name for path in self._folders()]
        hint = did_you_mean(name, names) if len(names) <= 12 or name else ""
        raise UserError(f"there is no run {name!r}", where=str(self.runs), hint=hint or "clew ls shows what there is")

    def _folders(self) -> list[Path]:
        """Return the folders of runs; hidden ones are being made or thrown away."""
        return [path.parent for path in self.runs.glob("*/run.json") if not path.parent.name.startswith(".")]
