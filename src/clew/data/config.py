"""How documents become training samples, and where they come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clew.config import ADDED, NOT_HASHED, InputPath, config


@config
class TaskSource:
    """The texts of the task, tokenized in memory whenever the run starts."""

    type: Literal["task"] = "task"


@config
class TextsConfig:
    """Texts that are tokenized, or are to be tokenized once."""

    path: InputPath
    """A folder that `clew tokenize` made, or a file of texts, which is tokenized into the workspace first."""
    validation: InputPath | None = None
    """A file of texts to validate on; a folder of tokens may have its own."""
    text: str = "text"
    """The column of texts in a file."""


@config
class TokensSource(TextsConfig):
    """Token files, mapped into memory."""

    type: Literal["tokens"] = "tokens"


@config
class MixturePart(TextsConfig):
    """One of the sources of a mixture."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share of the samples; only the ratios of weights count."""


@config
class MixtureSource:
    """Several sources of tokens, each with its share of the samples, whatever its size."""

    type: Literal["mixture"] = "mixture"
    parts: Annotated[tuple[MixturePart, ...], Field(min_length=1)]
    """The sources; all of them have the same tokenizer."""


SourceConfig = TaskSource | TokensSource | MixtureSource


@config
class DataConfig:
    """Where samples come from, and how documents are packed into them."""

    source: Annotated[SourceConfig, ADDED] = Field(default_factory=TaskSource)
    """Where the texts come from: the task, token files, or a mixture of them."""
    seq_len: Annotated[int, Field(ge=2)] = 128
    """Tokens in one sample; also the model's context."""
    max_tokens: Annotated[int, Field(ge=2)] | None = None
    """Use this many tokens at the most, the first ones of each source; null means all."""
    workers: Annotated[int, Field(ge=0), NOT_HASHED] = 0
    """Threads that read batches ahead; 0 reads each batch when it is due."""
