"""The LoRA adapter of a live PEFT model as what it adds to the weights of its base, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from clew.errors import UserError
from clew.merging.aligned import refuse
from clew.merging.compatibility import Described, differences
from clew.merging.lora import Lora, beyond, factor, weight_of
from clew.merging.merge import Merge
from clew.merging.staging import Change
from clew.merging.weights import Layout, Weights

_SAME = 1e-12
"""Relative; some hundred times what summing up in float64 loses."""

Factors = tuple[Tensor, Tensor]
"""B [out, r], with the adapter's scale in it, and A [r, in], in float64."""


class Factored(Weights, Protocol):
    """Products of two matrices."""

    def factors(self, name: str) -> Factors | None:
        """Return the two; None where there are none and the product is zeros."""


class LiveLora:
    """The products of an adapter that trains at this moment, by the names of the weights that they are added to.

    Args:
        model: A PEFT model.
        adapter: The adapter's name.

    Raises:
        UserError: If the adapter is more than such products.
    """

    def __init__(self, model: nn.Module, adapter: str = "default") -> None:
        self._config: dict[str, Any] = dict(cast(Any, model).peft_config[adapter].to_dict())
        if reason := beyond(self._config, {}) or _embeds(model, adapter):
            raise UserError(f"what trains is more than products of two matrices: {reason}")
        self._adapter = adapter
        self._layers = dict(_layers(model, adapter))
        self.layout = {name: Layout((two.shape[0], one.shape[1]), torch.float64) for name, one, two in self._matrices()}

    def factors(self, name: str) -> Factors:
        """Return B, with the adapter's scale in it, and A, in float64 on the CPU."""
        one, two, scale = self._parts(name)
        return two.detach().cpu().double() * scale, one.detach().cpu().double()

    def read(self, name: str) -> Tensor:
        """Return scale B A [out, in] in float64."""
        two, one = self.factors(name)
        return two @ one

    def align(self, adapter: Lora, name: str) -> Factored:
        """Return an adapter that adds nothing to the weights that only this one changes.

        Args:
            adapter: The adapter.
            name: What it is called.

        Raises:
            UserError: If it stands on another base, or changes weights that this one leaves alone.
        """
        key = "base_model_name_or_path"
        ours = Described({"base": self._config[key]}, {one: layout.shape for one, layout in self.layout.items()})
        kept = {one: layout.shape for one, layout in adapter.layout.items()}
        theirs = Described({"base": adapter.config[key]}, {**ours.shapes, **kept})
        refuse(name, differences(ours, theirs))
        return _Aligned(adapter, self.layout)

    @torch.no_grad()
    def merge(self, merge: Merge, sources: Sequence[Factored]) -> tuple[Change, dict[str, Any]]:
        """Carry out a merge into A and B, all of them or none.

        Args:
            merge: Of products in float64.
            sources: Its models. Where one's product comes out, its matrices are taken as they are, if their rank fits.

        Returns:
            How far the products have moved, and the largest rank with the part of their squared norm that is kept.

        Raises:
            UserError: If something is not finite.
        """
        made, change, parts = {}, Change(), []
        for name, delta in merge:
            rank = self._parts(name)[0].shape[0]
            change.add(self.read(name), delta)
            made[name] = _found(delta, name, sources, rank) or _factor(delta, rank)
            parts.append(_kept(delta, made[name]))
        for name, (two, one) in made.items():
            own_one, own_two, scale = self._parts(name)
            own_one.copy_(one)
            own_two.copy_(two / scale)
        rank = max(two.shape[1] for two, _ in made.values())
        return change, {"rank": rank, "kept_mean": sum(parts) / len(parts), "kept_least": min(parts)}

    def _parts(self, name: str) -> tuple[Tensor, Tensor, float]:
        """Return A [r, in], B [out, r] and the factor of their product."""
        layer, adapter = self._layers[name], self._adapter
        return layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, float(layer.scaling[adapter])

    def _matrices(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        for name in self._layers:
            one, two, _ = self._parts(name)
            yield name, one, two


class _Aligned:
    """An adapter among others."""

    def __init__(self, adapter: Lora, layout: dict[str, Layout]) -> None:
        self._adapter = adapter
        self.layout = layout

    def factors(self, name: str) -> Factors | None:
        return self._adapter.factors(name) if name in self._adapter.layout else None

    def read(self, name: str) -> Tensor:
        found = self.factors(name)
        if found is None:
            return torch.zeros((), dtype=torch.float64).expand(self.layout[name].shape)
        return found[0] @ found[1]


def _layers(model: nn.Module, adapter: str) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and adapter in layer.lora_A:
            yield weight_of(name), layer


def _embeds(model: nn.Module, adapter: str) -> str:
    from peft.tuners.lora import LoraLayer

    layers = ((name, one) for name, one in model.named_modules() if isinstance(one, LoraLayer))
    return next((f"it changes the embeddings {name}" for name, one in layers if adapter in one.lora_embedding_A), "")


def _factor(delta: Tensor, rank: int) -> Factors:
    one, two, _ = factor(delta, rank)
    return two, one


def _found(delta: Tensor, name: str, sources: Sequence[Factored], rank: int) -> Factors | None:
    """Return the matrices of the source whose product this is, filled up with zeros; None if it is no one's."""
    for source in sources:
        found = source.factors(name)
        if found is not None and found[1].shape[0] <= rank and torch.allclose(found[0] @ found[1], delta, _SAME, 0.0):
            more = rank - found[1].shape[0]
            return nn.functional.pad(found[0], (0, more)), nn.functional.pad(found[1], (0, 0, 0, more))
    return None


def _kept(delta: Tensor, factors: Factors) -> float:
    """The part of a product's squared norm that its factors keep: the rest of a projection is at a right angle."""
    total = float(delta.square().sum())
    return 1.0 - float((delta - factors[0] @ factors[1]).square().sum()) / total if total else 1.0
