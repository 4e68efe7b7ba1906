"""Merge: one model from several of the same architecture, by the weighted mean of their weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from clew.config import config
from clew.errors import UserError
from clew.jobs.base import JobConfig, job
from clew.models.source import ModelReference, ModelSource, check_reference, resolve
from clew.session import Outcome, Session


@config
class MergeConfig(JobConfig):
    """The models, and how much of each."""

    models: Annotated[list[ModelReference], Field(min_length=2)]
    """Model or adapter folders, .gguf files, hub ids, URLs, or `run:NAME` with optional `@best`, `@last` or `@STEP`."""
    weights: list[Annotated[float, Field(gt=0)]] | None = None
    """One for each model, of which only the ratios count; null gives all the same."""
    adapters: Literal["average", "fold"] = "average"
    """Average the matrices of adapters that began as one; or fold each into its base, and average whole models."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of the weights that are written; auto is the one in which the first model is stored."""

    def __post_init__(self) -> None:
        if self.weights is not None and len(self.weights) != len(self.models):
            raise ValueError(f"weights and models: {len(self.weights)} weights for {len(self.models)} models")


def _check(config: MergeConfig, runs: Path) -> None:
    for reference in config.models:
        check_reference(reference, runs)
    _as_adapter(config, [resolve(reference, runs) for reference in config.models])


@job(check=_check)
def merge(session: Session[MergeConfig]) -> Outcome:
    """Average the weights of several models, or of several adapters."""
    from clew.merging.average import average, put
    from clew.merging.loading import adapter_tensors, save, stored_dtype
    from clew.models.loading import load_tokenizer

    config = session.config
    sources = [resolve(reference, session.run.path.parent) for reference in config.models]
    weights = config.weights or [1.0] * len(sources)
    as_adapter = _as_adapter(config, sources)
    session.horizon(len(sources), unit="model")
    opened = _Opened(session, sources, as_adapter=as_adapter)
    merged = average(opened, weights)
    model = opened.first
    put(model, merged)
    if not as_adapter:
        model.to(_dtype(config.dtype) or stored_dtype(sources[0]))
    elif (dtype := _dtype(config.dtype)) is not None:
        for tensor in adapter_tensors(model).values():
            tensor.data = tensor.data.to(dtype)
    with session.artifact("adapter" if as_adapter else "model") as folder:
        save(model, load_tokenizer(sources[0]), folder, as_adapter=as_adapter)
    shares = [
        {"model": reference, "share": weight / sum(weights)}
        for reference, weight in zip(config.models, weights, strict=True)
    ]
    count = sum(tensor.numel() for tensor in merged.values())
    return Outcome(
        metrics={"models": float(len(sources)), "parameters": float(count)},
        notes={"shares": shares},
    )


class _Opened:
    """The tensors of the models, one model in memory after the other; the first stays, to be written with the mean."""

    def __init__(self, session: Session[MergeConfig], sources: Sequence[ModelSource], *, as_adapter: bool) -> None:
        self.first: Any = None
        self._session = session
        self._sources = sources
        self._as_adapter = as_adapter

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        from clew.merging import differences
        from clew.merging.average import tensors_of
        from clew.merging.loading import adapter_tensors, describe, load_adapter, load_folded

        for step, source in enumerate(self._sources, start=1):
            model = load_adapter(source) if self._as_adapter else load_folded(source)
            described = describe(model, source, as_adapter=self._as_adapter)
            if self.first is None:
                self.first, expected = model, described
            if found := differences(expected, described):
                raise UserError(
                    f"{self._session.config.models[step - 1]} cannot be averaged with "
                    f"{self._session.config.models[0]}: {'; '.join(found[:4])}",
                    hint="adapters of different shapes can be averaged with adapters=fold" if self._as_adapter else "",
                )
            yield adapter_tensors(model) if self._as_adapter else tensors_of(model)
            self._session.log(step, models=step)
            self._session.boundary(step)


def _as_adapter(config: MergeConfig, sources: Sequence[ModelSource]) -> bool:
    """Return whether what comes out is an adapter.

    Raises:
        UserError: If only some of the models are adapters, and they are to stay adapters.
    """
    adapters = [
        reference for reference, source in zip(config.models, sources, strict=True) if source.adapter is not None
    ]
    if config.adapters == "fold" or not adapters:
        return False
    if len(adapters) < len(sources):
        raise UserError(
            f"{', '.join(adapters)}: an adapter cannot be averaged with a whole model", hint="set adapters=fold"
        )
    return True


def _dtype(name: str) -> Any:
    import torch

    return None if name == "auto" else getattr(torch, name)
