"""The session as a callback of Hugging Face's ``Trainer``, and so of every trainer of TRL.

``Trainer`` writes its own complete checkpoint (weights or adapter, optimizer, schedule, random generators, position) to
``output_dir/checkpoint-STEP``. It is not trusted there: a kill in mid-save leaves a folder that looks like the newest.
So the session has it written only at a boundary where a save is due, and moves the finished folder into its
own store, which hashes and commits it. ``output_dir`` is scratch space and is emptied at every start.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from transformers import PrinterCallback, TrainerCallback

from clew.runs.files import read_json
from clew.session.log_window import LogWindow
from clew.session.session import Session
from clew.session.settings import Setting
from clew.session.surface import CheckpointConfig
from clew.session.trainer_settings import TrainerSettings

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

# Not metrics, or not true after a resume: TRL counts its tokens anew in every process, and Trainer's final mean loss
# divides what this process summed by the steps of all of them.
_LEFT_OUT = frozenset(
    {"epoch", "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
    | {"num_tokens", "eval_num_tokens", "train_loss"}
)


class Watch(Protocol):
    """Looks at the model between two steps of a ``Trainer``, and judges it."""

    @property
    def is_out(self) -> bool:
        """Whether the training should end now."""

    def measure(self, step: int, *, last: bool) -> Mapping[str, float]:
        """Return what is due to be measured after a step; empty when nothing is, or when it was done already."""

    def judge(self, step: int, measured: Mapping[str, float]) -> tuple[float | None, bool]:
        """Return how good the state is, the lowest being the best, and whether to save it for that at once."""

    def save(self, directory: Path) -> None:
        """Write what is known so far; see :class:`clew.session.Surface`."""

    def load(self, directory: Path) -> None:
        """Take over what :meth:`save` wrote."""


class HuggingFaceSurface:
    """Saves and loads a ``Trainer`` through the checkpoint folder that it writes itself, and what is known of it."""

    def __init__(self, trainer: Trainer, watch: Watch, more: Sequence[Setting] = ()) -> None:
        self._trainer = trainer
        self._watch = watch
        self._finished = 0
        # The training loop saves where a callback asks for it, before it lets that callback act: so it is left to us.
        self._write = trainer._save_checkpoint
        trainer._save_checkpoint = _nothing
        self.window = LogWindow(trainer)
        self.numbers = TrainerSettings(trainer, more)
        self.resume_from: str | None = None
        """What to hand to ``Trainer.train(resume_from_checkpoint=...)``."""

    def save(self, directory: Path) -> None:
        """Let ``Trainer`` write its folder, and move what is in it into ``directory``."""
        written = Path(self._trainer.args.output_dir) / f"checkpoint-{self._trainer.state.global_step}"
        shutil.rmtree(written, ignore_errors=True)  # of a save that failed
        self._write(self._trainer.model, None)
        for item in written.iterdir():
            shutil.move(item, directory / item.name)
        written.rmdir()
        self.window.save(directory)
        self._watch.save(directory)

    def load(self, directory: Path) -> None:
        """Remember the folder; ``Trainer`` can only load inside of ``train``."""
        self.resume_from = str(directory)
        self._finished = int(read_json(directory / "trainer_state.json")["global_step"])
        self.window.load(directory)
        self._watch.load(directory)

    def settings(self) -> Sequence[Setting]:
        """Return what can be set."""
        return self.numbers.all(max(self._finished, self._trainer.state.global_step))


def _nothing(model: Any, trial: Any) -> None:
    """Save nothing."""


class SessionCallback(TrainerCallback):  # type: ignore[misc]
    """Forwards metrics to a session, and stands at its boundaries."""

    def __init__(self, session: Session[Any], watch: Watch, surface: HuggingFaceSurface) -> None:
        self._session = session
        self._surface = surface
        self._watch = watch
        self._rating: float | None = None
        self._is_best = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say how far the run goes, and go on summing where the last attempt stopped."""
        self._surface.numbers.begin()
        self._session.horizon(state.max_steps)
        self._surface.window.restore()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Record the numbers that ``Trainer`` logs, under the names that it gives them."""
        numbers = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float) and name not in _LEFT_OUT
        }
        if numbers:
            self._session.log(state.global_step, numbers)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Measure what is due, and ask to be called after it if the session has anything to do after this step."""
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
        self._judge(state, control, metrics or {})
        if self._watch.is_out:
            self._measure(state, control, last=True)
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stand at the session's boundary, and leave from here when the run is to stop."""
        if self._is_best:  # it is saved where nothing is due, too
            self._session.checkpoint(state.global_step, metric=self._rating)
        self._session.boundary(state.global_step, metric=self._rating)

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


def train(
    session: Session[Any], trainer: Trainer, policy: CheckpointConfig, watch: Watch, more: Sequence[Setting] = ()
) -> int:
    """Run a ``Trainer`` under a session: restored, steered and saved like any other run.

    Args:
        session: The live run.
        trainer: Built with ``save_strategy="no"`` and an ``output_dir`` made by :func:`scratch_directory`.
        policy: When to save.
        watch: Looks at the model and judges it.
        more: What can be set while it trains, besides what :class:`TrainerSettings` offers.

    Returns:
        The number of finished steps.

    Raises:
        RunStopped: When the run was asked to stop.
    """
    surface = HuggingFaceSurface(trainer, watch, more)
    finished = session.attach(surface, policy)
    trainer.remove_callback(PrinterCallback)  # the journal has the numbers
    trainer.add_callback(SessionCallback(session, watch, surface))
    session.horizon(surface.numbers.last_step)
    if finished < surface.numbers.last_step and not watch.is_out:
        trainer.train(resume_from_checkpoint=surface.resume_from)
        return int(trainer.state.global_step)
    # The run ended after its last step: only the weights are needed for what follows.
    load_weights(trainer, Path(str(surface.resume_from)))
    return finished


def load_weights(trainer: Trainer, checkpoint: Path) -> None:
    """Put the weights of a checkpoint into the model that a ``Trainer`` trains, and nothing else of it."""
    trainer._load_from_checkpoint(str(checkpoint))


def scratch_directory(session: Session[Any]) -> Path:
    """Return an empty directory for ``output_dir``, on the same file system as the checkpoints."""
    path = session.run.checkpoints / ".trainer"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
