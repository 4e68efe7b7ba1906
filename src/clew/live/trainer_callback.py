"""The session as a callback of Hugging Face's ``Trainer``.

The session takes charge when the training begins, and not before: then there are an optimizer and a schedule, so that a
state can be loaded, looked at and changed there as at any later boundary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from clew.errors import NotFinite
from clew.live.trainer_surface import NO_METRICS, HuggingFaceSurface
from clew.live.watching import Watch
from clew.session import Session
from clew.session.surface import CheckpointConfig, LiveConfig

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments


class SessionCallback(TrainerCallback):  # type: ignore[misc]
    """Forwards metrics to a session, and stands at its boundaries.

    Args:
        trainer: Whose callback it is.
        surface: Of the trainer.
        watch: Looks at the model and judges it.
    """

    def __init__(self, trainer: Trainer, surface: HuggingFaceSurface, watch: Watch) -> None:
        self._trainer = trainer
        self.surface = surface
        self._watch = watch
        self._joined: tuple[Session[Any], CheckpointConfig | None, LiveConfig | None] | None = None
        self._rating: float | None = None
        self._is_best = False
        self._keeps_last = False

    def join(
        self,
        session: Session[Any],
        policy: CheckpointConfig | None,
        live: LiveConfig | None,
        *,
        keeps_last: bool = False,
    ) -> None:
        """Say whose session it is, before the training begins.

        Args:
            session: The live run.
            policy: When to save.
            live: What the run notes about itself, and what it does in trouble.
            keeps_last: Whether to save after the last step, for a run that publishes nothing.
        """
        self._joined = session, policy, live
        self._keeps_last = keeps_last

    def leave(self) -> None:
        """Say that the session has ended; the trainer may go on being used."""
        self._joined = None

    @property
    def _session(self) -> Session[Any]:
        assert self._joined is not None, "a session is joined before the training begins"
        return self._joined[0]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Restore what there is, stand at that boundary, and say how far the run goes."""
        assert self._joined is not None, "a session is joined before the training begins"
        session, policy, live = self._joined
        self.surface.begin()
        session.attach(self.surface, policy, live)
        session.horizon(state.max_steps)
        if state.global_step >= state.max_steps or self._watch.is_out:
            control.should_training_stop = True
            self._trainer._run_epoch = _no_epoch  # it would make a step before it looks at that
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Record the numbers that ``Trainer`` logs, under the names that it gives them."""
        if self._joined is None:  # somebody evaluates before or after the training
            return control
        numbers = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float) and name not in NO_METRICS
        }
        if numbers:
            self._session.log(state.global_step, numbers)
        if trouble := [name for name in ("loss", "grad_norm") if not math.isfinite(numbers.get(name, 0.0))]:
            self._rescue(state, control, trouble)
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Measure what is due, and ask to be called after it if the session has anything to do after this step."""
        self.surface.step_done()
        last = state.global_step >= state.max_steps
        # The loss of the training belongs beside that of a validation, and at the end; after it, it would be too late.
        control.should_log = control.should_log or control.should_evaluate or last
        self._rating, self._is_best = None, False
        self._measure(state, control, last=last)
        if self._session.due(state.global_step):
            control.should_save = True
        return control

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Take the validation loss into account, which ``Trainer`` measures before it saves."""
        if self._joined is None:
            return control
        self._judge(state, control, metrics or {})
        if self._watch.is_out:
            self._measure(state, control, last=True)
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Stand at the session's boundary, and leave from here when the run is to stop."""
        was_last = state.global_step >= state.max_steps
        if self._is_best:  # it is saved where nothing is due, too
            self._session.checkpoint(state.global_step, metric=self._rating)
        self._session.boundary(state.global_step, metric=self._rating)
        if was_last and state.global_step < state.max_steps and not self._watch.is_out:
            control.should_training_stop = False  # it was told to go further
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Keep the state of the last step, where nothing else does."""
        if self._keeps_last and self._joined is not None and state.global_step:
            self._session.checkpoint(state.global_step, metric=self._rating)
        return control

    def _rescue(self, state: TrainerState, control: TrainerControl, names: Sequence[str]) -> None:
        """Let the session decide what is to become of a run whose numbers are none any longer."""
        if "loss" not in names and self._trainer.accelerator.optimizer_step_was_skipped:
            return  # in fp16 a gradient that is too large leaves the step out, and the losses are scaled less
        self.surface.window.forget_loss()
        control.should_save = True  # so that there is a boundary, where it is carried out
        what = " and ".join(names)
        verb = "is" if len(names) == 1 else "are"
        self._session.rescue(
            state.global_step,
            NotFinite(
                f"{what} {verb} no longer finite",
                where=f"step {state.global_step}",
                hint="lower the learning rate, or set live.on_nan to pause or rollback",
            ),
        )

    def _measure(self, state: TrainerState, control: TrainerControl, *, last: bool) -> None:
        if measured := self._watch.measure(state.global_step, last=last):
            self._session.log(state.global_step, measured)
            self._judge(state, control, measured)

    def _judge(self, state: TrainerState, control: TrainerControl, measured: Mapping[str, float]) -> None:
        rating, saves = self._watch.judge(state.global_step, measured)
        if rating is not None:
            self._rating = rating
        self._is_best = self._is_best or saves
        control.should_save = control.should_save or saves
        if self._watch.is_out:
            control.should_training_stop = control.should_log = True


def _no_epoch(**_: Any) -> None:
    """Train nothing."""
