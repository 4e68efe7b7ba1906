"""Looking at a Lightning module between two steps, without a trace in what trains."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from clew.checkpoints.rng import kept_rng
from clew.errors import UserError
from clew.live.lightning_meters import meters, set_meters
from clew.live.lightning_state import copied


def validate(trainer: Any) -> dict[str, float]:
    """Run the validation loop, and return what the module logs in it.

    Callbacks and loggers do not hear of it, since early stopping, say, counts validations.

    Raises:
        UserError: If there is no validation.
    """
    if not trainer.enable_validation:
        raise UserError("this module has no validation", hint="give it a validation_step and validation data")
    loop, connector = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
    kept = {name: getattr(loop, name) for name in ("_has_run", "_seen_batches_per_dataloader")}
    progress, last = loop.batch_progress.state_dict(), getattr(trainer, "_last_val_time", 0.0)
    with _unheard(trainer), _same(trainer), kept_rng():
        connector._callback_metrics = {}
        trainer.validating = True
        try:
            loop.run()
            found = dict(connector._callback_metrics)
        finally:
            trainer.training = True
            loop.batch_progress.load_state_dict(progress)
            trainer._last_val_time = last
            for name, value in kept.items():
                setattr(loop, name, value)
    return fetched(found)


@contextmanager
def untraced(trainer: Any) -> Iterator[None]:
    """Let the body call the module's steps, and have nothing of what they note stay."""
    module = trainer.lightning_module
    buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    with _same(trainer), _silent(module):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in module.named_buffers():
                    if name in buffers:
                        buffer.copy_(buffers[name])


def to_device(trainer: Any, batch: Any) -> Any:
    """Return a batch as a step gets it."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def training_loss(trainer: Any, batch: Any) -> Tensor:
    """Return the loss [] that the module's training step gives for a batch, which is on its device.

    Raises:
        UserError: If it gives none.
    """
    arguments = trainer.fit_loop.epoch_loop._build_kwargs(OrderedDict(), batch, 0)
    given = trainer.strategy.training_step(*arguments.values())
    loss = given.get("loss") if isinstance(given, Mapping) else given
    if not isinstance(loss, Tensor):
        raise UserError("the module's training_step returns no loss", hint="give losses=... for single samples")
    return loss


def fetched(values: Mapping[str, Any]) -> dict[str, float]:
    """Return numbers; those on a device come in one transfer."""
    tensors = {name: value.detach().reshape(()) for name, value in values.items() if isinstance(value, Tensor)}
    numbers = {name: float(value) for name, value in values.items() if not isinstance(value, Tensor)}
    if tensors:
        together = torch.stack([tensor.to(torch.float32) for tensor in tensors.values()]).tolist()
        numbers |= dict(zip(tensors, together, strict=True))
    return numbers


@contextmanager
def _same(trainer: Any) -> Iterator[None]:
    """Put what is logged and measured back as it was."""
    known = meters(trainer)
    before = {**copied(known), "seen": known["seen"]}  # by being the same tensors, they are known to be nothing new
    try:
        yield
    finally:
        set_meters(trainer, before)


@contextmanager
def _unheard(trainer: Any) -> Iterator[None]:
    callbacks, loggers = trainer.callbacks, trainer.loggers
    trainer.callbacks, trainer.loggers = [], [DummyLogger()]
    try:
        yield
    finally:
        trainer.callbacks, trainer.loggers = callbacks, loggers


@contextmanager
def _silent(module: Any) -> Iterator[None]:
    """Let the module log nothing: outside of a loop there is nowhere to."""
    module.log = module.log_dict = _nothing
    try:
        yield
    finally:
        del module.log, module.log_dict


def _nothing(*values: Any, **options: Any) -> None:
    """Log nothing."""
