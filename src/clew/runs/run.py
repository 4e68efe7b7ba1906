"""A run is a directory. This class knows its layout; it holds no state of its own."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clew.errors import UserError
from clew.runs.damage import readable
from clew.runs.files import read_json, sync_directory, write_atomically, write_json
from clew.runs.following import tracker_places
from clew.runs.ids import ulid
from clew.runs.inbox import Inbox
from clew.runs.journal import Event, read_events
from clew.runs.pushed import read_remote
from clew.runs.result import JobResult
from clew.runs.states import State, StateFile

FOLDERS = ("journal", "inbox", "checkpoints", "artifacts", "logs")


class RunExists(UserError):
    """The name of a run is taken."""


@dataclass(frozen=True)
class RunInfo:
    """The content of ``run.json``: written once, never changed."""

    id: str
    job: str
    """How the job is found: a registered name, ``package.module:name`` or ``path/file.py:name``."""
    config_hash: str = ""
    code_hash: str = ""
    target: str = "local"
    plan: str | None = None
    stage: str | None = None
    parent: str | None = None
    fork_step: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    """What a fork changed in the user's config: dotted key to value."""
    inherited: list[str] = field(default_factory=list)
    """The commands of the parent at the very step of the fork that were carried out before it."""
    replay_of: str | None = None
    """The run that this one does once more."""
    uid: str = field(default_factory=ulid)
    created: float = field(default_factory=time.time)


class Run:
    """One execution of a job, seen through its directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The run's id, which is its directory's name."""
        return self.path.name

    @property
    def info(self) -> RunInfo:
        """The identity of the run.

        Raises:
            DamagedRun: If ``run.json`` is gone or holds no identity.
        """
        with readable(self.path / "run.json"):
            return RunInfo(**read_json(self.path / "run.json"))

    @property
    def states(self) -> StateFile:
        """The state file."""
        return StateFile(self.path)

    @property
    def state(self) -> State:
        """The state as an observer on this machine may say it."""
        try:
            return self.states.read().observed(time.time())
        except (OSError, ValueError, KeyError, TypeError):
            return State.UNKNOWN

    @cached_property
    def inbox(self) -> Inbox:
        """Where commands to the run are put; one object, so that whoever listens hears at once what is put here."""
        return Inbox(self.path / "inbox")

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """The folder of published outputs."""
        return self.path / "artifacts"

    @property
    def config_path(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def result(self) -> JobResult | None:
        """The outcome; None while there is none. Trackers and pushes may come later than the worker's last word."""
        found = JobResult.load(self.path)
        if found is None:
            return None
        trackers = {**found.trackers, **tracker_places(self.path)}
        return replace(found, trackers=trackers, remote=read_remote(self.path) or found.remote)

    def make_folders(self) -> None:
        """Make the folders that a worker needs, of which somebody may have deleted one."""
        for name in FOLDERS:
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def log_path(self, attempt: int) -> Path:
        """Return the file that holds stdout and stderr of one attempt."""
        return self.path / "logs" / f"attempt-{attempt}.log"

    def rank_log_path(self, attempt: int, rank: int) -> Path:
        """Return the file that holds what one of several ranks has printed; the first prints to :meth:`log_path`.

        Args:
            attempt: Number of the attempt.
            rank: Which process.
        """
        return self.log_path(attempt) if rank == 0 else self.path / "logs" / f"attempt-{attempt}-rank{rank}.log"

    def busy_seconds(self) -> float:
        """Wall time of all attempts, each from its first event to its last."""
        spans: dict[int, tuple[float, float]] = {}
        for event in self.events():
            first, last = spans.get(event["attempt"], (event["t"], event["t"]))
            spans[event["attempt"]] = (min(first, event["t"]), max(last, event["t"]))
        return round(sum(last - first for first, last in spans.values()), 3)

    def events(self, *kinds: str) -> Iterator[Event]:
        """Yield journal events of the given kinds (all without any) as they count now."""
        return read_events(self.path / "journal", frozenset(kinds) or None)


def create_run(runs: Path, info: RunInfo, config_yaml: str, origins: Mapping[str, Any]) -> Run:
    """Make a run directory in state ``created``: whole under a hidden name first, then one rename.

    Raises:
        RunExists: If the name is taken.
        UserError: If the workspace cannot be written.
    """
    return publish_run(stage_run(runs, info, config_yaml, origins))


def stage_run(runs: Path, info: RunInfo, config_yaml: str, origins: Mapping[str, Any]) -> Run:
    """Make a run directory under a hidden name, where it is no run yet; :func:`publish_run` makes it one.

    Raises:
        UserError: If the workspace cannot be written.
    """
    staging = Run(runs / f".new-{info.id}-{info.uid}")
    try:
        staging.make_folders()
        write_atomically(staging.config_path, config_yaml)
        write_json(staging.path / "origins.json", dict(origins))
        staging.states.create()
        write_json(staging.path / "run.json", asdict(info))
    except OSError as error:
        shutil.rmtree(staging.path, ignore_errors=True)
        raise _unwritable(runs, error) from error
    return staging


def publish_run(staging: Run, **more: Any) -> Run:
    """Give a staged run its name.

    Args:
        staging: From :func:`stage_run`; gone if this fails.
        more: Fields of its :class:`RunInfo` that were not known before.

    Raises:
        RunExists: If the name is taken.
        UserError: If the workspace cannot be written.
    """
    info, runs = replace(staging.info, **more), staging.path.parent
    final = runs / info.id
    try:
        if more:
            write_json(staging.path / "run.json", asdict(info))
        staging.path.rename(final)
        sync_directory(runs)
    except OSError as error:
        shutil.rmtree(staging.path, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and final.is_dir():
            raise _taken(final) from None
        raise _unwritable(runs, error) from error
    return Run(final)


def _unwritable(runs: Path, error: OSError) -> UserError:
    return UserError(
        f"the workspace cannot be written: {error.strerror}",
        where=str(runs),
        hint="choose another one with --workspace DIR or CLEW_WORKSPACE",
    )


def _taken(folder: Path) -> UserError:
    if not (folder / "run.json").is_file():
        what, hint = "a folder is in the way that is no run: run.json is gone", "move it away, or choose another --name"
        return UserError(what, where=str(folder), hint=hint)
    hint = f"choose another --name, or go on with it: clew resume {folder.name}"
    return RunExists(f"a run named {folder.name!r} exists already", where=str(folder), hint=hint)
