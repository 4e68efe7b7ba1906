"""Pretrain: a decoder from scratch, on the documents of a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from clew.config import Plugin, config
from clew.data.config import DataConfig
from clew.errors import DataError
from clew.jobs.base import CheckpointConfig, JobConfig, RuntimeConfig, job
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
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When to save."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device and threads."""


def _check(config: PretrainConfig, runs: Path) -> None:
    require_parts(config.task, "documents", needed_by="pretrain")


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

    model = Decoder(config.model, vocab_size(tokenizer), config.data.seq_len).to(device)
    num_parameters = model.shape.num_parameters(model.vocab_size)
    total = config.training.total_steps(seq_len=config.data.seq_len, num_parameters=num_parameters)
    lr = config.training.lr or model.shape.learning_rate
    trainer = Trainer(model, samples, config.training, lr=lr, total_steps=total, seed=config.seed)

    def export(folder: Path) -> None:
        save_huggingface(model, tokenizer, folder)

    _train(session, trainer, Loadable(trainer, export), held_out)
    with session.artifact("model") as folder:
        export(folder)
    return Outcome(
        metrics=_final_metrics(trainer),
        notes={"parameters": num_parameters, "samples": len(samples), "steps": total, "peak_lr": lr},
    )


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


def _train(session: Session[PretrainConfig], trainer: Trainer, surface: Surface, held_out: Windows | None) -> None:
    """Go from the newest checkpoint, or from the start, to the last step."""
    training, total = session.config.training, trainer.total_steps
    finished = session.attach(surface, session.config.checkpoint)
    session.horizon(total)
    for step in range(finished + 1, total + 1):
        trainer.step()
        if step % training.log_every == 0 or step == total:
            session.log(step, trainer.measure())
        val_loss = None
        if held_out is not None and training.validates_at(step, total):
            val_loss = trainer.validate(held_out)
            session.log(step, val_loss=val_loss)
        session.boundary(step, metric=val_loss)


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
    return {names[name]: value for name, value in trainer.latest.items() if name in names}
