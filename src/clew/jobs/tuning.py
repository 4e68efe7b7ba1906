"""What the jobs that adapt a pretrained model through TRL share: LoRA, trainer arguments, publication."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from clew.config import NOT_HASHED, config
from clew.errors import UserError
from clew.jobs.rating import Published, best_checkpoint
from clew.live.trainer_settings import SCHEDULES
from clew.runs.journal import Event
from clew.train.config import EarlyStoppingConfig

if TYPE_CHECKING:
    import torch

    from clew.session import Outcome, Session

Schedule = Literal["linear", "cosine", "constant"]


@config
class LoraConfig:
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): small matrices beside frozen weights."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the update of each weight matrix."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the update; the effective factor is alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the input of the low-rank path."""
    targets: list[str] = Field(default_factory=lambda: ["all-linear"])
    """Names of the modules to adapt; all-linear means every linear layer but the output layer."""


@config
class TuningConfig:
    """The optimizer and its steps; the batch size is that of one optimizer step, whatever fits into memory at once."""

    lr: Annotated[float, Field(ge=0)] = 2e-4
    """Peak learning rate of AdamW; 0 changes nothing, which shows what a run measures besides."""
    schedule: Schedule = "linear"
    """Learning rate after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear warm-up from zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the whole gradient; a larger one is scaled down to it."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Dtype of the matrix products; auto is bf16 on CUDA, else fp32. fp16, with scaled losses, is for CUDA alone."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    early_stopping: EarlyStoppingConfig | None = None
    """When to end before the last step: when evaluate.best_by, else the validation loss, gets no better."""
    log_every: Annotated[int, Field(ge=1), NOT_HASHED] = 1
    """Record metrics every so many steps."""


def trainer_arguments(
    training: TuningConfig, *, device: torch.device, seed: int, steps: int, batch_size: int, micro_batch_size: int
) -> dict[str, Any]:
    """Return the arguments that every trainer of TRL takes alike.

    Nothing is left to the trainer's own saving or reporting: the session does both.

    Raises:
        UserError: If fp16 is asked for on a device that is not CUDA.
    """
    if training.precision == "fp16" and device.type != "cuda":
        raise UserError(
            f"training.precision=fp16 needs CUDA, and this run is on {device.type}",
            hint="set training.precision=auto, which is fp32 here; or bf16",
        )
    bf16 = training.precision == "bf16" or (training.precision == "auto" and device.type == "cuda")
    return {
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": batch_size // micro_batch_size,
        "learning_rate": training.lr,
        "lr_scheduler_type": SCHEDULES[training.schedule],
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "activation_checkpointing": training.activation_checkpointing,
        "logging_steps": training.log_every,
        "logging_nan_inf_filter": False,  # a NaN must be seen, not replaced by an average
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": device.type == "cpu",
        "bf16": bf16,
        "fp16": training.precision == "fp16",
        "dataloader_pin_memory": device.type == "cuda",
    }


def peft_config(lora: LoraConfig) -> Any:
    """Return PEFT's form of the config."""
    import peft

    targets: Any = lora.targets[0] if lora.targets == ["all-linear"] else lora.targets
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type, unused-ignore]
        lora_dropout=lora.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )


def keep_float32(model: Any) -> None:
    """Undo the rounding of an adapter to bfloat16.

    TRL rounds it when it stands on quantised weights, but ``Trainer`` reads it back in float32 when it resumes, so that
    a run would go on in another precision.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def publish(session: Session[Any], model: Any, tokenizer: Any) -> None:
    """Publish what was trained: an ``adapter`` for a PEFT model, else a whole ``model``; with its tokenizer."""
    import peft

    name = "adapter" if isinstance(model, peft.PeftModel) else "model"
    with session.artifact(name) as folder:
        if name == "adapter":
            # LoRA leaves the embeddings alone; to find that out by itself, PEFT would ask a hub for the base.
            model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
        else:
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def check_context(model: Any, what: str, tokens: int, *, where: str, hint: str) -> None:
    """Check that a text fits into a model.

    Args:
        model: What it is for; one that names no context takes any length.
        what: How the error begins.
        tokens: Length of the text.
        where: Whose text it is.
        hint: What can be done.

    Raises:
        UserError: If the text is longer than the model's context.
    """
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and tokens > context:
        raise UserError(f"{what}, more than the model's context of {context}", where=where, hint=hint)


def conclude(
    session: Session[Any],
    trainer: Any,
    tokenizer: Any,
    which: Published,
    summary: Callable[[Sequence[Event]], dict[str, float]],
    notes: dict[str, Any],
) -> Outcome:
    """Publish the last or the best weights, and return their metrics.

    Args:
        session: The live run.
        trainer: Holds the last weights.
        tokenizer: Published with them.
        which: Which weights.
        summary: Makes the result's metrics from all metric events up to the state that is published.
        notes: For the result.

    Raises:
        RunFailed: If the best weights are asked for, and no checkpoint is rated.
    """
    from clew.live.huggingface import load_weights
    from clew.session import Outcome

    events = session.events("metric")
    if which == "best":
        best = best_checkpoint(session.settled())
        load_weights(trainer, best.path)
        events = [event for event in events if event["step"] <= best.step]
        notes = {**notes, "published_step": best.step}
    publish(session, trainer.model, tokenizer)
    return Outcome(metrics=summary(events), notes=notes)


def newest(events: Iterable[Event], *names: str) -> dict[str, float]:
    """Return the newest value of each metric that has one of these names, or begins with one that ends in a slash."""
    return {
        name: float(value)
        for event in events
        for name, value in event["values"].items()
        if name in names or name.startswith(tuple(one for one in names if one.endswith("/")))
    }
