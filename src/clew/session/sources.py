"""Checkpoints that a command names: found, verified, and kept with the run that uses them.

A run that was put back to a checkpoint, or that took in another run's weights, can only be repeated with them. So what
a command uses stays in the run's folder ``kept/`` (as hard links, which take no space while the original lives).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from clew.checkpoints import Checkpoint, CheckpointStore
from clew.errors import UserError, did_you_mean
from clew.runs import Run
from clew.runs.files import link_tree, sync_directory

FOLDER = "kept"


def find_checkpoint(run: Run, which: str = "last") -> Checkpoint:
    """Return a checkpoint of a run that verifies.

    Args:
        run: The run.
        which: A step, a tag, ``best`` or ``last``.

    Raises:
        UserError: If there is none, or it is damaged; with those that there are.
    """
    store = CheckpointStore(run.checkpoints)
    if which == "last":
        found = store.newest_good()[0]
    elif which == "best":
        found = store.best()
    else:
        step = store.tags().get(which, int(which) if which.isdigit() else None)
        found = next((one for one in store.all() if one.step == step), None)
        if found is not None and (problem := found.problem()):
            raise UserError(f"the checkpoint of step {found.step} cannot be used: {problem}", where=run.id)
    if found is None:
        there = [*(str(one.step) for one in reversed(store.all())), *store.tags()]
        raise UserError(
            f"there is no checkpoint {which!r}" if which != "last" else "there is no checkpoint that can be used",
            where=run.id,
            hint=f"there {'is' if len(there) == 1 else 'are'} {', '.join(there)}" if there else "it has saved none yet",
        )
    return found


def keep(run: Run, reference: str) -> Path:
    """Return the folder of a checkpoint that a command of this run names, and keep its content with the run.

    What is kept under a name already is taken as it is: so a run that is repeated uses what the first one used.

    Args:
        run: The run that uses it.
        reference: A step, a tag, ``best`` or ``last`` of this run, or ``RUN@`` one of them of another in the workspace.

    Raises:
        UserError: If there is none.
    """
    name, _, which = reference.partition("@") if "@" in reference else ("", "", reference)
    owner = _neighbour(run, name) if name and name != run.id else run
    which = which or "last"
    label = "" if owner is run else owner.id
    if which.isdigit() and (kept := run.path / FOLDER / f"{label}@{int(which)}").is_dir():
        return kept
    checkpoint = find_checkpoint(owner, which)
    kept = run.path / FOLDER / f"{label}@{checkpoint.step}"
    if not kept.is_dir():
        _link(checkpoint.path, kept)
    return kept


def _neighbour(run: Run, name: str) -> Run:
    runs = run.path.parent
    if not name or "/" in name or not (runs / name / "run.json").is_file():
        names = [path.parent.name for path in runs.glob("[!.]*/run.json")]
        raise UserError(f"there is no run {name!r}", hint=did_you_mean(name, names))
    return Run(runs / name)


def _link(source: Path, target: Path) -> None:
    """Link a checkpoint whole or not at all; durable on return: a command that is said to have used it needs it."""
    target.parent.mkdir(exist_ok=True)
    sync_directory(target.parent.parent)
    staging = target.with_name(f".{target.name}")
    shutil.rmtree(staging, ignore_errors=True)
    link_tree(source, staging)
    staging.rename(target)
    sync_directory(target.parent)
