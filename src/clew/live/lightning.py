"""Lightning: any ``Trainer.fit`` as a live run, by one callback.

The session's boundaries lie where a batch is about to be fetched: everything of the last step is done by then (its
schedules, its validation, its epoch), and nothing of the next one. So a state that is taken there can be put back
there, in the middle of an epoch as well as between two; and what is chosen there holds for the very next batch.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback
from torch import Tensor

from clew.checkpoints import CheckpointStore
from clew.errors import NotFinite, UserError
from clew.live.lightning_data import TrainData, train_data
from clew.live.lightning_guard import Guarded, GuardedSource
from clew.live.lightning_notes import Notes, rate
from clew.live.lightning_scoring import Losses
from clew.live.lightning_settings import TrainerNumbers
from clew.live.lightning_state import announce, read_state, stand_ready, stays_here
from clew.live.lightning_surface import LightningSurface
from clew.live.script import open_session
from clew.session import CheckpointConfig, Session
from clew.session.surface import LiveConfig


class LiveCallback(Callback):  # type: ignore[misc]
    """Lets a trainer's ``fit`` be what a session steers, saves and resumes.

    A step is an optimizer step; with manual optimization it is a batch, since several optimizers may step in it.

    Args:
        session: The live run.
        seed: Of the order of the training data.
        checkpoint: When to save.
        live: What the run notes about itself.
        losses: ``losses(module, batch)`` gives the loss [B] of each sample of a batch on its device. Without it samples
            are scored by the training step, one by one.
        params: Of the run; one that is called like a setting is put in force, whatever the trainer was made with.
    """

    def __init__(
        self,
        session: Session[Any],
        *,
        seed: int = 0,
        checkpoint: CheckpointConfig | None = None,
        live: LiveConfig | None = None,
        losses: Losses | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self._session = session
        self._seed = seed
        self._policy = (checkpoint, live)
        self._losses = losses
        self._params = dict(params or {})
        self._surface: LightningSurface | None = None
        self._data: TrainData | None = None
        self._loader: Any = None
        self._trainer: Any = None
        self._stood: int | None = None
        self._progress: Any = None
        self._counts_steps = True
        self._numbers: TrainerNumbers | None = None
        self._notes = Notes()

    # How a fit begins.

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Take the place of the training data, and tell a fit that goes on where that is."""
        if stage != "fit":
            return
        stays_here(trainer)
        if self._stood is not None:
            raise UserError("a live run is one fit", hint="take another trainer and another run for the next one")
        self._trainer = trainer
        trainer.fit_loop._data_source = GuardedSource(trainer.fit_loop._data_source, self._guard)
        newest = CheckpointStore(self._session.run.checkpoints).newest_good()[0]
        if newest is not None:
            announce(trainer, read_state(newest.path))

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Look at the optimizers as they were made, before a state is put into them."""
        epoch = trainer.fit_loop.epoch_loop
        # Lightning puts a state into these very objects, and every step asks them.
        self._counts_steps = pl_module.automatic_optimization
        steps, batches = epoch.automatic_optimization.optim_progress.optimizer.step, epoch.batch_progress
        self._progress = steps.total if self._counts_steps else batches.total
        self._numbers = TrainerNumbers(trainer, lambda name: f"params.{name}" if name in self._params else "")

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """Let the session hear of signals."""
        _give_back_signals(trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Get ready for the first boundary."""
        _give_back_signals(trainer)
        stand_ready(trainer)

    def _guard(self, loader: Any) -> Guarded:
        if self._data is None or self._loader is not loader:
            self._loader, self._data = loader, train_data(loader, self._seed)
        return Guarded(loader, self._data, self._stand)

    # Its steps.

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Let snapshots be done with the weights before they change."""
        assert self._surface is not None
        self._surface.settle()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep what is logged of a step that is finished."""
        step = self._finished()
        if step == self._stood:
            return
        assert self._surface is not None
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            loss = None
        elif (batches := trainer.accumulate_grad_batches) > 1:
            loss = loss * batches  # Lightning has divided it by them
        self._surface.probe.step_done(loss)
        every = trainer.log_every_n_steps
        if every and (step % every == 0 or step == self._total()):
            self._notes.of_step(trainer.callback_metrics, loss)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Have the next boundary look at what was measured."""
        self._notes.news = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Have the next boundary look at the means of the epoch."""
        self._notes.news = True

    # Its boundaries.

    def _stand(self) -> None:
        """Stand between two steps; called before a batch is fetched."""
        if self._stood is None:
            if self._begin() >= self._total():
                raise StopIteration  # it has come to its end before, which was set in an attempt before this one
        elif (step := self._finished()) != self._stood:
            self._boundary(step)
        assert self._surface is not None
        self._notes.rate = rate(self._trainer)

    def _begin(self, *, ended: bool = False) -> int:
        trainer = self._trainer
        assert self._data is not None and self._numbers is not None
        surface = LightningSurface(
            trainer,
            self._loader,
            self._data,
            self._numbers,
            finished=self._finished,
            seed=self._seed,
            losses=self._losses,
            params=self._params,
        )
        self._surface = surface
        surface.ended = ended
        self._stood = self._session.attach(surface, *self._policy)
        self._notes.begin(trainer)
        if self._total() < math.inf:
            self._session.horizon(int(self._total()))
        return self._stood

    def _boundary(self, step: int) -> None:
        self._stood = step
        trainer = self._trainer
        if values := self._notes.take(trainer):
            self._session.log(step, values)
            loss = values.get("loss", 0.0)
            if not math.isfinite(loss):
                error = NotFinite(
                    f"the loss is no longer finite at step {step}", hint="lower the learning rate, or clip"
                )
                self._session.rescue(step, error)
        self._session.boundary(step)

    # Its end.

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stand at the last boundary, and keep the state of the last step."""
        if self._surface is not None:
            self._surface.ended = True
            if (step := self._finished()) != self._stood:
                self._boundary(step)
                self._session.checkpoint(step)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Say so when there was nothing left to do; and give the data back."""
        if self._stood is None and self._data is not None:
            self._begin(ended=True)
        if self._data is not None:
            self._data.changed()

    def _finished(self) -> int:
        return int(self._progress.completed if self._counts_steps else self._progress.processed)

    def _total(self) -> float:
        assert self._numbers is not None
        return self._numbers.total()


def _give_back_signals(trainer: Any) -> None:
    """Lightning ends at a signal without a word to anybody; the session saves first."""
    before = trainer._signal_connector._original_handlers.get(signal.SIGTERM)
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def attach(session: Session[Any], trainer: Any, **options: Any) -> LiveCallback:
    """Let the ``fit`` of a trainer be a live run.

    Args:
        session: The live run.
        trainer: A ``lightning.Trainer`` on one device, before its ``fit``.
        options: What :class:`LiveCallback` takes.

    Returns:
        The callback, which the trainer has now.
    """
    if any(isinstance(callback, LiveCallback) for callback in trainer.callbacks):
        raise UserError("this trainer is part of a live run already")
    callback = LiveCallback(session, **options)
    trainer.callbacks.append(callback)
    return callback


@contextmanager
def attach_lightning(
    trainer: Any,
    *,
    params: Mapping[str, Any] | None = None,
    losses: Losses | None = None,
    checkpoint: CheckpointConfig | int | None = None,
    **said: Any,
) -> Iterator[Session[Any]]:
    """Make a run of this script, whose training is the ``fit`` of a trainer; call it in the body.

    Args:
        trainer: A ``lightning.Trainer`` on one device.
        params: The script's own numbers and words; another value of one of them is another run. One that is called like
            a setting (``lr``, ``steps``, ``batch_size``, ...) is put in force.
        losses: ``losses(module, batch)`` gives the loss [B] of each sample; see :class:`LiveCallback`.
        checkpoint: When to save, and what to keep; a number saves after so many steps.
        said: What the run is to be otherwise, such as ``name`` and ``seed``; see :class:`clew.live.script.Request`.

    Yields:
        The session; ``session.config.params`` are the parameters as the run has them.
    """
    saving = CheckpointConfig(every=checkpoint) if isinstance(checkpoint, int) else checkpoint or CheckpointConfig()
    with open_session(params=params or {}, checkpoint=saving, **said) as session:
        config = session.config
        attach(
            session,
            trainer,
            seed=config.seed,
            checkpoint=config.checkpoint,
            live=config.live,
            losses=losses,
            params={**(params or {}), **config.params},
        )
        yield session
