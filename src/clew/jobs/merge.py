"""Merge: one model from several of the same architecture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from clew.config import Plugin, config
from clew.errors import UserError
from clew.jobs.base import JobConfig, RuntimeConfig, job
from clew.jobs.merge_fit import check_fit, refuse
from clew.jobs.merge_states import check_states, merge_states, states_of
from clew.merging.methods import MergeMethod
from clew.merging.methods.average import Average
from clew.merging.methods.fisher import Fisher
from clew.models.source import ModelReference, ModelSource, check_reference, resolve
from clew.session import Outcome, Session
from clew.tasks import Task, has_part, require_parts

if TYPE_CHECKING:
    from clew.merging.merge import Merge
    from clew.merging.weights import Weights


@config
class MergeConfig(JobConfig):
    """The models, how much of each, and how they become one."""

    models: list[ModelReference] = Field(default_factory=list)
    """Model or adapter folders, .gguf files, hub ids, URLs, or `run:NAME` with optional `@best`, `@last` or `@STEP`."""
    method: Annotated[MergeMethod, Plugin("method", word=True)] = Field(default_factory=Average)
    """How the weights are combined: a method's name, or a section with its options."""
    weights: list[float] | None = None
    """One for each model: shares, of which only the ratios count, or factors, as the method has it; null is 1 each."""
    base: ModelReference | None = None
    """The model that all came from, for methods that need it; null is the base of adapters that have the same one."""
    adapters: Literal["factor", "fold", "average"] = "factor"
    """Merge what adapters add to their base, and factor it again; or fold each into its base, and merge whole models.
    average is an older name of factor."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """Rank of the merged adapter; null is the largest rank of those that are merged."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of the weights that are written; auto is the one in which the first model is stored."""
    task: Annotated[Task | None, Plugin("task")] = None
    """Whose examples (or documents) the method fisher estimates its weights on."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device and threads; the device is used by fisher alone."""

    def __post_init__(self) -> None:
        if self.models and not self.method.adds_models:
            self.factors(len(self.models))

    def settled(self, runs: Path) -> Mapping[str, Any]:
        """Return the options of the method that are open; later they could mean other models."""
        found = self.method.settled(runs)
        return {"method": found} if found else {}

    def references(self, runs: Path) -> list[str]:
        """Return all models that are merged, with those that the method names."""
        return [*self.models, *self.method.references(runs)]

    def factors(self, count: int) -> list[float]:
        """Return a weight for each model.

        Raises:
            UserError: If their number or their values do not fit.
        """
        weights = [1.0] * count if self.weights is None else self.weights
        if len(weights) != count:
            raise UserError(f"weights and models: {len(weights)} weights for {count} models")
        self.method.check(weights)
        return weights


def _check(config: MergeConfig, runs: Path) -> None:
    _check_used(config)
    references = config.references(runs)
    config.factors(len(references))
    if states := states_of(references, runs):
        check_states(config, references, states, runs)
        return
    for reference in [*references, *([config.base] if config.base else [])]:
        check_reference(reference, runs)
    sources = [resolve(reference, runs) for reference in references]
    as_adapter = _as_adapter(config, references, sources)
    base = _base(config, sources, runs, as_adapter=as_adapter)
    check_fit(references, sources, base, as_adapter=as_adapter)


def _check_used(config: MergeConfig) -> None:
    """Refuse what the method lacks, and what it would pass over in silence."""
    estimates = isinstance(config.method, Fisher)
    if estimates and config.task is None:
        raise UserError("fisher is estimated on examples, and there is no task", hint="name the task that has them")
    if config.task is not None and not estimates:
        raise UserError("only the method fisher uses a task", hint="leave task out")
    if config.task is not None and not has_part(config.task, "examples"):
        require_parts(config.task, "documents", needed_by="merge")
    if config.base is not None and not config.method.uses_base:
        raise UserError("this method uses no base", hint="leave base out")


@job(check=_check)
def merge(session: Session[MergeConfig]) -> Outcome:
    """Merge several models, or several adapters, into one."""
    from clew.merging.merge import Merge

    config, runs = session.config, session.run.path.parent
    references = config.references(runs)
    weights = config.factors(len(references))
    if states := states_of(references, runs):
        check_states(config, references, states, runs)
        notes = merge_states(session, states)
        return _outcome(config, references, weights, notes.pop("parameters"), notes)
    sources = [resolve(reference, runs) for reference in references]
    as_adapter = _as_adapter(config, references, sources)
    base = _base(config, sources, runs, as_adapter=as_adapter)
    models, opened_base = _opened(references, sources, base, as_adapter=as_adapter)
    with _information(session, sources, models[0]) as fisher:
        merged = Merge(config.method, models, weights, opened_base, fisher, _dtype(config, as_adapter), config.seed)
        session.horizon(len(merged.layout), unit="tensor")
        notes = _publish(session, merged, sources, as_adapter=as_adapter)
    parameters = sum(math.prod(one.shape) for one in merged.layout.values())
    return _outcome(config, references, weights, parameters, notes)


def _outcome(
    config: MergeConfig, references: Sequence[str], weights: Sequence[float], parameters: int, notes: dict[str, Any]
) -> Outcome:
    named = zip(references, weights, strict=True)
    whole = 1.0 if config.method.any_weights else sum(weights)
    return Outcome(
        metrics={"models": float(len(references)), "parameters": float(parameters)},
        notes={"shares": [{"model": name, "share": weight / whole} for name, weight in named], **notes},
    )


def _opened(
    references: Sequence[str], sources: Sequence[ModelSource], base: ModelSource | None, *, as_adapter: bool
) -> tuple[list[Weights], Weights | None]:
    """Return the weights of the models and of their base.

    Raises:
        UserError: If they do not fit together; with the differences.
    """
    from clew.merging import differences
    from clew.merging.lora import Lora, Padded, union
    from clew.merging.opening import describe, open_model

    models: list[Weights]
    if as_adapter:
        adapters = [Lora(source.adapter) for source in sources if source.adapter]
        models = [Padded(adapter, union(adapters)) for adapter in adapters]
    else:
        models = [open_model(source) for source in sources]
    first = describe(models[0], sources[0], as_adapter=as_adapter)
    for reference, source, weights in zip(references[1:], sources[1:], models[1:], strict=True):
        refuse(references[0], reference, differences(first, describe(weights, source, as_adapter=as_adapter)))
    opened_base = None if base is None else open_model(base)
    if base is not None and opened_base is not None:
        refuse(references[0], f"the base {base.reference}", differences(first, describe(opened_base, base)))
    return models, opened_base


def _information(
    session: Session[MergeConfig], sources: Sequence[ModelSource], first: Weights
) -> AbstractContextManager[list[Weights] | None]:
    """Give the Fisher information of each model, where the method uses it."""
    config = session.config
    if not isinstance(config.method, Fisher) or config.task is None:
        return nullcontext()
    from clew.jobs.fisher import estimated
    from clew.train.devices import prepare

    device = prepare(config.runtime.device, config.runtime.threads, config.seed)
    return estimated(session, sources, first, config.task, config.method, device)


def _publish(
    session: Session[MergeConfig], merged: Merge, sources: Sequence[ModelSource], *, as_adapter: bool
) -> dict[str, Any]:
    """Carry out the merge into an artifact, and return what there is to say about it."""
    from clew.merging.lora import Lora
    from clew.merging.writing import write_adapter, write_model

    config, steps = session.config, itertools.count(1)

    def tick() -> None:
        step = next(steps)
        session.log(step, tensors=step)
        session.boundary(step)

    folded = [source.reference for source in sources if source.adapter]
    notes: dict[str, Any] = {}
    with session.artifact("adapter" if as_adapter else "model") as folder:
        if as_adapter:
            adapters = [Lora(source.adapter) for source in sources if source.adapter]
            made = write_adapter(
                merged, adapters, sources[0], folder, tick, rank=config.rank, dtype=_chosen_dtype(config)
            )
            notes["adapters"] = {"form": "factored", **made}
        else:
            write_model(merged, sources[0], folder, tick)
            notes |= {"adapters": {"form": "dense", "folded": len(folded)}} if folded else {}
    return {**notes, "taken_from_first": merged.differing} if merged.differing else notes


def _as_adapter(config: MergeConfig, references: Sequence[str], sources: Sequence[ModelSource]) -> bool:
    """Return whether what comes out is an adapter.

    Raises:
        UserError: If only some of the models are adapters, and they are to stay adapters.
    """
    adapters = [reference for reference, source in zip(references, sources, strict=True) if source.adapter is not None]
    if config.adapters == "fold" or not adapters:
        return False
    if len(adapters) < len(sources):
        raise UserError(
            f"{', '.join(adapters)}: an adapter cannot be merged with a whole model", hint="set adapters=fold"
        )
    return True


def _base(config: MergeConfig, sources: Sequence[ModelSource], runs: Path, *, as_adapter: bool) -> ModelSource | None:
    """Return the model that all came from; None where none is needed, as for adapters that stay adapters.

    Raises:
        UserError: If one is needed and not named, or if adapters have another one.
    """
    if not config.method.uses_base:
        return None
    named = resolve(config.base, runs) if config.base else None
    own = {source.reference for source in sources}
    if as_adapter:
        if named is not None and own != {named.reference}:
            raise UserError(f"base: the adapters are for {', '.join(sorted(own))}", hint="leave base out")
        return None
    if named is None and len(own) == 1 and all(source.adapter for source in sources):
        named = replace(sources[0], adapter=None)
    if named is None:
        raise UserError("this method needs the model that all came from", hint="name it: base=...")
    return named


def _dtype(config: MergeConfig, as_adapter: bool) -> Any:
    """Differences stay in float64 until they are factored."""
    import torch

    return torch.float64 if as_adapter else _chosen_dtype(config)


def _chosen_dtype(config: MergeConfig) -> Any:
    import torch

    return None if config.dtype == "auto" else getattr(torch, config.dtype)
