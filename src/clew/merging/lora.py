"""LoRA adapters as what they add to the weights of their base, and back (Hu et al. 2021, arXiv:2106.09685).

The mean of two products is not the product of two means, so the matrices A and B of adapters are never merged by
themselves: the products are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clew.errors import UserError
from clew.merging.weights import Files, Layout, Weights

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
# They train something besides A and B, change the base, or turn the product.
_BEYOND = ("use_dora", "modules_to_save", "fan_in_fan_out", "lora_bias", "layer_replication", "trainable_token_indices")


class Lora:
    """The products of an adapter's matrices, by the names of the weights that they are added to.

    Args:
        folder: With ``adapter_config.json`` and its safetensors file.

    Raises:
        UserError: If the adapter is more than such products; see :func:`beyond`.
    """

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        self.files = Files(folder)
        if reason := beyond(self.config, self.files.layout):
            raise UserError(
                f"this adapter is more than products of two matrices: {reason}",
                where=str(folder),
                hint="set adapters=fold, and it is added to its base",
            )
        self.modules = sorted(name[: -len(_A)] for name in self.files.layout if name.endswith(_A))
        self.layout = {weight_of(module): self._dense(module) for module in self.modules}
        self._module = {weight_of(module): module for module in self.modules}

    @property
    def rank(self) -> int:
        """The largest rank of a product."""
        return max(self.files.layout[module + _A].shape[0] for module in self.modules)

    @property
    def dtype(self) -> torch.dtype:
        """In which the matrices are stored."""
        return self.files.layout[self.modules[0] + _A].dtype

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """Return B [out, r], with the adapter's scale in it, and A [r, in], in float64."""
        module = self._module[name]
        one, other = self.files.read(module + _A).double(), self.files.read(module + _B).double()
        return other * self._scale(module, one.shape[0]), one

    def read(self, name: str) -> Tensor:
        """Return scale B A [out, in] in float64."""
        other, one = self.factors(name)
        return other @ one

    def _dense(self, module: str) -> Layout:
        shape = (self.files.layout[module + _B].shape[0], self.files.layout[module + _A].shape[1])
        return Layout(shape, torch.float64)

    def _scale(self, module: str, rank: int) -> float:
        from peft.utils.other import get_pattern_key

        patterns = self.config.get("alpha_pattern") or {}
        key = get_pattern_key(patterns.keys(), module.removeprefix(_PREFIX))
        alpha = float(patterns.get(key, self.config["lora_alpha"]))
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank


class Folded:
    """The weights of a base with an adapter added to them, tensor by tensor.

    Args:
        base: The base's weights.
        adapter: The adapter.

    Raises:
        UserError: If the adapter is for other weights.
    """

    def __init__(self, base: Weights, adapter: Lora) -> None:
        if missing := sorted(adapter.layout.keys() - base.layout.keys()):
            raise UserError(f"the adapter is for another base, one that has {missing[0]}")
        self._base, self._adapter = base, adapter
        self.layout = base.layout

    def read(self, name: str) -> Tensor:
        """Return a tensor; in float32 (float64 for a base in float64) where the adapter adds to it."""
        tensor = self._base.read(name)
        if name not in self._adapter.layout:
            return tensor
        wide = torch.promote_types(tensor.dtype, torch.float32)
        other, one = (factor.to(wide) for factor in self._adapter.factors(name))
        return torch.addmm(tensor.to(wide), other, one)


class Padded:
    """An adapter among others, which adds nothing to the weights that only they change.

    Args:
        adapter: The adapter.
        layout: The weights that any of them changes.
    """

    def __init__(self, adapter: Weights, layout: Mapping[str, Layout]) -> None:
        self._adapter = adapter
        self.layout = layout

    def read(self, name: str) -> Tensor:
        """Return what the adapter adds."""
        if name in self._adapter.layout:
            return self._adapter.read(name)
        shape, dtype = self.layout[name]
        return torch.zeros((), dtype=dtype).expand(shape)


def beyond(config: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    """Return what of an adapter is not a product of two matrices that is added to a weight; empty for nothing.

    Args:
        config: ``adapter_config.json``.
        names: Of its tensors.
    """
    if config.get("peft_type") != "LORA":
        return f"it is {config.get('peft_type')}, not LORA"
    if some := next((name for name in _BEYOND if config.get(name)), ""):
        return f"it has {some}"
    if isinstance(config.get("init_lora_weights"), str) and config["init_lora_weights"] != "gaussian":
        return f"its base was changed by init_lora_weights={config['init_lora_weights']}"
    return next((f"it holds {name}" for name in names if not name.endswith((_A, _B))), "")


def factor(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """Return the best factors of a matrix at a rank (Eckart & Young 1936): its truncated SVD, halved between them.

    Args:
        delta: [out, in], float64.
        rank: Of the factors; what a smaller matrix does not need is zeros.

    Returns:
        A [rank, in], B [out, rank], and the part of the squared Frobenius norm that their product keeps.
    """
    left, sizes, right = torch.linalg.svd(delta, full_matrices=False)
    used = min(rank, len(sizes))
    roots = sizes[:used].sqrt()
    one, other = delta.new_zeros(rank, delta.shape[1]), delta.new_zeros(delta.shape[0], rank)
    one[:used] = roots[:, None] * right[:used]
    other[:, :used] = left[:, :used] * roots
    total = float((sizes**2).sum())
    return one, other, float((sizes[:used] ** 2).sum()) / total if total else 1.0


def factored_config(config: Mapping[str, Any], names: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Return the config of an adapter whose products are taken as they are, without a scale.

    Args:
        config: Of an adapter for the same base.
        names: The weights that it changes.
        rank: Of all its products.
    """
    modules = [name.removesuffix(".weight") for name in names]
    plain = {"rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, "init_lora_weights": True}
    return {**config, **plain, "r": rank, "lora_alpha": rank, "target_modules": modules, "inference_mode": True}


def factor_names(name: str) -> tuple[str, str]:
    """Return the names of A and B for a weight, as PEFT stores them."""
    module = _PREFIX + name.removesuffix(".weight")
    return module + _A, module + _B


def weight_of(module: str) -> str:
    """Return the name of the weight that a module of an adapter's file changes."""
    return module.removeprefix(_PREFIX) + ".weight"


def union(adapters: Sequence[Lora]) -> dict[str, Layout]:
    """Return the weights that any of several adapters changes."""
    return {name: layout for one in adapters for name, layout in one.layout.items()}
