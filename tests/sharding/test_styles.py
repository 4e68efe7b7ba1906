"""How a module computes with its part, and which modules cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

from clew.errors import UserError
from clew.sharding.placing import Placed
from clew.sharding.styles import Logits, OfEachHead, Whole, style_of

TENSOR, NO = ("tensor",), ()


def placed(axes: tuple[str, ...], *split: tuple[str, ...]) -> Placed:
    return Placed("a.weight", (8,) * len(axes), axes, split, split)


@pytest.mark.parametrize(
    ("module", "weight", "style"),
    [
        (nn.Linear(8, 8), placed(("mlp", "embed"), TENSOR, NO), ColwiseParallel),
        (nn.Linear(8, 8), placed(("embed", "mlp"), NO, TENSOR), RowwiseParallel),
        (nn.Linear(8, 8), placed(("vocab", "embed"), TENSOR, NO), Logits),
        (nn.Embedding(8, 8), placed(("vocab", "embed"), TENSOR, NO), RowwiseParallel),
        (nn.RMSNorm(8), placed(("embed",), NO), Whole),
        (nn.RMSNorm(8), placed(("head",), NO), OfEachHead),
    ],
)
def test_the_placement_of_a_weight_decides(module, weight, style):
    assert type(style_of("a", module, {"weight": weight})) is style


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8, 8))
        self.inner = nn.Linear(8, 8)


def test_only_linear_layers_and_embeddings_can_be_split():
    with pytest.raises(UserError, match=r"a.weight cannot be split over 'tensor' along 'mlp': a is a Odd") as caught:
        style_of("a", Odd(), {"weight": placed(("embed", "mlp"), NO, TENSOR)})
    assert caught.value.where == "mesh.compute.mlp"


def test_a_module_with_modules_and_weights_of_its_own_cannot_be_left_whole():
    with pytest.raises(UserError, match=r"a.weight belongs to a module with modules in it"):
        style_of("a", Odd(), {"weight": placed(("embed", "other"), NO, NO)})
