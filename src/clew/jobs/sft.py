"""Supervised fine-tuning: a pretrained model learns the completions of a task, through TRL's ``SFTTrainer``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clew.config import Plugin, config
from clew.errors import UserError, require
from clew.jobs.base import CheckpointConfig, JobConfig, RuntimeConfig, job
from clew.jobs.tuning import LoraConfig, TuningConfig, peft_config, publish, trainer_arguments
from clew.models.source import ModelReference, check_reference, resolve
from clew.session import Outcome, Session
from clew.tasks import Chat, Example, Task, render_example, require_parts


@config
class SftTraining(TuningConfig):
    """How long, and in what batches."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps; null means as many as the epochs need."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the examples; used when steps is null."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Examples in one optimizer step."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Examples in one forward pass; must divide batch_size; null means all of them."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Longest prompt with completion, in tokens; a longer example is an error, not cut off in silence."""
    validate_every: Annotated[int, Field(ge=1)] | None = None
    """Measure the loss on the validation split every so many steps; null means never."""

    def __post_init__(self) -> None:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of micro_batch_size ({self.micro_batch_size})"
            )


@config
class SftConfig(JobConfig):
    """Supervised fine-tuning of a pretrained model on a task's examples."""

    model: ModelReference
    """The model to start from: a folder, a hub id, a .gguf file, or a run as run:NAME[@best|@last|@STEP]."""
    task: Annotated[Task, Plugin("task")]
    """Where the examples come from."""
    lora: LoraConfig | None = Field(default_factory=LoraConfig)
    """Train an adapter; null trains every weight. A model that brings an adapter goes on with that one."""
    chat: Chat = "auto"
    """Whether prompts go through the tokenizer's chat template; auto does when there is one."""
    training: SftTraining = Field(default_factory=SftTraining)
    """Optimizer, steps and batches."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When to save."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device and threads."""


def _check(config: SftConfig, runs: Path) -> None:
    check_reference(config.model, runs)
    require_parts(config.task, "examples", needed_by="sft")
    _examples(config, "train")  # reads all data, so that a bad row shows before a run is made of it


@job(check=_check)
def sft(session: Session[SftConfig]) -> Outcome:
    """Fine-tune a model on a task's examples (LoRA or all weights)."""
    config = session.config
    trl = require("trl", extra="tune")
    from clew.models.loading import load_model, load_tokenizer
    from clew.session.huggingface import train
    from clew.train.devices import prepare

    device = prepare(config.runtime.device, config.runtime.threads, config.seed)
    source = resolve(config.model, session.run.path.parent)
    tokenizer = load_tokenizer(source)
    rows = _dataset(config, tokenizer, "train")
    held_out = _dataset(config, tokenizer, "validation") if config.training.validate_every else None
    model = load_model(source, device=device, trainable_adapter=True)
    steps = config.training.steps or math.ceil(config.training.epochs * len(rows) / config.training.batch_size)
    trainer = trl.SFTTrainer(
        model=model,
        args=_arguments(session, device, steps),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=peft_config(config.lora) if config.lora and source.adapter is None else None,
    )
    train(session, trainer, config.checkpoint)
    publish(session, trainer.model, tokenizer)
    skipped = len(config.task.skipped("examples", "train"))
    notes = {"examples": len(rows), "skipped_rows": skipped, "steps": steps}
    return Outcome(metrics=_final_metrics(session), notes=notes)


def _examples(config: SftConfig, split: str) -> Sequence[Example]:
    examples = config.task.examples(split)
    if not examples:
        raise UserError(f"the task has no {split} examples", hint="sft needs at least one")
    return examples


def _dataset(config: SftConfig, tokenizer: Any, split: str) -> Any:
    """Render a split for TRL.

    Raises:
        UserError: If the split is empty or an example is longer than ``training.max_length``.
    """
    import datasets

    examples = _examples(config, split)
    rows = [render_example(example, tokenizer, config.chat) for example in examples]
    limit = config.training.max_length
    for example, row in zip(examples, rows, strict=True):
        if (length := _length(row, tokenizer)) > limit:
            raise UserError(
                f"an example has {length} tokens, more than training.max_length={limit}",
                where=f"{split} example {example.id}",
                hint="raise training.max_length, or shorten or drop the example",
            )
    return datasets.Dataset.from_list(rows)


def _length(row: dict[str, Any], tokenizer: Any) -> int:
    """Tokens of a prompt with its completion."""
    if isinstance(row["prompt"], str):
        return len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1
    return len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"])


def _arguments(session: Session[SftConfig], device: Any, steps: int) -> Any:
    import trl

    from clew.session.huggingface import scratch_directory

    training = session.config.training
    return trl.SFTConfig(
        output_dir=str(scratch_directory(session)),
        max_length=training.max_length,
        train_sampling_strategy="sequential" if session.config.task.keeps_order() else "random",
        eval_strategy="steps" if training.validate_every else "no",
        eval_steps=training.validate_every,
        per_device_eval_batch_size=training.micro_batch_size or training.batch_size,
        **trainer_arguments(
            training,
            device=device,
            seed=session.config.seed,
            steps=steps,
            batch_size=training.batch_size,
            micro_batch_size=training.micro_batch_size or training.batch_size,
        ),
    )


def _final_metrics(session: Session[SftConfig]) -> dict[str, float]:
    """The last loss that the journal holds, whichever attempt wrote it."""
    found: dict[str, float] = {}
    for event in session.run.events("metric"):
        for name, ours in (("loss", "train_loss"), ("eval_loss", "val_loss")):
            if name in event["values"]:
                found[ours] = float(event["values"][name])
    return found
