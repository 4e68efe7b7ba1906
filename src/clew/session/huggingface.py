"""The session as a callback of Hugging Face's ``Trainer``, and so of every trainer of TRL.

``Trainer`` writes its own complete checkpoint (weights or adapter, optimizer, schedule, random generators, position) to
``output_dir/checkpoint-STEP``. It is not trusted there: a kill in mid-save leaves a folder that looks like the newest.
The callback asks for a save only at a boundary where one is due, and the session moves the finished folder into its
own store, which hashes and commits it. ``output_dir`` is scratch space and is emptied at every start.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, TrainerCallback

from clew.session.session import Session
from clew.session.surface import CheckpointConfig

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

# Not metrics, or not true after a resume: TRL counts its tokens anew in every process, and Trainer's final mean loss
# divides what this process summed by the steps of all of them.
_LEFT_OUT = frozenset(
    {"epoch", "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
    | {"num_tokens", "eval_num_tokens", "train_loss"}
)


class HuggingFaceSurface:
    """Saves and loads a ``Trainer`` through the checkpoint folder that it writes itself."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.resume_from: str | None = None
        """What to hand to ``Trainer.train(resume_from_checkpoint=...)``."""

    def save(self, directory: Path) -> None:
        """Move the folder that ``Trainer`` has just finished into ``directory``."""
        written = Path(self._trainer.args.output_dir) / f"checkpoint-{self._trainer.state.global_step}"
        for item in written.iterdir():
            shutil.move(item, directory / item.name)
        written.rmdir()

    def load(self, directory: Path) -> None:
        """Remember the folder; ``Trainer`` can only load inside of ``train``."""
        self.resume_from = str(directory)


class SessionCallback(TrainerCallback):  # type: ignore[misc]
    """Forwards metrics to a session, and stands at its boundaries."""

    def __init__(self, session: Session[Any]) -> None:
        self._session = session
        self._validated: tuple[int, float] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say how far the run goes."""
        self._session.horizon(state.max_steps)

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
        if "eval_loss" in numbers:
            self._validated = (state.global_step, numbers["eval_loss"])
        if numbers:
            self._session.log(state.global_step, numbers)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask ``Trainer`` to write its state if the session wants to save after this step."""
        if self._session.due(state.global_step):
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Commit what was written, carry out commands, and leave from here when the run is to stop."""
        step, loss = self._validated or (None, None)
        self._session.boundary(state.global_step, metric=loss if step == state.global_step else None)


def train(session: Session[Any], trainer: Trainer, policy: CheckpointConfig) -> None:
    """Run a ``Trainer`` under a session: restored, steered and saved like any other run.

    Args:
        session: The live run.
        trainer: Built with ``save_strategy="no"`` and an ``output_dir`` made by :func:`scratch_directory`.
        policy: When to save.

    Raises:
        RunStopped: When the run was asked to stop.
    """
    surface = HuggingFaceSurface(trainer)
    finished = session.attach(surface, policy)
    trainer.remove_callback(PrinterCallback)  # the journal has the numbers
    trainer.add_callback(SessionCallback(session))
    session.horizon(trainer.args.max_steps)
    if finished < trainer.args.max_steps:
        trainer.train(resume_from_checkpoint=surface.resume_from)
        return
    # The run ended after its last step: only the weights are needed for what follows.
    trainer._load_from_checkpoint(surface.resume_from)


def scratch_directory(session: Session[Any]) -> Path:
    """Return an empty directory for ``output_dir``, on the same file system as the checkpoints."""
    path = session.run.checkpoints / ".trainer"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
