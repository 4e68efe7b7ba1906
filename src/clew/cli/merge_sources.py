"""What the words of ``clew merge`` stand for: a run that is to be merged, or a checkpoint of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clew.checkpoints import CheckpointStore
from clew.errors import UserError, did_you_mean
from clew.runs import Run, Workspace
from clew.session.sources import FOLDER, find_checkpoint
from clew.session.verbs.merging import LIVE

_PUBLISHED = ("adapter", "model", "model.gguf")
_MOVING = ("best", "last")


def model_of(workspace: Workspace, word: str) -> str:
    """Return a reference to a model for a new run.

    Of a run without ``@`` it is what the run has published, or else its newest checkpoint. What is ``best``, ``last``
    or tagged now may be another one tomorrow, so the reference holds the step.

    Args:
        workspace: Where runs are.
        word: ``RUN``, ``RUN@`` with a step, a tag, best or last; or a folder, a file, a hub id or a URL.

    Raises:
        UserError: If there is no such run or checkpoint.
    """
    if word == LIVE:
        raise UserError("'.' is a live run's own weights", hint="name the run: --into RUN")
    name, at, which = word.removeprefix("run:").partition("@")
    run = _run(workspace, name)
    if run is None:
        if word.startswith("run:") or (at and "/" not in name):
            raise _no_run(workspace, name)
        if "/" not in word and not Path(word).exists() and _names_close(workspace, word):
            raise _no_run(workspace, word)
        return word
    if which.isdigit():
        return f"run:{name}@{int(which)}"
    if not which and any((run.artifacts / made).exists() for made in _PUBLISHED):
        return f"run:{name}"
    return f"run:{name}@{find_checkpoint(run, which or 'last').step}"


def live_source(workspace: Workspace, into: Run, word: str) -> str:
    """Return how a live run is told of a checkpoint: ``RUN@WHICH``, or ``.`` for its own weights of the moment.

    Args:
        workspace: Where runs are.
        into: The live run.
        word: ``.`` or its name; ``RUN``, for the newest checkpoint; ``RUN@`` with a step, a tag, best or last.

    Raises:
        UserError: If there is no such run or checkpoint.
    """
    if word in (LIVE, into.id):
        return LIVE
    name, at, which = word.removeprefix("run:").partition("@")
    run = _run(workspace, name)
    if run is None:
        raise _no_run(workspace, name)
    which = which if at else "last"
    store = CheckpointStore(run.checkpoints)
    steps, tags = [one.step for one in store.all()], store.tags()
    kept = {path.name for path in (into.path / FOLDER).glob(f"{'' if run.id == into.id else run.id}@*")}
    if which.isdigit() and (int(which) in steps or any(one.endswith(f"@{int(which)}") for one in kept)):
        return f"{run.id}@{int(which)}"
    if (which in _MOVING and steps) or tags.get(which) in steps:
        return f"{run.id}@{which}"
    known = [*map(str, sorted(steps)), *tags, *(_MOVING if steps else ())]
    hint = did_you_mean(which, known) if known else "it has saved none yet"
    raise UserError(f"there is no checkpoint {which!r}", where=run.id, hint=hint)


def task_of(workspace: Workspace, words: Sequence[str]) -> dict[str, Any] | None:
    """Return the task of the first run among the words, as its config says it; None if no run has one."""
    from clew.config import load_tree, plain

    for word in words:
        run = _run(workspace, word.removeprefix("run:").partition("@")[0])
        if run is not None:
            task = plain(load_tree(run.config_path)).get("task")
            if isinstance(task, dict):
                return task
    return None


def _run(workspace: Workspace, name: str) -> Run | None:
    path = workspace.runs / name
    return Run(path) if name and "/" not in name and (path / "run.json").is_file() else None


def _names_close(workspace: Workspace, word: str) -> bool:
    return did_you_mean(word, _names(workspace)).startswith("did you mean")


def _no_run(workspace: Workspace, name: str) -> UserError:
    return UserError(f"there is no run {name!r}", where=str(workspace.root), hint=did_you_mean(name, _names(workspace)))


def _names(workspace: Workspace) -> list[str]:
    return [path.parent.name for path in workspace.runs.glob("[!.]*/run.json")]
