"""What somebody who follows a run has noted in its directory: ``following/<name>.json``, one file for each follower."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from clew.runs.files import read_json, write_json

FOLDER = "following"

Status = Literal["following", "retrying", "done", "given up"]


@dataclass(frozen=True)
class Record:
    """How far a follower has come."""

    name: str
    kind: str
    """What it is: ``tracker``, or whatever else follows runs."""
    status: Status = "following"
    attempt: int = 0
    """The attempt whose end it has seen, when it is done."""
    place: str = ""
    """A URL or a folder where the run can be seen."""
    error: str = ""
    """Why it does not get on; empty when it does."""
    offsets: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each journal file that have been handed on."""
    events: int = 0
    """Events that have been handed on, superseded ones included."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """What the follower itself wants to know the next time, such as the run's id in a tracker."""

    def save(self, run_folder: Path) -> None:
        """Replace the file atomically."""
        (run_folder / FOLDER).mkdir(exist_ok=True)
        write_json(record_path(run_folder, self.name), asdict(self))


def record_path(run_folder: Path, name: str) -> Path:
    """Return the file that holds a follower's record."""
    return run_folder / FOLDER / f"{name}.json"


def lock_path(run_folder: Path, name: str) -> Path:
    """Return the file that is locked by the process in which a follower lives."""
    return run_folder / FOLDER / f".{name}.lock"


def is_followed(run_folder: Path, name: str) -> bool:
    """Say whether a process of this machine follows the run under that name."""
    try:
        with lock_path(run_folder, name).open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_record(path: Path) -> Record | None:
    """Read a record; None when there is none that can be read."""
    try:
        return Record(**read_json(path))
    except (OSError, ValueError, TypeError):
        return None


def read_records(run_folder: Path, kind: str) -> list[Record]:
    """Return the records of all followers of a kind, by name."""
    found = [read_record(path) for path in sorted((run_folder / FOLDER).glob("*.json"))]
    return [record for record in found if record is not None and record.kind == kind]


def by_hand(run: str, kind: str) -> str:
    """Say how what a follower did not do is done by hand."""
    return f"clew push {run} URL sends it" if kind == "push" else f"clew track {run} catches up"


def trouble_of(run_folder: Path, record: Record) -> str:
    """Say in a line why a follower does not get everything, and what to do; empty when all is well."""
    catch_up = by_hand(run_folder.name, record.kind)
    if record.status == "given up":
        return f"given up: {record.error}; {catch_up}"
    if record.status == "done" or is_followed(run_folder, record.name):
        return f"{record.error}; trying again" if record.error else ""
    return f"nobody follows the run any more{record.error and f': {record.error}'}; {catch_up}"


def tracker_places(run_folder: Path) -> dict[str, str]:
    """Return where each tracker shows the run, for those that know it by now."""
    return {record.name: record.place for record in read_records(run_folder, "tracker") if record.place}
