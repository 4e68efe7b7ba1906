"""A model from elsewhere as a run of its own, which others begin with.

What comes of it is what comes of an export of that folder: a run that has completed, whose artifact is the model. The
model is its checkpoint of step 0 as well, so that it is verified, compared, exported and merged as others are.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from clew.checkpoints import CheckpointStore
from clew.config import to_yaml
from clew.errors import UserError
from clew.jobs.loading import LoadedJob, data_fingerprints, load_job, origins_with_content
from clew.models.exchange import Found, find_huggingface
from clew.remote.models import SAFE, TEMPLATES
from clew.runs import JobResult, JournalWriter, Owner, Run, RunInfo, State, Workspace
from clew.runs.environment import environment
from clew.runs.files import link_tree, sync_tree
from clew.runs.run import publish_run, stage_run
from clew.session.publishing import described

MODEL = "model"
"""The name of the artifact, and of the part of the checkpoint."""


@dataclass(frozen=True)
class Imported:
    """What came of an import: the run, and its model as it was found."""

    run: Run
    found: Found


def import_model(folder: Path, workspace: Workspace, name: str) -> Imported:
    """Make a run of a model in the Hugging Face layout: its checkpoint of step 0, and its artifact.

    The weights are copied from file to file, bit by bit the same, and never are in memory. No code is run or unpickled,
    and no file is copied that could hold any.

    Args:
        folder: A Llama that the native decoder computes exactly, with its tokenizer; one file of weights, or several
            with their index.
        workspace: Where the run is made.
        name: Its name.

    Raises:
        UserError: If the folder holds no such model or something in it is damaged; with what. Or if the name is taken.
    """
    found = find_huggingface(folder)
    loaded = load_job({"job": "export", "name": name, "model": str(folder.absolute())})
    info = RunInfo(id=name, job=loaded.reference, config_hash=loaded.config_hash, code_hash=loaded.code_hash)
    staging = stage_run(workspace.runs, info, to_yaml(loaded.plain), origins_with_content(loaded))
    try:
        _complete(staging, found, loaded, workspace.runs / name)
        sync_tree(staging.path)
    except BaseException:
        shutil.rmtree(staging.path, ignore_errors=True)
        raise
    return Imported(publish_run(staging), found)


def _complete(run: Run, found: Found, loaded: LoadedJob, final: Path) -> None:
    """Write into a staged run what an attempt would have left there."""
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    journal = JournalWriter(run.path / "journal", attempt)
    try:
        journal.write("attempt", number=attempt, environment=environment())
        saved = CheckpointStore(run.checkpoints, attempt=attempt).save(0, lambda folder: _copy(found, folder / MODEL))
        journal.write("checkpoint", step=0, path=f"checkpoints/{saved.path.name}", metric=None)
        link_tree(saved.path / MODEL, run.artifacts / MODEL)
        made = described(run, MODEL)
        journal.write("artifact", name=MODEL, path=made.path, sha256=made.sha256, bytes=made.bytes)
    finally:
        journal.close()
    result = JobResult(
        run=loaded.config.name,
        job=loaded.reference,
        status=State.COMPLETED.value,
        seconds=run.busy_seconds(),
        attempts=attempt,
        metrics={"parameters": float(found.num_parameters)},
        artifacts={MODEL: made},
        notes={"imported": str(found.folder.absolute())},
        environment={**environment(), "data": data_fingerprints(run)},
        directory=str(final),
    )
    result.save(run.path)
    run.states.move(State.COMPLETED, attempt=attempt)


def _copy(found: Found, target: Path) -> None:
    """Copy what loads without running or unpickling anything, and of weights what the model consists of."""
    target.mkdir()
    weights = {span.path for span in found.tensors.values()}
    for path in sorted(found.folder.iterdir()):
        if path.is_file() and path.suffix in SAFE and (path.suffix != ".safetensors" or path in weights):
            _copy_file(path, target / path.name)
    for path in sorted((found.folder / TEMPLATES).glob("*.jinja")):
        (target / TEMPLATES).mkdir(exist_ok=True)
        _copy_file(path, target / TEMPLATES / path.name)


def _copy_file(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        if error.filename != str(source):
            raise
        raise UserError(f"{source.name} cannot be read: {error.strerror}", where=str(source.parent)) from error
