"""Where a run was pushed to: ``pushed.json`` in its directory, which whoever pushes it replaces."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from clew.runs.files import read_json, write_json
from clew.runs.result import Remote

FILE = "pushed.json"


def save_remote(run_folder: Path, remote: Remote) -> None:
    """Note the last push that has succeeded."""
    write_json(run_folder / FILE, asdict(remote))


def read_remote(run_folder: Path) -> Remote | None:
    """Return what the last push that has succeeded left where; None when there was none."""
    try:
        return Remote(**read_json(run_folder / FILE))
    except (OSError, ValueError, TypeError):
        return None
