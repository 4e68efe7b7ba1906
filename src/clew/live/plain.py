"""A session for a plain PyTorch loop: at most five more lines make it a run that can be steered.

::

    with clew.session("mlp", model=model, optimizer=optimizer, data=dataset, batch_size=32, steps=500) as live:
        for inputs, targets in live.batches():
            loss = loss_fn(model(inputs), targets)
            ...
            live.step(loss=loss)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from clew.errors import NotFinite, UserError, did_you_mean
from clew.live.script import Request, open_session
from clew.live.torch_data import samples_of
from clew.live.torch_parts import gathered
from clew.live.torch_scoring import judge_of
from clew.live.torch_surface import Evaluate, TorchSurface
from clew.session import CheckpointConfig, Session
from clew.session.surface import LiveConfig


class TrainingWords(TypedDict, total=False):
    """What a program says of its training; only ``model`` is needed."""

    model: Any
    """A module, or several in a row or by name."""
    optimizer: Any
    """An optimizer, or several."""
    scheduler: Any
    """What moves its learning rate, or several."""
    scaler: Any
    """A ``GradScaler``."""
    extras: Mapping[str, Any]
    """Whatever else has ``state_dict`` and ``load_state_dict``, by name, and is to be saved."""
    data: Any
    """What :meth:`Live.batches` gives: a data set with numbered samples, a ``DataLoader`` of one, or tensors."""
    validation: Any
    """Samples to look at besides, in the same forms."""
    test: Any
    """More of them."""
    batch_size: int
    """Samples in a batch; without it that of the ``DataLoader``."""
    steps: int
    """How far the training goes."""
    max_grad_norm: float | None
    """Where :meth:`Live.clip_gradients` clips; None does not, until it is set."""
    loss_fn: Callable[..., Any]
    """``loss_fn(outputs, targets)``, to look at single samples."""
    losses: Callable[[Any], Tensor]
    """``losses(batch)``, the loss of each of its samples [B]; instead of ``loss_fn``."""
    evaluate: Evaluate
    """What ``clew evaluate`` calls, in evaluation mode and without gradients: returns metrics by name."""
    around: Callable[[], AbstractContextManager[Any]]
    """Surrounds the model when it is looked at, such as ``lambda: torch.autocast("cuda", torch.bfloat16)``."""


class Live:
    """A loop that is a run.

    Args:
        session: Its session.
        params: The script's own parameters, as its run has them.
        log_every: Log the means of so many steps.
    """

    def __init__(self, session: Session[Any], params: Mapping[str, Any], *, log_every: int = 10) -> None:
        self.session = session
        self.params = params
        self._log_every = log_every
        self._save_every: int | None = None
        self._saves_after: tuple[int, ...] = ()  # of so many steps: looked up without a call, as each step does it
        self._surface: TorchSurface | None = None

    def attach(self, **training: Unpack[TrainingWords]) -> int:
        """Say what trains, where the models could only be made inside of the session.

        A parameter that is called like a setting (``lr``, ``batch_size``, ``steps``, ...) is put in force, whatever the
        program says: so a fork or a sweep can change it. Then the newest checkpoint is restored, if there is one.

        Args:
            training: See :class:`TrainingWords`.

        Returns:
            The number of finished steps.

        Raises:
            UserError: If something is not what it should be, or this is one of several processes.
        """
        _check_words(training)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if distributed and (count := torch.distributed.get_world_size()) > 1:
            raise UserError(f"this is one of {count} processes", hint="a session steers a program of one process")
        self._surface = surface = _surface(training, self.session.config.seed, self.params)
        config = self.session.config
        policy = config.checkpoint
        self._save_every = every = policy.every
        steps = (0, (every or 0) // 2)
        self._saves_after = tuple(step for step in steps if policy.is_at(step) or policy.is_halfway(step))
        done = self.session.attach(surface, config.checkpoint, config.live)
        if surface.total_steps is not None:
            self.session.horizon(surface.total_steps)
        return done

    @property
    def surface(self) -> TorchSurface:
        """What trains.

        Raises:
            UserError: If nothing was attached.
        """
        if self._surface is None:
            raise UserError("nobody has said what trains", where="model", hint="clew.session(..., model=...)")
        return self._surface

    @property
    def step_number(self) -> int:
        """Finished steps."""
        return self.surface.step_number

    @property
    def total_steps(self) -> int | None:
        """How far the training goes, as it may have been set."""
        return self.surface.total_steps

    @property
    def max_grad_norm(self) -> float | None:
        """Where gradients are to be clipped, as it may have been set; None is nowhere."""
        return self.surface.max_grad_norm

    @property
    def is_over(self) -> bool:
        """Whether the last step is done: what a loop asks that has data of its own."""
        return self.surface.is_over

    def batches(self) -> Iterator[Any]:
        """Give batches until the last step is done; the first is the one after the state that was restored.

        What is chosen by ``clew select``, and another batch size, hold from the very next one on. Samples are loaded
        in this process.

        Raises:
            UserError: If there is no data, or nobody knows how far the training goes.
        """
        if self.surface.feed is None:
            raise UserError("the session knows no data", where="data", hint="name it: data=...")
        if self.surface.total_steps is None:
            raise UserError("nobody knows how far the training goes", where="steps", hint="say it: steps=...")
        while not self.surface.is_over:
            yield self.surface.batch()

    def clip_gradients(self) -> Tensor:
        """Clip the gradients of all models together at :attr:`max_grad_norm`.

        Returns:
            Their norm before, a tensor [] on their device.
        """
        parameters = self.surface.parts.whole.parameters()
        return nn.utils.clip_grad_norm_(parameters, self.max_grad_norm or float("inf"))

    def step(self, *, rating: float | None = None, **metrics: Any) -> None:
        """Say that an optimizer step is done, and stand at the boundary: save, and carry out what was asked for.

        Args:
            rating: How good the state is, the lower the better, if it was measured: it decides which checkpoint is
                the best.
            metrics: Names to numbers or to tensors of one element, which stay where they are until they are logged.

        Raises:
            RunStopped: When the run is to end; it leaves the session quietly.
            NotFinite: When the loss is no longer finite, and the run is not to go on from that.
        """
        surface = self._surface or self.surface
        step = surface.finish_step(metrics)
        every = self._save_every
        logs = step % self._log_every == 0 or step == surface.total_steps
        if logs or (every and step % every in self._saves_after):
            try:
                self._measure(log=logs)
            except NotFinite as error:
                self.session.rescue(step, error)
        self.session.boundary(step, metric=rating)

    def log(self, **metrics: Any) -> None:
        """Record metrics of the present step, such as those of a validation.

        Args:
            metrics: Names to numbers or to tensors of one element.
        """
        values = {name: one.detach() if isinstance(one, Tensor) else one for name, one in metrics.items()}
        self.session.log(self.step_number, values)

    def evaluate(self) -> dict[str, float]:
        """Do what ``clew evaluate`` does, and log it.

        Returns:
            What was measured.
        """
        found = dict(self.surface.evaluate())
        self.session.log(self.step_number, found)
        return found

    def finish(self) -> None:
        """Log what is left, and keep the state of the last step."""
        if self._surface is not None and self._surface.step_number:
            self._measure(log=True)
            self.session.checkpoint(self._surface.step_number)

    def _measure(self, *, log: bool) -> None:
        surface = self.surface
        means = surface.measure()
        if log and means:
            self.session.log(surface.step_number, means)
            surface.window.clear()


@contextmanager
def session(
    name: str = "",
    *,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    log_every: int = 10,
    checkpoint: CheckpointConfig | int | None = None,
    live: LiveConfig | None = None,
    workspace: Path | str | None = None,
    notes: str = "",
    track: Sequence[Mapping[str, Any]] = (),
    push: Mapping[str, Any] | None = None,
    **training: Unpack[TrainingWords],
) -> Iterator[Live]:
    """Make a loop a run: it is logged, saved, steered, and goes on where it ended when its script is started again.

    A run that is stopped leaves the script quietly, with exit code 3 when it was asked to and 4 on a signal. One that
    fails leaves with its error. Either is gone on with by the same script, or by ``clew resume NAME``.

    Args:
        name: The run's name; empty makes a new one each time.
        params: The script's own numbers and words: another value of one of them is another run.
        seed: Of the sample order. The script's generators are its own: seed them before the model is made.
        log_every: Log the means of so many steps.
        checkpoint: When to save, and what to keep; a number saves after so many steps.
        live: What the run notes about itself, and what it does when the loss is no longer finite.
        workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.
        notes: Free text that is kept with the run.
        track: Trackers, such as ``{"type": "tensorboard"}``.
        push: Where to send the run, such as ``{"to": "hf://owner/name"}``.
        training: What trains; see :class:`TrainingWords`. Without a model, :meth:`Live.attach` says it.

    Yields:
        What the loop tells of itself.

    Raises:
        UserError: If the script has had a session, another run has that name, or something is not what it should be.
    """
    _check_words(training)  # before there is a run
    saving = CheckpointConfig(every=checkpoint) if isinstance(checkpoint, int) else checkpoint
    request = Request(
        name=name,
        params=params or {},
        seed=seed,
        notes=notes,
        track=track,
        push=push,
        checkpoint=saving or CheckpointConfig(),
        live=live or LiveConfig(),
        workspace=workspace,
    )
    with open_session(request) as opened:
        it = Live(opened, {**(params or {}), **opened.config.params}, log_every=log_every)
        if training:
            it.attach(**training)
        yield it
        it.finish()


def _check_words(training: TrainingWords) -> None:
    """A word that nobody knows would go unheard: an ``optimiser`` that is neither saved nor set."""
    known = TrainingWords.__annotations__
    if unknown := sorted(training.keys() - known.keys()):
        hint = did_you_mean(unknown[0], [*known, *signature(session).parameters])
        raise UserError(f"a session knows no {unknown[0]!r}", where="clew.session", hint=hint)


def _surface(training: TrainingWords, seed: int, params: Mapping[str, Any]) -> TorchSurface:
    parts = gathered(
        training.get("model"),
        training.get("optimizer"),
        training.get("scheduler"),
        training.get("scaler"),
        training.get("extras"),
    )
    words = {"train": training.get("data"), "validation": training.get("validation"), "test": training.get("test")}
    loss_fn, losses = training.get("loss_fn"), training.get("losses")
    model = next(iter(parts.models.values()))
    judged = loss_fn is not None or losses is not None
    more = {"around": training["around"]} if "around" in training else {}
    surface = TorchSurface(
        parts,
        splits={name: samples_of(data) for name, data in words.items() if data is not None},
        evaluate=training.get("evaluate"),
        judge=judge_of(model, loss_fn, losses) if judged else None,
        batch_size=training.get("batch_size"),
        steps=training.get("steps"),
        seed=seed,
        max_grad_norm=training.get("max_grad_norm"),
        clips="max_grad_norm" in training,
        keys=lambda name: f"params.{name}" if name in params else "",
        **more,
    )
    surface.configure(params)
    return surface
