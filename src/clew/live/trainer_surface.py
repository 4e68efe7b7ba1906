"""What a session can do with a Hugging Face ``Trainer``: save it, put it back, look into it, change it.

``Trainer`` writes its own complete checkpoint (weights or adapter, optimizer, schedule, random generators, progress).
It is not trusted with where that is: a kill in mid-save leaves a folder that looks like the newest. So the session has
it written into a folder that it hashes and commits itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.checkpoints.rng import kept_rng
from clew.errors import NotFinite, UserError
from clew.health.probe import HealthProbe
from clew.inspection.samples import Scorer, Selection
from clew.live.language_scores import Rows
from clew.live.log_window import LogWindow
from clew.live.merging import merge_into, merge_lora_into
from clew.live.trainer_feed import TrainerFeed
from clew.live.trainer_scoring import likelihoods_of, scorer_of
from clew.live.trainer_settings import TrainerSettings
from clew.live.trainer_state import digests, forget_moments, is_adapter, put_back, restore, unheard, weights_are_finite
from clew.live.watching import Watch
from clew.merging.information import live_information
from clew.merging.weights import Files
from clew.session.settings import Setting
from clew.session.surface import MergeRequest

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Trainer

    from clew.merging.methods.fisher import Fisher
    from clew.merging.weights import Weights

_SCRATCH = ".trainer"

NO_METRICS = frozenset(
    {"epoch", "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
    | {"num_tokens", "eval_num_tokens", "train_loss"}
)
"""Not metrics, or not true after a resume: TRL counts its tokens anew in every process, and Trainer's final mean loss
divides what this process summed by the steps of all of them."""


class HuggingFaceSurface:
    """A :class:`clew.session.Surface` with every capability but one: there is no ``snapshot``.

    For that, the checkpoint would have to be written while the training goes on, and the writer is ``Trainer``'s own,
    which reads the live model, optimizer and generators. So a fork saves first, and then goes on.

    Args:
        trainer: The trainer, not training yet. Its data loader is replaced, and it no longer saves by itself.
        watch: Looks at the model and judges it.
        rows: Returns the examples of a split; None takes the data sets of the trainer.
        more: What can be set besides what :class:`TrainerSettings` offers.
        section: Where in the config those numbers stand.
    """

    def __init__(
        self,
        trainer: Trainer,
        watch: Watch,
        *,
        rows: Callable[[str], Rows] | None = None,
        more: Sequence[Setting] = (),
        section: str = "",
    ) -> None:
        self._probe = HealthProbe()
        self.feed = TrainerFeed(trainer, self._probe.data)
        self.window = LogWindow(trainer)
        self._trainer = trainer
        self._watch = watch
        self._rows = rows
        self._more, self._section = more, section
        self._settings: TrainerSettings | None = None
        # The training loop saves where a callback asks for it, before it lets that callback act: so it is left to us.
        self._write = trainer._save_checkpoint
        trainer._save_checkpoint = _nothing
        self._usual_evaluation = trainer._evaluate
        trainer._evaluate = self._evaluation

    def begin(self) -> None:
        """Take note of what is configured. To be called when the training begins: before, there is no optimizer."""
        self._settings = TrainerSettings(self._trainer, self.feed, self._more, self._section)

    def step_done(self) -> None:
        """Take note of a step; nothing here waits for the device."""
        self._trainer.state.epoch = self.feed.feed.epoch
        self._probe.step_done(self.window.step_loss(), self.feed.counted())

    def idle(self) -> AbstractContextManager[None]:
        """Surround a time in which nothing is done on purpose."""
        return self._probe.pause()

    def save(self, directory: Path) -> None:
        """Let ``Trainer`` write its folder, and move what is in it into ``directory``.

        Raises:
            NotFinite: If losses or weights are no longer finite: such a state is not worth coming back to.
        """
        if not (self.window.is_finite and weights_are_finite(self._trainer)):
            raise NotFinite(
                "losses or weights are no longer finite",
                where=f"step {self._trainer.state.global_step}",
                hint="lower the learning rate, or set live.on_nan to pause or rollback",
            )
        args, scratch = self._trainer.args, directory / _SCRATCH
        usual, args.output_dir = args.output_dir, str(scratch)
        try:
            self._write(self._trainer.model, None)
        finally:
            args.output_dir = usual
        for item in (scratch / f"checkpoint-{self._trainer.state.global_step}").iterdir():
            shutil.move(item, directory / item.name)
        shutil.rmtree(scratch)
        self.window.save(directory)
        self.feed.save(directory)
        self._watch.save(directory)

    def load(self, directory: Path) -> None:
        """Take over a state, in a trainer that is training or about to."""
        step = restore(self._trainer, directory)
        self.window.load(directory, step)
        self.feed.load(directory, step)
        self._watch.load(directory)
        self._known.forget()

    def settings(self) -> Sequence[Setting]:
        """Return what can be set."""
        return self._known.all()

    def select(self, selection: Selection | None) -> None:
        """Train on these samples from the next batch on."""
        try:
            self.feed.feed.select(selection)
        except ValueError as error:
            raise UserError(str(error)) from error

    def evaluate(self) -> Mapping[str, float]:
        """Return the validation loss, where there is validation data, and what the watch measures."""
        found: dict[str, float] = {}
        if self._trainer.eval_dataset is not None:
            with kept_rng(), unheard(self._trainer):
                measured = self._trainer.evaluate()
            found |= {name: float(value) for name, value in measured.items() if name not in NO_METRICS}
        found |= self._watch.ask()
        if not found:
            raise UserError("this run has neither validation data nor problems to ask", hint="configure evaluate")
        return found

    def reset(self, checkpoint: Path | None, *, optimizer: bool) -> None:
        """Take the weights of a checkpoint, and what its optimizer knew."""
        put_back(self._trainer, checkpoint, optimizer=optimizer)
        if not self.window.is_finite:
            self.window.forget_loss()

    def digests(self) -> Mapping[str, str]:
        """Return hashes of weights and optimizer."""
        return digests(self._trainer)

    def health(self) -> Mapping[str, Any]:
        """Say how the training is doing; the activations are those of the batch that was trained on last."""
        trainer, feed = self._trainer, self.feed.feed
        return self._probe.report(
            trainer.model,
            trainer.optimizer,
            forward=self._forward(),
            data={"seed": feed.seed, "sampler": "feed", "samples_seen": feed.samples_seen, "batch": feed.batch_size},
            step=trainer.state.global_step,
            together=False,  # other ranks may have no session that asks
        )

    def scorer(self, split: str) -> Scorer:
        """Return what scores a split's examples as they are trained on."""
        return scorer_of(self._trainer, split, self._rows)

    def merge(self, request: MergeRequest) -> Mapping[str, Any]:
        """Take merged weights; of an adapter what it adds to its base is merged, and factored again at its rank."""
        model: Any = self._trainer.model
        if is_adapter(self._trainer):
            said = merge_lora_into(model, request, adapter=model.active_adapters[0])
        else:
            live = model.state_dict(keep_vars=True)
            said = merge_into(live, request, Files, fisher=lambda *asked: self._information(request.seed, *asked))
        if request.optimizer == "reset":
            forget_moments(self._trainer)
        return said

    @property
    def _known(self) -> TrainerSettings:
        assert self._settings is not None, "a session stands at no boundary before the training begins"
        return self._settings

    def _evaluation(self, *args: Any, **options: Any) -> Any:
        """Evaluate as ``Trainer`` does in its loop; that is no part of a step's time."""
        with self._probe.pause():
            return self._usual_evaluation(*args, **options)

    def _forward(self) -> Callable[[], object] | None:
        """What runs a batch through the model; None where batches are prompts, which are first to be completed."""
        batch, trainer = self.feed.last, self._trainer
        if batch is None:
            return None
        inputs = trainer._prepare_input(batch)
        return lambda: trainer.model(**inputs)

    def _information(self, seed: int, weights: Weights, method: Fisher) -> Mapping[str, Tensor]:
        """The Fisher information of weights on the examples that are trained on."""
        found = likelihoods_of(self._trainer, self._rows, method, seed)
        return live_information(self._trainer.model, weights, found)


def _nothing(model: Any, trial: Any) -> None:
    """Save nothing."""
