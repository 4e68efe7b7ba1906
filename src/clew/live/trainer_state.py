"""The state of a Hugging Face ``Trainer`` that trains at this moment: put back, or told apart from another one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.checkpoints.digest import state_digest, tensors_digest
from clew.checkpoints.rng import kept_rng
from clew.errors import UserError
from clew.runs.files import read_json

if TYPE_CHECKING:
    from transformers import Trainer

_OPTIMIZER = "optimizer.pt"
# What of `trainer_state.json` tells how far a training is; the rest follows from the arguments.
_PROGRESS = (
    "global_step",
    "epoch",
    "total_flos",
    "num_input_tokens_seen",
    "log_history",
    "best_metric",
    "best_global_step",
)


def restore(trainer: Trainer, folder: Path) -> int:
    """Take over a checkpoint that ``Trainer`` has written, in a trainer that has its optimizer.

    ``Trainer`` itself can load only on its way into the loop. Here it is done as there, part by part, and at any
    boundary.

    Args:
        trainer: The trainer.
        folder: The checkpoint.

    Returns:
        The finished steps of that state.
    """
    load_weights(trainer, folder)
    trainer._load_optimizer_and_scheduler(str(folder))
    trainer._load_scaler(str(folder))
    known = read_json(folder / "trainer_state.json")
    for name in _PROGRESS:
        setattr(trainer.state, name, known[name])
    trainer.state.stateful_callbacks.update(known["stateful_callbacks"])
    trainer._load_callback_state()
    trainer._load_rng_state(str(folder))  # last: whatever was drawn before counts no longer
    return int(trainer.state.global_step)


def load_weights(trainer: Trainer, folder: Path) -> None:
    """Put the weights of a checkpoint into the model that a ``Trainer`` trains, and nothing else of it."""
    trainer._load_from_checkpoint(str(folder))


def put_back(trainer: Trainer, checkpoint: Path | None, *, optimizer: bool) -> None:
    """Take the weights of a checkpoint; see :meth:`clew.session.surface.Resettable.reset`.

    Learning rate, decay and whatever else an optimizer is told stay as they are, for the steps go on.

    Raises:
        UserError: If the checkpoint is of another model; nothing is changed then.
    """
    known = None
    if checkpoint is not None:
        _check_model(trainer, checkpoint)
        known = None if optimizer else _moments(trainer, checkpoint)
        with kept_rng():
            load_weights(trainer, checkpoint)
    if known is not None:
        trainer.optimizer.load_state_dict(known)
    elif optimizer:
        forget_moments(trainer)


def forget_moments(trainer: Trainer) -> None:
    """Let the optimizer know nothing of the steps so far."""
    trainer.optimizer.state.clear()


def digests(trainer: Trainer) -> dict[str, str]:
    """Return hashes of what is trained, with all buffers, and of the optimizer."""
    trained = ((name, one) for name, one in trainer.model.named_parameters() if one.requires_grad)
    return {
        "weights": tensors_digest(chain(trained, trainer.model.named_buffers())),
        "optimizer": state_digest(trainer.optimizer.state_dict()),
    }


def weights_are_finite(trainer: Trainer) -> bool:
    """Whether all that is trained is finite; this waits for the device, once."""
    from clew.live.finite import are_finite

    return are_finite(one for one in trainer.model.parameters() if one.requires_grad)


def is_adapter(trainer: Trainer) -> bool:
    """Whether an adapter is trained, and not the model itself."""
    return bool(getattr(trainer.model, "peft_config", None))


@contextmanager
def unheard(trainer: Trainer) -> Iterator[None]:
    """Let the body use the trainer without that anybody who listens to it, or its own records, hear of it."""
    handler, control, history = trainer.callback_handler, copy.copy(trainer.control), len(trainer.state.log_history)
    callbacks, training = handler.callbacks, trainer.model.training
    handler.callbacks = []
    try:
        yield
    finally:
        handler.callbacks = callbacks
        vars(trainer.control).update(vars(control))
        del trainer.state.log_history[history:]
        trainer.model.train(training)


def _moments(trainer: Trainer, checkpoint: Path) -> dict[str, Any]:
    """What an optimizer knew at a checkpoint, with what the one of the moment is told."""
    import torch

    if not (checkpoint / _OPTIMIZER).is_file():
        raise UserError("the checkpoint has no optimizer", where=checkpoint.name, hint="reset --optimizer does without")
    known = torch.load(checkpoint / _OPTIMIZER, map_location="cpu", weights_only=True)
    own = trainer.optimizer.state_dict()
    sizes = [[len(group["params"]) for group in one["param_groups"]] for one in (own, known)]
    if sizes[0] != sizes[1]:
        raise UserError("the checkpoint's optimizer has other parameters than this one", where=checkpoint.name)
    return {"state": known["state"], "param_groups": own["param_groups"]}


def _check_model(trainer: Trainer, checkpoint: Path) -> None:
    """Compare names and shapes: ``Trainer`` would pass over what is missing."""
    from clew.merging.weights import Files

    there = {name: one.shape for name, one in Files(checkpoint).layout.items()}
    odd = [name for name, shape in _shapes(trainer).items() if there.get(name, shape) != shape]
    missing = _shapes(trainer).keys() - there.keys()
    extra = there.keys() - _all_names(trainer)
    if found := sorted({*odd, *missing, *extra}):
        raise UserError(f"the checkpoint is of another model: {found[0]} differs", where=checkpoint.name)


def _shapes(trainer: Trainer) -> Mapping[str, tuple[int, ...]]:
    from clew.merging.weights import tensors_of

    if is_adapter(trainer):
        return {name: tuple(one.shape) for name, one in _adapter(trainer).items()}
    return {name: tuple(one.shape) for name, one in tensors_of(trainer.model).items()}


def _all_names(trainer: Trainer) -> set[str]:
    return set(_adapter(trainer) if is_adapter(trainer) else trainer.model.state_dict())


def _adapter(trainer: Trainer) -> Mapping[str, Any]:
    from peft import get_peft_model_state_dict

    model: Any = trainer.model
    found: Mapping[str, Any] = get_peft_model_state_dict(
        model, adapter_name=model.active_adapters[0], save_embedding_layers=False
    )
    return found
