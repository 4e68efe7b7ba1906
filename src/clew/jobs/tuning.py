"""What the jobs that adapt a pretrained model through TRL share: LoRA, trainer arguments, publication."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from clew.config import NOT_HASHED, config

if TYPE_CHECKING:
    import torch

    from clew.session import Session

Schedule = Literal["linear", "cosine", "constant"]
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


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

    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate of AdamW."""
    schedule: Schedule = "linear"
    """Learning rate after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear warm-up from zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the whole gradient; a larger one is scaled down to it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Dtype of the matrix products; auto is bf16 on CUDA, else fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    log_every: Annotated[int, Field(ge=1), NOT_HASHED] = 1
    """Record metrics every so many steps."""


def trainer_arguments(
    training: TuningConfig, *, device: torch.device, seed: int, steps: int, batch_size: int, micro_batch_size: int
) -> dict[str, Any]:
    """Return the arguments that every trainer of TRL takes alike.

    Nothing is left to the trainer's own saving or reporting: the session does both.
    """
    bf16 = training.precision == "bf16" or (training.precision == "auto" and device.type == "cuda")
    return {
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": batch_size // micro_batch_size,
        "learning_rate": training.lr,
        "lr_scheduler_type": _SCHEDULES[training.schedule],
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "gradient_checkpointing": training.gradient_checkpointing,
        "logging_steps": training.log_every,
        "logging_nan_inf_filter": False,  # a NaN must be seen, not replaced by an average
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": device.type == "cpu",
        "bf16": bf16,
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
