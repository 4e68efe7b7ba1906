"""How documents become training samples."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from clew.config import config


@config
class DataConfig:
    """Packing of documents into windows."""

    seq_len: Annotated[int, Field(ge=2)] = 128
    """Tokens in one sample; also the model's context."""
    max_tokens: Annotated[int, Field(ge=2)] | None = None
    """Stop reading documents once this many tokens are there; null means all documents."""
