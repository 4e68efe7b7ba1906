"""What a reference to a model means: a folder, an adapter, a GGUF file, a hub id, a URL, or what a run made.

Nothing here imports torch, so that ``clew check`` can say that a model is missing before anything is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from clew.checkpoints import Checkpoint, CheckpointStore
from clew.config import PathOrName
from clew.errors import UserError, did_you_mean
from clew.remote import is_url, open_location
from clew.remote.models import fetch_model, known_model
from clew.runs import Run

ModelReference = Annotated[PathOrName, Field(min_length=1)]
"""A config field that :func:`resolve` understands."""

_RUN = re.compile(r"run:(?P<name>[^@]+)(?:@(?P<which>.+))?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_CHAIN = 8
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})


@dataclass(frozen=True)
class ModelSource:
    """Where the weights and the tokenizer of a model are."""

    base: str
    """A folder in the Hugging Face layout, the folder of a GGUF file, or a hub id."""
    adapter: Path | None = None
    """A folder with a LoRA adapter on top of the base."""
    gguf_file: str | None = None
    """The name of the GGUF file in ``base``; None when there is none."""
    url: str | None = None
    """Where the base was fetched from, with its commit where there is one; None when it was here."""

    @property
    def reference(self) -> str:
        """A reference that resolves to the base alone, such as an adapter's config should name."""
        if self.url is not None:
            return self.url
        return str(Path(self.base) / self.gguf_file) if self.gguf_file else self.base

    @property
    def is_local(self) -> bool:
        """Whether everything is on this machine, rather than to be fetched from a hub."""
        return self.gguf_file is not None or Path(self.base).is_dir()

    @property
    def tokenizer_folder(self) -> Path | None:
        """The adapter's folder, if it brings its own tokenizer."""
        return self.adapter if self.adapter and (self.adapter / "tokenizer_config.json").is_file() else None


def resolve(reference: str, runs_dir: Path) -> ModelSource:
    """Find what a reference names.

    Args:
        reference: A folder (of a model or of a LoRA adapter), a ``.gguf`` file, a hub id such as ``owner/name``,
            ``run:NAME`` with an optional ``@best``, ``@last`` or ``@STEP``, or the URL of a location, which is
            fetched into the workspace unless it is there.
        runs_dir: The folder of runs.

    Raises:
        UserError: If there is no such model; with the nearest name.
    """
    return _resolve(reference, runs_dir, chain=())


def check_reference(reference: str, runs_dir: Path) -> None:
    """Check a reference as far as this can be done without loading anything or asking a hub.

    Raises:
        UserError: As :func:`resolve`.
    """
    if is_url(reference) and known_model(reference, runs_dir.parent) is None:
        open_location(reference)
        return
    resolve(reference, runs_dir)


def _resolve(reference: str, runs_dir: Path, chain: tuple[str, ...]) -> ModelSource:
    if len(chain) >= _MAX_CHAIN or reference in chain:
        raise UserError("the adapters stand on each other without end", where=" -> ".join((*chain, reference)))
    chain = (*chain, reference)
    if reference.startswith("run:"):
        made = _run_folder(reference, runs_dir)
        return _from_gguf(made) if made.suffix == ".gguf" else _from_folder(made, runs_dir, chain)
    if is_url(reference):
        return _from_url(reference, runs_dir, chain)
    path = Path(reference).expanduser()
    if reference.endswith(".gguf"):
        return _from_gguf(path)
    if path.is_dir():
        return _from_folder(path.absolute(), runs_dir, chain)
    if path.is_file():
        raise UserError("this is a file; a model is a folder or a .gguf file", where=reference)
    # `outputs/modle` beside a folder `outputs` is a mistake rather than a hub id.
    if _HUB_ID.fullmatch(reference) and (path.parent == Path() or not path.parent.is_dir()):
        return ModelSource(base=reference)
    raise UserError("there is no such model folder", where=reference, hint=_neighbour(path))


def _from_gguf(path: Path) -> ModelSource:
    if not path.is_file():
        raise UserError("there is no such GGUF file", where=str(path), hint=_neighbour(path))
    path = path.absolute()
    return ModelSource(base=str(path.parent), gguf_file=path.name)


def _from_url(url: str, runs_dir: Path, chain: tuple[str, ...]) -> ModelSource:
    fetched = fetch_model(url, runs_dir.parent)
    folder = fetched.path(runs_dir.parent)
    if url.endswith(".gguf"):
        found = _from_gguf(folder / url.rpartition("/")[2])
    else:
        found = _from_folder(folder, runs_dir, chain)
    return found if found.adapter else replace(found, url=fetched.reference)


def _from_folder(folder: Path, runs_dir: Path, chain: tuple[str, ...]) -> ModelSource:
    if (folder / "adapter_config.json").is_file():
        return _from_adapter(folder, runs_dir, chain)
    if (folder / "config.json").is_file():
        refuse_pickle(folder)
        return ModelSource(base=str(folder))
    files = sorted(folder.glob("*.gguf"))
    hint = (
        f"name the file: {files[0]}" if files else "a model folder has a config.json, an adapter an adapter_config.json"
    )
    raise UserError("the folder holds no model", where=str(folder), hint=hint)


def _from_adapter(folder: Path, runs_dir: Path, chain: tuple[str, ...]) -> ModelSource:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base, revision = config["base_model_name_or_path"], str(config.get("revision"))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"adapter_config.json cannot be used: {error}", where=str(folder)) from None
    if not base:
        raise UserError("adapter_config.json names no base model", where=str(folder))
    refuse_pickle(folder)
    if _COMMIT.fullmatch(revision) and _HUB_ID.fullmatch(base):
        base = f"hf://{base}@{revision}"
    try:
        found = _resolve(base, runs_dir, chain)
    except UserError as error:
        raise UserError(f"the base of this adapter is not here: {error}", where=str(folder)) from None
    if found.adapter:
        raise UserError(
            f"its base {base} is an adapter too", where=str(folder), hint="merge that one into its base first"
        )
    return ModelSource(base=found.base, adapter=folder, gguf_file=found.gguf_file, url=found.url)


def refuse_pickle(folder: Path) -> None:
    """Check that a folder's weights are no pickle, which can run any code when it is read.

    Raises:
        UserError: If they are; safetensors beside them are enough.
    """
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"its weights are a pickle ({pickles[0]}), which may run any code when it is read; only safetensors "
            "are read",
            where=str(folder),
            hint="if you trust it, load it with Transformers elsewhere and save_pretrained() it",
        )


def _run_folder(reference: str, runs_dir: Path) -> Path:
    """Return the folder in a run's directory that holds the model it made, or the .gguf file that is the model."""
    match = _RUN.fullmatch(reference)
    if match is None:
        raise UserError(
            "not a reference to a run", where=reference, hint="write run:NAME, run:NAME@best or run:NAME@100"
        )
    run = Run(runs_dir / match["name"])
    if not (run.path / "run.json").is_file():
        names = [path.parent.name for path in runs_dir.glob("*/run.json")]
        raise UserError(
            f"there is no run {match['name']!r}", where=str(runs_dir), hint=did_you_mean(match["name"], names)
        )
    if match["which"]:
        return checkpoint_model(_checkpoint(run, match["which"]))
    for name in ("adapter", "model", "model.gguf"):
        if (run.artifacts / name).exists():
            return run.artifacts / name
    raise UserError(
        f"the run has published no adapter and no model (it is {run.state})",
        where=run.id,
        hint=f"take a checkpoint of it: run:{run.id}@last",
    )


def _checkpoint(run: Run, which: str) -> Checkpoint:
    """Return a verified checkpoint of a run: ``best``, ``last`` or a step."""
    store = CheckpointStore(run.checkpoints)
    saved = store.all()
    if not saved:
        raise UserError("the run has no checkpoints", where=run.id)
    choices: dict[str, Callable[[], Checkpoint | None]] = {"best": store.best, "last": lambda: store.newest_good()[0]}
    choices |= {str(checkpoint.step): lambda one=checkpoint: _verified(one, run) for checkpoint in saved}  # type: ignore[misc]
    choices |= {tag: choices[str(step)] for tag, step in store.tags().items() if str(step) in choices}
    if which not in choices:
        steps = ", ".join(str(checkpoint.step) for checkpoint in saved)
        raise UserError(f"there is no checkpoint {which!r}", where=run.id, hint=f"known: best, last, {steps}")
    found = choices[which]()
    if found is None:
        reason = "has a validation loss and verifies" if which == "best" else "verifies"
        raise UserError(f"no checkpoint of the run {reason}", where=run.id)
    return found


def _verified(checkpoint: Checkpoint, run: Run) -> Checkpoint:
    if problem := checkpoint.problem():
        raise UserError(
            f"checkpoint {checkpoint.step} is damaged: {problem}", where=run.id, hint=f"try run:{run.id}@last"
        )
    return checkpoint


def checkpoint_model(checkpoint: Checkpoint) -> Path:
    """Return the part of a checkpoint that loads as a model or an adapter.

    Args:
        checkpoint: One that verifies.

    Raises:
        UserError: If no part of it does, as with a trainer of the user's own.
    """
    marks = ("adapter_config.json", "config.json")
    for folder in (checkpoint.path, *sorted(path for path in checkpoint.path.iterdir() if path.is_dir())):
        if any((folder / mark).is_file() for mark in marks):
            return folder
    raise UserError(
        f"checkpoint {checkpoint.step} holds training state, not a model that can be loaded by itself",
        where=checkpoint.path.parents[1].name,
        hint="use the model that the run publishes when it completes",
    )


def _neighbour(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = [item.name for item in path.parent.iterdir() if item.is_dir() or item.suffix == ".gguf"]
    return did_you_mean(path.name, names) if names else ""
