"""How a model is trained: budget, batch, optimizer, schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clew.config import BETWEEN_ATTEMPTS, NOT_HASHED, config
from clew.train.schedules import ScheduleConfig, Wsd

TOKENS_PER_PARAMETER = 20

_Count = Annotated[int, Field(ge=1)]


@config
class AdamWConfig:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    type: Literal["adamw"] = "adamw"
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the mean gradient."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the mean squared gradient."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the mean squared gradient."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Pull of matrices toward zero, times the learning rate; vectors, such as norm gains, are left alone."""


@config
class MuonConfig:
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for embeddings, output layer and vectors.

    A matrix moves by its momentum with all singular values made about 1, by five steps of a Newton-Schulz iteration.
    """

    type: Literal["muon"] = "muon"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the mean gradient."""
    nesterov: bool = True
    """Whether the newest gradient counts once more."""
    iterations: Annotated[int, Field(ge=1, lt=100)] = 5
    """Steps of the Newton-Schulz iteration."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Pull of the hidden matrices toward zero, times their learning rate."""
    scale: Literal["adamw", "spectral"] = "adamw"
    """Updates as large as AdamW's (arXiv:2502.16982), or Jordan's sqrt(max(1, rows / columns)) for rates near 0.02."""
    lr_factor: Annotated[float, Field(gt=0)] = 1.0
    """Muon's learning rate as a multiple of training.lr, which is AdamW's."""
    adamw: AdamWConfig = Field(default_factory=AdamWConfig)
    """Constants for everything that is no hidden matrix."""


OptimizerConfig = AdamWConfig | MuonConfig


@config
class EarlyStoppingConfig:
    """End the training when the validation loss, or what else decides about the best state, gets no better."""

    patience: _Count = 5
    """How many measurements in a row may pass without one that is better than the best."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """By how much one must be better to count; in nats for a loss."""


@config
class TrainingConfig:
    """The native loop."""

    steps: _Count | None = None
    """Optimizer steps. Without steps and tokens the model's size decides: 20 tokens a parameter."""
    tokens: _Count | None = None
    """Tokens to train on at the most: as many whole steps as fit; instead of steps."""
    batch_size: _Count = 32
    """Samples in one optimizer step."""
    micro_batch_size: Annotated[int | None, Field(ge=1), BETWEEN_ATTEMPTS] = None
    """Samples in one forward pass, to save memory; the result is that of the whole batch; null means batch_size."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate; null means the one that suits the model's width."""
    schedule: ScheduleConfig = Field(default_factory=Wsd)
    """How the learning rate moves."""
    optimizer: OptimizerConfig = Field(default_factory=AdamWConfig)
    """The optimizer and its constants."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients with a larger norm are scaled down to it; null means no limit."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the matrix products; auto is bf16 on CUDA, else fp32. Weights and optimizer stay in fp32."""
    activation_checkpointing: Annotated[bool, BETWEEN_ATTEMPTS] = False
    """Recompute each layer's activations in the backward pass: less memory, more time, the same gradients."""
    compile: bool = False
    """Compile the model with torch.compile: a slow first step, faster ones after it, sums rounded in another order."""
    early_stopping: EarlyStoppingConfig | None = None
    """When to end before the last step; null means never."""
    log_every: Annotated[int, Field(ge=1), NOT_HASHED] = 10
    """Log after this many steps: the mean loss since the last time."""
    validate_every: Annotated[int | None, Field(ge=1), BETWEEN_ATTEMPTS] = 100
    """Measure the validation loss after this many steps, and at the end; null means never."""
    validation_samples: _Count | None = 256
    """How many validation samples to use, the first ones; null means all."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.tokens is not None:
            raise ValueError("steps and tokens: give only one of them")
        if self.early_stopping is not None and self.validate_every is None:
            raise ValueError("early_stopping and validate_every: without a validation nothing can stop the training")

    def validates_at(self, step: int, total: int) -> bool:
        """Return whether the validation loss is due after `step` of `total` steps."""
        return self.validate_every is not None and (step % self.validate_every == 0 or step == total)

    def total_steps(self, *, seq_len: int, num_parameters: int) -> int:
        """Return the length of the run in optimizer steps.

        Args:
            seq_len: Tokens in a sample.
            num_parameters: Decides when no budget is given: 20 tokens a parameter are the best use of a compute budget
                (Hoffmann et al. 2022, arXiv:2203.15556).
        """
        if self.steps is not None:
            return self.steps
        tokens = self.tokens or TOKENS_PER_PARAMETER * num_parameters
        # Rounding up would train on more than was granted. A tiny model without a budget still gets its one step.
        return max(1, tokens // (self.batch_size * seq_len))
