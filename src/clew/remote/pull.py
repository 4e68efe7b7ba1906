"""Fetching a run from a location, to go on with it here."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clew.errors import UserError
from clew.remote.bundle import RUN_FOLDER, link
from clew.remote.errors import TRIES, RemoteError, patiently
from clew.remote.location import Head, Location, fetch_checked, open_location
from clew.remote.manifest import Entry
from clew.remote.objects import NO_SPACE
from clew.runs import FINAL, Owner, Run, RunInfo, RunState, State, Workspace
from clew.runs.files import read_json, sync_directory, sync_tree, write_json
from clew.runs.ids import NAME, NAME_IN_WORDS
from clew.runs.run import FOLDERS
from clew.runs.states import OWNED

_PATHS = re.compile(
    r"run\.json|config\.yaml|origins\.json|result\.json|journal/\d+-\d+\.jsonl"
    r"|checkpoints/step-\d+/(?!\.).+|artifacts/(?!\.).+"
)


@dataclass(frozen=True)
class Pulled:
    """What came of a pull."""

    run: Run
    bytes: int
    """What was fetched; 0 when all of it was here."""
    missing: tuple[str, ...]
    """In words: what the run reads and is not here as it was where it was made."""


def pull(url: str, workspace: Workspace, *, name: str = "", revision: str = "") -> Pulled:
    """Make the directory of a run that was pushed, so that it can be resumed here.

    Every file is verified before the directory appears; nothing that is fetched is executed or unpickled.

    Args:
        url: Where it is.
        workspace: Where to put it.
        name: The run's name here; empty takes the one it had.
        revision: A branch, tag or commit of a repository.

    Raises:
        UserError: If there is no run, or the one here has gone another way.
        RemoteError: If it cannot be fetched, or something does not match its hash.
    """
    location = open_location(url, revision=revision)
    for number in range(TRIES):
        head = patiently(location.head)
        files = _run_files(head, url)
        about = head.manifest.about if head and head.manifest else {}
        target = _target(workspace, name or str(about.get("run", "")), url)
        assert head is not None
        try:
            return _pull(location, head, files, about, target)
        except RemoteError:
            now = location.head()
            if number == TRIES - 1 or now is None or now.revision == head.revision:
                raise  # otherwise it was replaced while we read
    raise AssertionError("the last try returns or raises")


def _run_files(head: Head | None, url: str) -> dict[str, Entry]:
    """Return what belongs into the run's directory: path in it to its entry."""
    if head is None:
        raise UserError("there is nothing there, or nothing that may be seen", where=url)
    known = head.manifest.files if head.manifest else {}
    files = {
        path.removeprefix(f"{RUN_FOLDER}/"): entry for path, entry in known.items() if path.startswith(f"{RUN_FOLDER}/")
    }
    if not {"run.json", "config.yaml", "origins.json"} <= set(files):
        raise UserError("no run is there", where=url, hint=f"what is there may be used as a model: model={url}")
    for path in files:
        if not _PATHS.fullmatch(path):
            raise RemoteError(f"{path!r} does not belong into the directory of a run", where=url)
    return files


def _target(workspace: Workspace, name: str, url: str) -> Path:
    if not re.fullmatch(NAME, name):
        raise UserError(
            f"{name!r} cannot be the name of a run", where=url, hint=f"give it one with --name, made of {NAME_IN_WORDS}"
        )
    if (workspace.plans / name).exists():
        raise UserError(f"a pipeline named {name!r} exists already", where=url, hint="choose another --name")
    return workspace.runs / name


def _pull(location: Location, head: Head, files: Mapping[str, Entry], about: Mapping[str, Any], target: Path) -> Pulled:
    with _staging(target) as staging:
        here = target if _check_present(target, about, location.url) else None
        journal = sorted(path for path in files if path.startswith("journal/"))
        fetched = sum(_take(location, head, path, files[path], here, staging) for path in journal)
        if here is not None:  # before anything large is fetched
            _check_journal(here, staging)
        rest = sorted(set(files) - set(journal))
        fetched += sum(_take(location, head, path, files[path], here, staging) for path in rest)
        _finish(staging, target.name, about, location.url)
        if here is not None:
            _keep_logs(here, staging)
        sync_tree(staging)
        _swap(staging, target)
    run = Run(target)
    return Pulled(run, fetched, tuple(_missing(run)))


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, which is gone again if anything goes wrong."""
    staging = target.with_name(f".new-{target.name}-{os.getpid()}")
    _tidy(target)
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
    except OSError as error:
        if error.errno in NO_SPACE:
            hint = "nothing is left of what was fetched; make room, or choose another --workspace"
            raise UserError("the disk is full", where=str(target.parent), hint=hint) from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_present(target: Path, about: Mapping[str, Any], url: str) -> bool:
    """Say whether the run is here already.

    Raises:
        UserError: If another run has its name, it is alive, or it is further than what would replace it.
    """
    run = Run(target)
    if not (target / "run.json").is_file():
        return False
    if run.info.uid != about.get("uid"):
        raise UserError(f"another run named {run.id!r} is here", where=url, hint="give it a --name")
    now = run.states.read()
    if now.observed(time.time()) in OWNED:
        raise UserError("this run is alive here", where=run.id, hint=f"clew stop {run.id} ends it")
    if now.attempt > int(about.get("attempt", 0)):
        raise _gone_further(run)
    return True


def _check_journal(target: Path, staging: Path) -> None:
    """Everything that is known here must be the beginning of what is known there."""
    for path in (target / "journal").glob("*.jsonl"):
        fetched = staging / "journal" / path.name
        if not fetched.is_file() or not _is_beginning(path, fetched):
            raise _gone_further(Run(target))


def _is_beginning(path: Path, whole: Path) -> bool:
    with path.open("rb") as first, whole.open("rb") as second:
        while chunk := first.read(1 << 20):
            if second.read(len(chunk)) != chunk:
                return False
    return True


def _gone_further(run: Run) -> UserError:
    return UserError(
        "this run has gone further here than there",
        where=run.id,
        hint=f"go on here with clew resume {run.id}, or take the other as a run of its own with --name",
    )


def _take(location: Location, head: Head, path: str, entry: Entry, here: Path | None, staging: Path) -> int:
    """Fetch one file, unless the same one is here; return the bytes that were fetched."""
    target = staging / path
    same = here / path if here else None
    if same is not None and same.is_file() and Entry.of(same) == entry:
        target.parent.mkdir(parents=True, exist_ok=True)
        link(str(same), str(target))  # what is here goes when the new directory takes its place
        return 0
    patiently(lambda: fetch_checked(location, head, f"{RUN_FOLDER}/{path}", entry.digest, target))
    return entry.bytes


def _finish(staging: Path, name: str, about: Mapping[str, Any], url: str) -> None:
    """Make a run's directory of what was fetched: its state says that nobody owns it."""
    for folder in FOLDERS:
        (staging / folder).mkdir(exist_ok=True)
    try:
        info = RunInfo(**read_json(staging / "run.json"))
        state, attempt = State(about["state"]), int(about["attempt"])
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteError(f"what is there is not a run: {error}", where=url) from None
    write_json(staging / "run.json", asdict(replace(info, id=name)))
    ended = state in FINAL or state is State.CREATED
    reason = str(about.get("reason", "")) if ended else f"it was {state} where it was pushed from"
    now = RunState(state if ended else State.INTERRUPTED, attempt, reason=reason, changed=time.time())
    Run(staging).states.create(now)


def _keep_logs(target: Path, staging: Path) -> None:
    """What was printed here is nowhere else."""
    for path in (target / "logs").iterdir():
        shutil.copyfile(path, staging / "logs" / path.name)


def _swap(staging: Path, target: Path) -> None:
    trash = target.with_name(f".old-{target.name}-{os.getpid()}")
    if target.exists():
        target.rename(trash)
    staging.rename(target)
    sync_directory(target.parent)
    shutil.rmtree(trash, ignore_errors=True)


def _tidy(target: Path) -> None:
    """Finish what pulls have left that were killed: between the two renames of :func:`_swap`, or before them."""
    for path in target.parent.glob(f".*-{target.name}-*"):
        match = re.fullmatch(rf"\.(old|new)-{re.escape(target.name)}-(\d+)", path.name)
        if match is None or Owner.of(int(match[2])).is_alive():
            continue
        if match[1] == "old" and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _missing(run: Run) -> Iterator[str]:
    """What the config names and is not on this machine; the run was told apart by its content, not by its place."""
    job = run.info.job.rpartition(":")[0]
    if job.endswith(".py") and not Path(job).is_file():
        yield f"job: {job} is not here"
    for key, entry in read_json(run.path / "origins.json").items():
        value = entry.get("value")
        if entry.get("content") and isinstance(value, str) and not Path(value).exists():
            yield f"{key}: {value} is not here"
