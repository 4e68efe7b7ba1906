"""Several models to one, tensor by tensor, whatever the method."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clew.merging.group import Group, weighted_sum
from clew.merging.methods.base import MergeMethod
from clew.merging.weights import InMemory, Layout, Weights

_MEAN, _VARIANCE = "running_mean", "running_var"


@dataclass
class Merge:
    """A merge that is carried out as its tensors are asked for.

    - Floating tensors go through the method.
    - Tensors that hold no real numbers (counters, masks) are those of the first model; where others differ, their names
      are noted in ``differing``. A mean of counts would be a count of nothing.
    - Running statistics of normalisation layers are pooled by the models' shares, whatever the method: mean
      sum_i s_i m_i, variance sum_i s_i (v_i + (m_i - m)^2), as of all the data together. They are those of the parents'
      activations, and not of the merged model's: measure them anew by a pass over data where that counts, as SWA does.
    """

    method: MergeMethod
    models: Sequence[Weights]
    """With tensors of the same names and shapes."""
    weights: Sequence[float]
    base: Weights | None = None
    """What the models came from, for methods that use it; None where the tensors are differences already."""
    fisher: Sequence[Weights] | None = None
    """For methods that use it. A tensor that it lacks is merged without."""
    dtype: torch.dtype | None = None
    """Of floating tensors of the result; None keeps that of the first model."""
    seed: int = 0
    differing: list[str] = field(default_factory=list)

    @property
    def layout(self) -> dict[str, Layout]:
        """What comes out, in the order in which it does."""
        first = self.models[0].layout
        return {name: Layout(one.shape, self._dtype(one.dtype)) for name, one in first.items()}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each merged tensor with its name.

        Raises:
            UserError: If one is not finite.
            ValueError: If the models have other tensors.
        """
        for model in self.models[1:]:
            if odd := self.models[0].layout.keys() ^ model.layout.keys():
                raise ValueError(f"the tensors have other names: {', '.join(sorted(odd)[:3])}")
        for name in self.models[0].layout:
            yield name, self._merged(name)

    def _merged(self, name: str) -> Tensor:
        tensors = [model.read(name) for model in self.models]
        if not tensors[0].is_floating_point():
            if any(not torch.equal(tensors[0], other) for other in tensors[1:]):
                self.differing.append(name)
            return tensors[0].clone()
        if is_statistic(name, self.models[0].layout):
            return self._pooled(name).to(self._dtype(self.models[0].layout[name].dtype))
        return self.method.combine(self._group(name, tensors))

    def _group(self, name: str, tensors: Sequence[Tensor]) -> Group:
        known = self.fisher is not None and all(name in one.layout for one in self.fisher)
        return Group(
            name,
            tensors,
            self.weights,
            self._dtype(self.models[0].layout[name].dtype),
            base=self.base.read(name) if self.base is not None and self.method.uses_base else None,
            fisher=[one.read(name) for one in self.fisher or ()] if known else None,
            seed=self.seed,
        )

    def _pooled(self, name: str) -> Tensor:
        layer, dot, kind = name.rpartition(".")
        sizes = [abs(weight) for weight in self.weights]
        shares = [size / sum(sizes) for size in sizes]
        means = [model.read(layer + dot + _MEAN).double() for model in self.models]
        mean = weighted_sum(shares, means)
        if kind == _MEAN:
            return mean
        variances = [model.read(layer + dot + _VARIANCE).double() for model in self.models]
        return weighted_sum(shares, [one + (own - mean) ** 2 for one, own in zip(variances, means, strict=True)])

    def _dtype(self, own: torch.dtype) -> torch.dtype:
        return self.dtype if self.dtype is not None and own.is_floating_point else own


def is_statistic(name: str, names: Container[str]) -> bool:
    """Whether a tensor is the running mean or variance of a normalisation layer.

    Args:
        name: Its name.
        names: Those of all tensors: a variance without a mean beside it is pooled by nothing.
    """
    layer, dot, kind = name.rpartition(".")
    return kind in (_MEAN, _VARIANCE) and f"{layer}{dot}{_MEAN}" in names


def merge_tensors(
    method: MergeMethod,
    models: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float] | None = None,
    *,
    base: Mapping[str, Tensor] | None = None,
    fisher: Sequence[Mapping[str, Tensor]] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Merge models that are in memory, such as ``tensors_of(model)`` of each.

    Args:
        method: How.
        models: Tensors of the same names and shapes.
        weights: One for each model; None means 1 for each.
        base: What the models came from; None takes the tensors as differences from zero.
        fisher: Diagonal Fisher information of each model.
        seed: Of what the method draws.

    Returns:
        The merged tensors, in the dtypes of the first model.

    Raises:
        UserError: If the method cannot merge so many models or take such weights, or something is not finite.
        ValueError: If the names or the number of weights do not agree.
    """
    weights = [1.0] * len(models) if weights is None else list(weights)
    if len(weights) != len(models):
        raise ValueError(f"{len(weights)} weights for {len(models)} models")
    method.check(weights)
    return dict(
        Merge(
            method,
            [InMemory(model) for model in models],
            weights,
            None if base is None else InMemory(base),
            None if fisher is None else [InMemory(one) for one in fisher],
            seed=seed,
        )
    )
