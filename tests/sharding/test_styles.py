"""How a module computes with its part, and which modules cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

from clew.errors import UserError
from clew.sharding.placing import Placed
from clew.sharding.styles import Between, Logits, OfEach, Whole, check_lengths, style_of

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
        (nn.RMSNorm(8), placed(("head",), NO), OfEach),
    ],
)
def test_the_placement_of_a_weight_decides(module, weight, style):
    assert type(style_of("a", module, {"weight": weight})) is style


PARTS = Between(Shard(1), Shard(-1))


@pytest.mark.parametrize(
    ("module", "weight", "style", "comes", "goes"),
    [
        (nn.Linear(8, 8), placed(("embed", "mlp"), NO, TENSOR), RowwiseParallel, Shard(-1), Shard(1)),
        (nn.Embedding(8, 8), placed(("vocab", "embed"), TENSOR, NO), RowwiseParallel, Replicate(), Shard(1)),
        (nn.Linear(8, 8), placed(("vocab", "embed"), TENSOR, NO), Logits, Shard(1), Shard(-1)),
        (nn.Linear(8, 8), placed(("mlp", "embed"), TENSOR, NO), ColwiseParallel, Replicate(), Shard(-1)),
    ],
)
def test_where_the_stream_is_split_products_scatter_what_comes_out_of_them(module, weight, style, comes, goes):
    found = style_of("a", module, {"weight": weight}, PARTS)
    assert type(found) is style
    assert (found.input_layouts, found.output_layouts) == ((comes,), (goes,))


@pytest.mark.parametrize(
    ("module", "axes", "comes", "goes"),
    [
        (nn.Embedding(8, 8), ("vocab", "embed"), Replicate(), Shard(1)),
        (nn.Linear(8, 8), ("vocab", "embed"), Shard(1), Replicate()),
    ],
)
def test_what_is_whole_takes_a_part_of_the_stream_or_gathers_it(module, axes, comes, goes):
    found = style_of("a", module, {"weight": placed(axes, NO, NO)}, PARTS)
    assert (type(found), found.enters, found.leaves) == (Whole, comes, goes)


def test_norms_compute_with_their_part_of_the_positions():
    norm = style_of("a", nn.RMSNorm(8), {"weight": placed(("embed",), NO)}, PARTS)
    assert (type(norm), norm.dim) == (OfEach, 1)
    of_heads = style_of("a", nn.RMSNorm(8), {"weight": placed(("head",), NO)}, PARTS)
    assert (type(of_heads), of_heads.dim) == (OfEach, 2)


def test_sequences_that_do_not_divide_are_refused():
    model = nn.Embedding(8, 8)
    check_lengths(model, 3)
    assert model(torch.zeros(2, 6, dtype=torch.int64)).shape == (2, 6, 8)
    with pytest.raises(ValueError, match="7 positions do not divide by 3"):
        model(torch.zeros(2, 7, dtype=torch.int64))


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
