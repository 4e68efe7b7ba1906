"""Hugging Face's ``Trainer`` under a session, and so every trainer of TRL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback

from clew.errors import UserError
from clew.live.language_scores import Rows
from clew.live.script import open_session
from clew.live.trainer_callback import SessionCallback
from clew.live.trainer_state import load_weights
from clew.live.trainer_surface import HuggingFaceSurface
from clew.live.watching import LossWatch, Watch
from clew.session import Session
from clew.session.settings import Setting
from clew.session.surface import CheckpointConfig, LiveConfig

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["SessionCallback", "attach", "callback", "load_weights", "scratch_directory", "train"]


def attach(
    session: Session[Any],
    trainer: Trainer,
    *,
    policy: CheckpointConfig | None = None,
    live: LiveConfig | None = None,
    **options: Any,
) -> SessionCallback:
    """Put a ``Trainer`` under a session: ``trainer.train()`` then restores, steers and saves it like any other run.

    It takes a trainer that has not begun. Its batches come one by one from a :class:`clew.data.feed.Feed`, without
    prefetching and without workers, and its checkpoints go to the run.

    Args:
        session: The live run.
        trainer: The trainer.
        policy: When to save.
        live: What the run notes about itself, and what it does in trouble.
        options: ``watch``, ``rows``, ``more`` and ``section``; see :func:`_prepared`.

    Returns:
        The callback, which the trainer has already.

    Raises:
        UserError: If its batches cannot be chosen while it trains.
    """
    made = _prepared(trainer, **options)
    made.join(session, policy, live)
    trainer.add_callback(made)
    return made


def train(session: Session[Any], trainer: Trainer, **options: Any) -> int:
    """Run a ``Trainer`` under a session.

    Args:
        session: The live run.
        trainer: Built with ``save_strategy="no"`` and an ``output_dir`` made by :func:`scratch_directory`.
        options: Of :func:`attach`.

    Returns:
        The number of finished steps.

    Raises:
        RunStopped: When the run was asked to stop.
    """
    attach(session, trainer, **options)
    trainer.train()
    return int(trainer.state.global_step)


def callback(trainer: Trainer, *, watch: Watch | None = None, more: Sequence[Setting] = (), **said: Any) -> Any:
    """Make a run of a script in which a ``Trainer``, or a trainer of TRL, trains.

    The run begins with ``trainer.train()`` and ends with it; with the same name it goes on where it stopped::

        trainer = SFTTrainer(...)
        trainer.add_callback(clew.callback(trainer, name="my-run"))
        trainer.train()

    Its checkpoints go to the run's directory, as often as ``save_steps`` says unless ``checkpoint`` says otherwise.

    Args:
        trainer: A trainer that has not begun; see :func:`attach`.
        watch: Looks at the model and judges it; None judges by the validation loss.
        more: What can be set while it trains, besides what every trainer lets be set.
        said: What the run is to be, such as ``name`` and ``params``: the fields of :class:`clew.live.script.Request`.

    Returns:
        The callback.

    Raises:
        UserError: If the trainer's batches cannot be chosen while it trains, or it is to load its best checkpoint.
    """
    args = trainer.args
    if args.load_best_model_at_end:
        hint = "leave it out: the run keeps its best checkpoint, as run:NAME@best"
        raise UserError("load_best_model_at_end wants checkpoints in output_dir, and they are in the run", hint=hint)
    every = args.save_steps if args.save_strategy == "steps" else 0
    if every >= 1:
        said.setdefault("checkpoint", CheckpointConfig(every=int(every)))
    said.setdefault("seed", args.seed)
    made, begin = _prepared(trainer, watch=watch, more=more), trainer.train

    def train(resume_from_checkpoint: Any = None, **options: Any) -> Any:
        if resume_from_checkpoint:
            raise UserError("a run goes on from its own checkpoints", hint="leave resume_from_checkpoint out")
        if made not in trainer.callback_handler.callbacks:
            trainer.add_callback(made)
        with open_session(**said) as session:
            config = session.config
            made.join(session, config.checkpoint, config.live, keeps_last=True)
            try:
                return begin(**options)
            finally:
                made.leave()

    trainer.train = train
    return made


def scratch_directory(session: Session[Any]) -> Path:
    """Return an empty directory for ``output_dir``."""
    path = session.run.checkpoints / ".trainer"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _prepared(
    trainer: Trainer,
    *,
    watch: Watch | None = None,
    rows: Callable[[str], Rows] | None = None,
    more: Sequence[Setting] = (),
    section: str = "",
) -> SessionCallback:
    """Let a trainer take its batches and leave its checkpoints where a session has them.

    Args:
        trainer: The trainer.
        watch: Looks at the model and judges it; None judges by the validation loss.
        rows: Returns the examples of a split, to look at them; None takes the trainer's data sets.
        more: What can be set while it trains, besides what every trainer lets be set.
        section: The part of the config where those numbers stand; empty where they do not.
    """
    watch = watch or LossWatch()
    surface = HuggingFaceSurface(trainer, watch, rows=rows, more=more, section=section)
    trainer.remove_callback(PrinterCallback)  # the journal has the numbers
    return SessionCallback(trainer, surface, watch)
