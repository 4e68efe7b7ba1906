"""The complete state of a Lightning trainer between two steps, out and in, without a pickle.

What Lightning itself would write into a checkpoint is the larger part of it, and its own functions put it back. They
are made for a fit that begins; here it goes on, at the very place where the state was taken. So what they note for a
beginning is cleared again, and what they leave out is added: random generators, the sums of logged numbers, and
whether something has asked for an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from clew.checkpoints.rng import rng_state, set_rng_state
from clew.checkpoints.state import load_state, save_state
from clew.errors import DataError, UserError
from clew.live.lightning_meters import meters, set_meters

_WEIGHTS, _OPTIMIZERS, _REST = "model", "optimizer", "trainer"
# Not of the state, but of what describes the model; they may hold anything.
_DESCRIBING = ("hyper_parameters", "datamodule_hyper_parameters", "hparams_name", "hparams_type")


def state_of(trainer: Any, *, ended: bool) -> dict[str, Any]:
    """Return the complete state between two steps; its tensors are those that train.

    Args:
        trainer: A trainer that fits.
        ended: Whether its last epoch is closed.
    """
    lightning = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    for name in _DESCRIBING:
        lightning.pop(name, None)
    lightning["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)
    return {
        _WEIGHTS: lightning.pop("state_dict"),
        _OPTIMIZERS: lightning.pop("optimizer_states"),
        _REST: {
            "lightning": lightning,
            "meters": meters(trainer),
            "should_stop": trainer.should_stop,
            "ended": ended,
            "rng": rng_state(),
        },
    }


def write_state(state: Mapping[str, Any], directory: Path) -> None:
    """Write a state, as :func:`state_of` returned it with whatever was added, into a folder.

    Raises:
        UserError: If a callback or the module keeps something that is no number, text, tensor, list or dict.
    """
    for name, part in state.items():
        try:
            save_state(directory, name, _plain(part))
        except TypeError as error:
            raise UserError(
                f"of {name}: {error}",
                hint="let the callback or the module that it is of keep numbers, texts, tensors, lists and dicts",
            ) from error


def read_state(directory: Path) -> dict[str, Any]:
    """Read what :func:`write_state` wrote.

    Raises:
        DataError: If it is of something else than a Lightning trainer.
    """
    names = [path.stem for path in sorted(directory.glob("*.safetensors"))]
    if not {_WEIGHTS, _OPTIMIZERS, _REST} <= set(names):
        raise DataError("this checkpoint is not of a Lightning trainer", where=str(directory))
    return {name: load_state(directory, name) for name in names}


def weights_in(directory: Path) -> dict[str, Tensor]:
    """Return the weights and buffers of a checkpoint, by name."""
    found: dict[str, Tensor] = load_state(directory, _WEIGHTS)
    return found


def optimizers_in(directory: Path) -> list[dict[str, Any]]:
    """Return the states of the optimizers of a checkpoint."""
    found: list[dict[str, Any]] = load_state(directory, _OPTIMIZERS)
    return found


def announce(trainer: Any, state: Mapping[str, Any]) -> None:
    """Let a fit that is about to begin know where it goes on: its first hooks see the right epoch, or it ends at once.

    To be called in a callback's ``setup``. What those hooks change is put right by :func:`set_state`.
    """
    trainer._checkpoint_connector._loaded_checkpoint = _checkpoint(state)
    trainer.should_stop = state[_REST]["should_stop"]


def stand_ready(trainer: Any) -> None:
    """Clear what the training loop of an announced fit has noted: it would go round once without a batch.

    To be called when the training begins.
    """
    trainer.fit_loop.epoch_loop.restarting = False


def set_state(trainer: Any, state: Mapping[str, Any]) -> bool:
    """Put a state in the place of the present one, between two steps.

    Args:
        trainer: A trainer that fits, or has just fitted.
        state: What :func:`read_state` returned.

    Returns:
        Whether the next step begins an epoch, though the state is of the end of one.
    """
    connector, rest = trainer._checkpoint_connector, state[_REST]
    connector._loaded_checkpoint = _checkpoint(state)
    connector.restore_datamodule()
    connector.restore_model()
    connector.restore_callbacks()
    connector.restore_training_state()
    connector._loaded_checkpoint = {}
    fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
    goes_on = bool(rest["ended"]) and fit._data_fetcher is not None
    if goes_on:
        _open_epoch(fit)
    # This is no beginning, at which loops would skip or repeat something.
    for loop in (fit, epoch, epoch.val_loop, epoch.automatic_optimization, epoch.manual_optimization):
        loop.on_iteration_done()
    if fit._data_fetcher is not None:
        fit._data_fetcher.fetched = epoch.batch_progress.current.ready
    set_meters(trainer, rest["meters"])
    trainer.should_stop = rest["should_stop"]
    set_rng_state(rest["rng"])
    return goes_on


def _checkpoint(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state as Lightning's own functions read it."""
    return {**state[_REST]["lightning"], "state_dict": state[_WEIGHTS], "optimizer_states": state[_OPTIMIZERS]}


def _open_epoch(fit: Any) -> None:
    """Begin an epoch after one that the end of the training closed, as the loops themselves do it."""
    fit.epoch_progress.increment_ready()
    fit.epoch_progress.increment_started()
    epoch = fit.epoch_loop
    epoch.batch_progress.reset_on_run()
    epoch.scheduler_progress.reset_on_run()
    epoch.automatic_optimization.optim_progress.reset_on_run()
    epoch.val_loop.batch_progress.total.reset()


def _plain(value: Any) -> Any:
    """Numbers of NumPy as numbers, and what has the shape of a dict or a list as one."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Path):
        return str(value)
    return value


def copied(value: Any) -> Any:
    """Return a nested state whose tensors are no longer those that train."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(copied(item) for item in value) if type(value) in (tuple, list) else value
    return value


def stays_here(trainer: Any) -> None:
    """Check that a trainer fits into one process on one device, and does nothing that cannot be kept.

    Raises:
        UserError: If it does not.
    """
    if trainer.world_size > 1:
        raise UserError("a live Lightning trainer runs on one device", hint="Trainer(devices=1)")
    if trainer.overfit_batches:
        raise UserError("overfit_batches chooses samples, which a live run does itself", hint="use clew select")
    if trainer.reload_dataloaders_every_n_epochs:
        raise UserError("the training data of a live run stays the same: reload_dataloaders_every_n_epochs must be 0")
