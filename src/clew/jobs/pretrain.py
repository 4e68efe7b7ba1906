"""Pretrain: a decoder from scratch, on the documents of a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from clew.config import Plugin, config
from clew.data.config import DataConfig
from clew.errors import DataError
from clew.jobs.base import CheckpointConfig, JobConfig, RuntimeConfig, job
from clew.jobs.probe import EvaluateConfig, Probe
from clew.models.config import ModelConfig
from clew.models.tokenizers import ByteTokenizer, TokenizerConfig
from clew.session import Outcome, Session, Surface
from clew.tasks import Task, require_parts
from clew.train.config import TrainingConfig

if TYPE_CHECKING:
    from clew.data.packing import Windows
    from clew.train.loop import Trainer


@config
class PretrainConfig(JobConfig):
    """A decoder from scratch; `model.depth` is the dial that sets its size, learning rate and horizon."""

    task: Annotated[Task, Plugin("task")]
    """Whose documents to train on."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The decoder."""
    tokenizer: TokenizerConfig = Field(default_factory=ByteTokenizer)
    """How text becomes tokens."""
    data: DataConfig = Field(default_factory=DataConfig)
    """How documents become samples."""
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    """The native loop."""
    evaluate: EvaluateConfig | None = None
    """Ask the task's problems during the training; null never does."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When to save; every new best is saved besides, where evaluate.best_by or training.early_stopping look for it."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device and threads."""

    @property
    def best_by(self) -> str:
        """The logged metric that decides which checkpoint is the best."""
        by = self.evaluate.best_by if self.evaluate else None
        return f"eval/{by}" if by else "val_loss"

    def rating(self, measured: Mapping[str, float]) -> float | None:
        """Return how good a checkpoint with these metrics is, the lowest being the best; None when nothing says so."""
        value = measured.get(self.best_by)
        if value is None or math.isnan(value):
            return None
        higher_is_better = (
            self.best_by != "val_loss" and self.evaluate is not None and not self.evaluate.lower_is_better
        )
        return -value if higher_is_better else value


def _check(config: PretrainConfig, runs: Path) -> None:
    require_parts(config.task, "documents", needed_by="pretrain")
    if config.evaluate is not None:
        require_parts(config.task, "problems", "metrics", needed_by="evaluate of pretrain")


@job(check=_check)
def pretrain(session: Session[PretrainConfig]) -> Outcome:
    """Train a decoder from scratch on a task's documents."""
    from clew.models.decoder import Decoder
    from clew.models.exchange import save_huggingface
    from clew.models.tokenizers import vocab_size
    from clew.train.devices import prepare
    from clew.train.loop import Trainer

    config = session.config
    device = prepare(config.runtime.device, config.runtime.threads, config.seed)
    tokenizer = config.tokenizer.build(config.task.documents("train"))
    samples = _windows(config, tokenizer, "train")
    held_out = _windows(config, tokenizer, "validation")
    if samples is None:
        raise DataError(
            f"the task {type(config.task).__name__} has no text to train on", hint="look at its documents('train')"
        )
    if held_out is None and config.training.early_stopping is not None:
        raise DataError(
            f"the task {type(config.task).__name__} has no text to validate on, which training.early_stopping needs",
            hint="look at its documents('validation'), or set training.early_stopping=null",
        )

    model = Decoder(config.model, vocab_size(tokenizer), config.data.seq_len).to(device)
    num_parameters = model.shape.num_parameters(model.vocab_size)
    total = config.training.total_steps(seq_len=config.data.seq_len, num_parameters=num_parameters)
    lr = config.training.lr or model.shape.learning_rate
    trainer = Trainer(model, samples, config.training, lr=lr, total_steps=total, seed=config.seed)
    probe = Probe(config.task, config.evaluate, model, tokenizer, config.seed) if config.evaluate else None

    def export(folder: Path) -> None:
        save_huggingface(model, tokenizer, folder)

    _train(session, trainer, Loadable(trainer, export), held_out, probe)
    with session.artifact("model") as folder:
        export(folder)
    notes: dict[str, Any] = {
        "parameters": num_parameters,
        "samples": len(samples),
        "steps": trainer.step_number,
        "peak_lr": lr,
    }
    if trainer.step_number < total:
        notes["stopped_early"] = {"of_steps": total, **trainer.patience.state()}
    return Outcome(metrics=_final_metrics(trainer), notes=notes)


class Loadable:
    """A surface whose checkpoints also hold the model as other programs load it: ``run:NAME@best`` needs no export.

    Args:
        trainer: Saves and loads the complete state.
        export: Writes the model in the Hugging Face layout.
    """

    def __init__(self, trainer: Surface, export: Callable[[Path], None]) -> None:
        self._trainer = trainer
        self._export = export

    def save(self, directory: Path) -> None:
        """Write the complete state, and the model beside it."""
        self._trainer.save(directory)
        self._export(directory / "model")

    def load(self, directory: Path) -> None:
        """Take over the complete state."""
        self._trainer.load(directory)


def _train(
    session: Session[PretrainConfig], trainer: Trainer, surface: Surface, held_out: Windows | None, probe: Probe | None
) -> None:
    """Go from the newest checkpoint, or from the start, to the last step or to the end of patience."""
    config, total = session.config, trainer.total_steps
    keeps_best = config.training.early_stopping is not None or config.best_by != "val_loss"
    session.attach(surface, config.checkpoint)
    session.horizon(total)
    while trainer.step_number < total and not trainer.patience.is_out:
        trainer.step()
        step, measured = trainer.step_number, dict[str, float]()
        if held_out is not None and config.training.validates_at(step, total):
            measured["val_loss"] = trainer.validate(held_out)
        last = step == total or trainer.patience.is_out
        if probe is not None and config.evaluate is not None and (last or step % config.evaluate.every == 0):
            measured |= trainer.probe(probe.measure)
        if step % config.training.log_every == 0 or last:
            session.log(step, trainer.measure())
        if measured:
            session.log(step, measured)
        rating = config.rating(measured)
        is_best = rating is not None and trainer.best.update(step, rating)
        if keeps_best:
            # Only what is better than all before is rated: a stop in between must not make an equal one the best.
            rating = rating if is_best else None
        if keeps_best and is_best:
            session.checkpoint(step, metric=rating)
        session.boundary(step, metric=rating)


def _windows(config: PretrainConfig, tokenizer: Any, split: str) -> Windows | None:
    """Tokenize and pack the documents of a split; None when there are none."""
    from clew.data.packing import Windows, pack
    from clew.models.tokenizers import encode_all, vocab_size

    tokens = pack(
        encode_all(tokenizer, config.task.documents(split)),
        eos=tokenizer.eos_token_id,
        vocab_size=vocab_size(tokenizer),
        max_tokens=config.data.max_tokens,
    )
    return Windows(tokens, config.data.seq_len) if len(tokens) > 1 else None


def _final_metrics(trainer: Trainer) -> dict[str, float]:
    """The newest of what was logged; a trainer that was resumed after its last step has them from its state."""
    names = {"loss": "train_loss", "val_loss": "val_loss", "tokens": "tokens"}
    latest = trainer.latest.items()
    return {names.get(name, name): value for name, value in latest if name in names or name.startswith("eval/")}
