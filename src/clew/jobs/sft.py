"""Supervised fine-tuning: a pretrained model learns the completions of a task, through TRL's ``SFTTrainer``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clew.config import BETWEEN_ATTEMPTS, NOT_HASHED, Plugin, config
from clew.errors import UserError, require
from clew.jobs.acceleration import Accelerator, accelerate, load_trainable
from clew.jobs.base import CheckpointConfig, JobConfig, RuntimeConfig, job
from clew.jobs.collation import Collation
from clew.jobs.probe import EvaluateConfig, asked
from clew.jobs.rating import Published
from clew.jobs.tuning import (
    LoraConfig,
    TuningConfig,
    check_context,
    conclude,
    keep_float32,
    newest,
    trainer_arguments,
)
from clew.jobs.watch import check_watched, watch_of
from clew.models.quantization import Quantization, check_trainable
from clew.models.source import ModelReference, check_reference, resolve
from clew.runs.journal import Event
from clew.session import Outcome, Session
from clew.session.surface import LiveConfig
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
    micro_batch_size: Annotated[int | None, Field(ge=1), BETWEEN_ATTEMPTS] = None
    """Examples in one forward pass; must divide batch_size; null means all of them."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Longest prompt with completion, in tokens; a longer example is an error, not cut off in silence."""
    validate_every: Annotated[int | None, Field(ge=1), BETWEEN_ATTEMPTS] = None
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
    """The model to start from: a folder, a hub id, a URL, a .gguf file, or a run as run:NAME[@best|@last|@STEP]."""
    task: Annotated[Task, Plugin("task")]
    """Where the examples come from."""
    lora: LoraConfig | None = Field(default_factory=LoraConfig)
    """Train an adapter; null trains every weight. A model that brings an adapter goes on with that one."""
    quantize: Quantization = "none"
    """Keep the model's linear layers in 8 bits (int8) or 4 (nf4, fp4) while an adapter is trained: QLoRA."""
    accelerator: Accelerator = "none"
    """unsloth loads the model by Unsloth, on CUDA; auto does where it is installed."""
    chat: Chat = "auto"
    """Whether prompts go through the tokenizer's chat template; auto does when there is one."""
    training: SftTraining = Field(default_factory=SftTraining)
    """Optimizer, steps and batches."""
    evaluate: EvaluateConfig | None = None
    """Ask the task's problems during the training; null never does."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When to save; every new best is saved besides, where evaluate.best_by or training.early_stopping look for it."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device and threads."""
    live: Annotated[LiveConfig, NOT_HASHED] = Field(default_factory=LiveConfig)
    """What the run notes about itself while it goes on, and what it does in trouble."""
    publish: Published = "last"
    """Publish the weights after the last step, or those of the best checkpoint."""

    def __post_init__(self) -> None:
        check_watched(self, validates=self.training.validate_every is not None)


def _check(config: SftConfig, runs: Path) -> None:
    check_reference(config.model, runs)
    if config.quantize != "none" and config.lora is None:
        check_trainable(config.quantize, resolve(config.model, runs))
    require_parts(config.task, "examples", needed_by="sft")
    if config.evaluate is not None:
        asked(config.task, config.evaluate, "sft")
    _examples(config, "train")  # reads all data, so that a bad row shows before a run is made of it


@job(check=_check)
def sft(session: Session[SftConfig]) -> Outcome:
    """Fine-tune a model on a task's examples (LoRA or all weights)."""
    config = session.config
    from clew.train.devices import prepare

    problems = asked(config.task, config.evaluate, "sft") if config.evaluate else []
    device = prepare(config.runtime.device, config.runtime.threads, config.seed)
    unsloth = accelerate(config.accelerator, device)  # before TRL is imported
    trl = require("trl", extra="tune")
    from clew.live.huggingface import train
    from clew.live.language_rows import ExampleRows
    from clew.models.loading import load_tokenizer

    source = resolve(config.model, session.run.path.parent)
    tokenizer = load_tokenizer(source)
    model, adapter = load_trainable(
        source,
        device,
        lora=config.lora,
        quantize=config.quantize,
        training=config.training,
        seed=config.seed,
        unsloth=unsloth,
    )
    rows = _dataset(config, model, tokenizer, "train")
    held_out = _dataset(config, model, tokenizer, "validation") if config.training.validate_every else None
    steps = config.training.steps or math.ceil(config.training.epochs * len(rows) / config.training.batch_size)
    trainer = trl.SFTTrainer(
        model=model,
        args=_arguments(session, device, steps),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter,
    )
    keep_float32(trainer.model)
    trainer.data_collator = Collation(config.task, trainer.data_collator)
    watch = watch_of(config, trainer.model, tokenizer, problems)

    def trained(split: str) -> Sequence[Example]:
        """The examples as the trainer numbers them: TRL leaves those out of which nothing is trained on."""
        examples = _examples(config, split)
        return [examples[place] for place in trainer.train_dataset["place"]] if split == "train" else examples

    finished = train(
        session,
        trainer,
        policy=config.checkpoint,
        live=config.live,
        watch=watch,
        rows=lambda split: ExampleRows(config.task, trained(split), tokenizer, config.chat),
        section="training",
    )
    notes = {
        "examples": len(rows),
        "skipped_rows": len(config.task.skipped("examples", "train")),
        "steps": finished,
        **watch.notes(trainer.state.max_steps, finished),
    }
    return conclude(session, trainer, tokenizer, config.publish, _final_metrics, notes)


def _examples(config: SftConfig, split: str) -> Sequence[Example]:
    examples = config.task.examples(split)
    if not examples:
        raise UserError(f"the task has no {split} examples", hint="sft needs at least one")
    return examples


def _dataset(config: SftConfig, model: Any, tokenizer: Any, split: str) -> Any:
    """Render a split for TRL.

    Raises:
        UserError: If the split is empty or an example is longer than ``training.max_length`` or the model's context.
    """
    import datasets

    examples = _examples(config, split)
    rows = [{**render_example(one, tokenizer, config.chat), "place": place} for place, one in enumerate(examples)]
    limit = config.training.max_length
    for example, row in zip(examples, rows, strict=True):
        length, where = _length(row, tokenizer), f"{split} example {example.id}"
        if length > limit:
            raise UserError(
                f"an example has {length} tokens, more than training.max_length={limit}",
                where=where,
                hint="raise training.max_length, or shorten or drop the example",
            )
        check_context(model, f"an example has {length} tokens", length, where=where, hint="shorten or drop the example")
    return datasets.Dataset.from_list(rows)


def _length(row: dict[str, Any], tokenizer: Any) -> int:
    """Tokens of a prompt with its completion."""
    if isinstance(row["prompt"], str):
        return len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1
    return len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"])


def _arguments(session: Session[SftConfig], device: Any, steps: int) -> Any:
    import trl

    from clew.live.huggingface import scratch_directory

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


def _final_metrics(events: Sequence[Event]) -> dict[str, float]:
    """The last losses and the newest evaluation, whichever attempt wrote them."""
    losses = newest(events, "loss", "eval_loss")
    names = {"loss": "train_loss", "eval_loss": "val_loss"}
    return {names[name]: value for name, value in losses.items()} | newest(events, "eval/")
