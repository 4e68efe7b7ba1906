"""Whether models can be merged, as far as their files say it: before there is a run, and without loading anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clew.errors import UserError
from clew.merging import Described
from clew.merging.folders import describe_model, model_differences
from clew.models.source import ModelSource

_SHOWN = 4
"""How many differences are named."""


def refuse(first: str, name: str, found: Sequence[str]) -> None:
    """Refuse two models that differ.

    Args:
        first: What the one is called.
        name: What the other is called.
        found: How they differ, with the first one's value first; empty for not at all.

    Raises:
        UserError: If they do.
    """
    if found:
        raise UserError(f"{first} and {name} cannot be merged: {'; '.join(found[:_SHOWN])}")


def check_fit(
    references: Sequence[str], sources: Sequence[ModelSource], base: ModelSource | None, *, as_adapter: bool
) -> None:
    """Refuse models whose files say that they cannot be merged.

    What a file does not say is looked at again when the weights are opened: of a model that is still on a hub, of a
    GGUF file, and of what the library fills in.

    Args:
        references: What the models are called.
        sources: Where they are.
        base: What all came from, where the method needs it.
        as_adapter: Whether adapters are merged, and stay adapters.

    Raises:
        UserError: If they cannot be merged, or a file of theirs cannot be read.
    """
    if as_adapter:
        for reference, source in zip(references, sources, strict=True):
            other = source.reference
            one = sources[0].reference
            refuse(references[0], reference, [f"base is {one!r} and {other!r}"] if other != one else [])
        return
    named = [*zip(references, sources, strict=True), *([(f"the base {base.reference}", base)] if base else [])]
    known = [(name, _described(source)) for name, source in named if source.is_local and source.gguf_file is None]
    for name, found in known[1:]:
        refuse(known[0][0], name, model_differences(known[0][1], found))


def _described(source: ModelSource) -> Described:
    return describe_model(Path(source.base), source.tokenizer_folder)
