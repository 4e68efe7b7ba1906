"""The complete state of the native trainer, out and in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clew.checkpoints.rng import rng_state, set_rng_state
from clew.errors import DataError
from clew.train.weights import check_weights, copy_weights

if TYPE_CHECKING:
    from clew.train.loop import Trainer

STATE = "trainer"
"""Stem of the files with a trainer's state, in which ``model`` leads to the weights."""


def complete_state(trainer: Trainer) -> dict[str, Any]:
    """Return all that a trainer is at this moment; its tensors are those that train, or nobody else's.

    Raises:
        NotFinite: If the loss or a gradient was not finite: such a state is not worth coming back to.
    """
    trainer.sums.means(trainer.step_number)
    return {
        "model": dict(trainer.model.named_parameters()),
        "optimizer": trainer.optimizers.state(),
        "step_number": trainer.step_number,
        "feed": _storable(trainer.feed.state()),
        "tokens_seen": trainer.tokens_seen,
        "latest": dict(trainer.latest),
        "best": trainer.best.state(),
        "patience": trainer.patience.state(),
        "sums": trainer.sums.state(),
        "samples": trainer.samples.digest,
        "rng": rng_state(),
    }


def read(trainer: Trainer, directory: Path) -> dict[str, Any]:
    """Return the state that a trainer has saved in a directory, as this one takes it: in parts, if it is on a mesh.

    Raises:
        DataError: If there is none.
    """
    try:
        like = dict(trainer.model.named_parameters())
        state: dict[str, Any] = trainer.slices.read(directory, STATE, like)
    except FileNotFoundError:
        raise DataError("this is no checkpoint of a pretraining", where=str(directory)) from None
    return state


def restore(trainer: Trainer, directory: Path) -> None:
    """Go on from a saved state.

    Raises:
        DataError: If that state was trained on other samples, or is of another model or optimizer; nothing is changed.
    """
    state = read(trainer, directory)
    if state["samples"] != trainer.samples.digest:
        raise DataError(
            "the training samples are not those that this checkpoint was trained on",
            where=str(directory),
            hint="bring back the task's documents as they were, or start a new run",
        )
    take_weights(trainer, state, moments=True)
    trainer.step_number = state["step_number"]
    # Checkpoints of versions without a feed know only its position, and those before them nothing of a best.
    trainer.feed.load(state.get("feed") or {"samples_seen": state["samples_seen"], "since": 0, "selection": None})
    trainer.tokens_seen = state["tokens_seen"]
    trainer.latest = state["latest"]
    trainer.best.load(state.get("best", trainer.best.state()))
    trainer.patience.load(state.get("patience", trainer.patience.state()))
    trainer.sums.load(state["sums"])
    set_rng_state(state["rng"])


def take_weights(trainer: Trainer, state: Mapping[str, Any], *, moments: bool) -> None:
    """Take the weights of a saved state, all of them or none.

    Args:
        trainer: The trainer.
        state: What :func:`read` returned.
        moments: Take what the optimizer knew, too.

    Raises:
        DataError: If they are those of another model or optimizer.
    """
    check_weights(trainer.model, state["model"])
    if moments:
        trainer.optimizers.check(state["optimizer"])
    trainer.settle()
    copy_weights(trainer.model, state["model"])
    if moments:
        trainer.optimizers.load(state["optimizer"])


def _storable(value: Any) -> Any:
    """Give arrays of ids the form that a checkpoint can hold."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, Mapping):
        return {key: _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value
