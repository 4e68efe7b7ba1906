"""A schema with one of everything, shared by the tests of this room."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from clew.config import NOT_HASHED, InputPath, PathOrName, Plugin, Registry, Spelled, config


@config
class Task:
    """What a run is about."""


@config
class Sums(Task):
    """Adds numbers."""

    digits: Annotated[int, Field(ge=1)] = 2
    """How long the numbers are."""
    files: list[InputPath] = Field(default_factory=list)
    """More problems."""


@config
class Words(Task):
    """Spells words."""

    alphabet: str = "abc"
    """Its letters."""


@config
class AdamW:
    """AdamW."""

    type: Literal["adamw"] = "adamw"
    """The optimizer's name."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the two moments."""


@config
class Muon:
    """Muon."""

    type: Literal["muon"] = "muon"
    """The optimizer's name."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Momentum."""


@config
class Training:
    """How to train."""

    steps: Annotated[int, Field(ge=1)]
    """Optimizer steps."""
    lr: Annotated[float, Field(gt=0)] = 3e-4
    """Peak learning rate."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps until the peak."""
    schedule: Literal["wsd", "cosine", "constant"] = "cosine"
    """Shape of the learning rate."""
    optimizer: AdamW | Muon = AdamW()
    """Who takes the steps."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient."""

    @model_validator(mode="after")
    def _warmup_fits(self) -> Training:
        if self.warmup > self.steps:
            raise ValueError(f"warmup and steps: {self.warmup} steps of warmup do not fit into {self.steps}")
        return self


@config
class Source:
    """A part of a mixture."""

    path: InputPath
    """Its file."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share."""


@config
class Validation:
    """When to validate."""

    every: Annotated[int, Field(ge=1)] = 10
    """After this many steps."""


@config
class Base:
    """What every job has."""

    name: Annotated[str, NOT_HASHED, Spelled(r"^[a-z0-9-]*$", "made of small letters, digits and '-'")] = ""
    """The run's name."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every choice."""


@config
class Job(Base):
    """A job with one of everything."""

    training: Training
    """How to train."""
    task: Annotated[Task, Plugin("task")] = Sums()
    """What to train on."""
    validation: Validation | None = None
    """Whether to validate."""
    mix: list[Source] = Field(default_factory=list)
    """A mixture."""
    parts: dict[str, Validation] = Field(default_factory=dict)
    """Named sections."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Weights by name."""
    model: InputPath | None = None
    """Where the model stands."""
    dry: bool = False
    """Whether to stop before the first step."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"small": {"training": {"steps": 5, "lr": 0.1}, "seed": 7}}


REGISTRIES = {"task": Registry("task", {"sums": "sample_configs:Sums", "words": "sample_configs:Words"})}


@config
class NamesAModel:
    """A config with a field that is a path or a name."""

    model: PathOrName
    """What to load."""
