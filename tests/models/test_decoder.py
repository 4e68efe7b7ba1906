from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from clew.models.axes import AXES, axis_sizes, layer_of, logical_axes
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder, rotary_table, rotate

GROUPED = ModelConfig(depth=2, width=32, heads=4, kv_heads=2)


def decoder(config: ModelConfig = GROUPED, vocab_size: int = 50, context: int = 16) -> Decoder:
    torch.manual_seed(0)
    return Decoder(config, vocab_size, context)


def test_the_parameter_count_of_the_shape_is_that_of_the_model():
    for tied in (True, False):
        model = decoder(ModelConfig(depth=3, tied=tied), vocab_size=77)
        assert sum(p.numel() for p in model.parameters()) == model.shape.num_parameters(77)


def test_a_position_sees_no_later_token():
    model = decoder()
    tokens = torch.randint(0, 50, (2, 10))
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 50
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_a_new_model_predicts_all_tokens_about_equally():
    model = decoder(ModelConfig(depth=4), vocab_size=258, context=64)
    tokens = torch.randint(0, 258, (4, 64))
    loss = F.cross_entropy(model(tokens).flatten(0, 1), torch.randint(0, 258, (4 * 64,)))
    assert loss.item() == pytest.approx(math.log(258), rel=0.02)


def test_the_residual_stream_of_a_deep_new_model_does_not_grow():
    model = decoder(ModelConfig(depth=16, width=64, heads=2, kv_heads=1))
    shallow = decoder(ModelConfig(depth=1, width=64, heads=2, kv_heads=1))
    writes = [layer.mlp.down.weight.std() for layer in (model.layers[0], shallow.layers[0])]
    assert (writes[0] / writes[1]).item() == pytest.approx(1 / 4, rel=0.05)


def test_tied_embeddings_are_one_parameter():
    model = decoder()
    assert model.head.weight is model.embed.weight
    assert "head.weight" not in dict(model.named_parameters())


def test_too_many_positions_are_refused():
    with pytest.raises(ValueError, match="17 positions, but this decoder's context is 16"):
        decoder()(torch.zeros(1, 17, dtype=torch.int64))


def test_rotation_keeps_lengths_and_makes_scores_depend_on_the_distance_only():
    cos, sin = rotary_table(32, 8, 100.0)
    query, key = torch.randn(8), torch.randn(8)
    queries = rotate(query.expand(1, 1, 32, 8), cos, sin)[0, 0]
    keys = rotate(key.expand(1, 1, 32, 8), cos, sin)[0, 0]
    assert torch.allclose(queries.norm(dim=-1), query.norm().expand(32), atol=1e-5)
    scores = queries @ keys.T
    for distance in range(8):
        diagonal = scores.diagonal(offset=-distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4)


def test_shared_key_value_heads_equal_repeated_ones():
    model, full = decoder(), decoder(ModelConfig(depth=2, width=32, heads=4, kv_heads=4))
    weights = model.state_dict()
    for name, weight in weights.items():
        if name.endswith(("key.weight", "value.weight")):
            weights[name] = weight.view(2, 8, 32).repeat_interleave(2, dim=0).view(32, 32)
    full.load_state_dict(weights)
    tokens = torch.randint(0, 50, (2, 16))
    assert torch.allclose(model(tokens), full(tokens), atol=1e-5)


def test_every_parameter_declares_axes_of_agreeing_sizes():
    model = decoder(ModelConfig(depth=2, width=32, heads=4, kv_heads=2, mlp_width=48, tied=False))
    axes = logical_axes(model)
    assert axes.keys() == dict(model.named_parameters()).keys()
    assert {axis for names in axes.values() for axis in names} <= set(AXES)
    assert axis_sizes(model) == {"vocab": 50, "embed": 32, "heads": 32, "kv": 16, "mlp": 48}


def test_a_parameter_without_axes_is_named():
    model = decoder()
    model.layers[1].gain = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=r"'layers.1.gain' declares no logical axes"):
        logical_axes(model)


def test_a_parameter_of_another_rank_is_named():
    model = decoder()
    model.norm.weight = torch.nn.Parameter(torch.ones(32, 1))
    with pytest.raises(ValueError, match=r"'norm.weight' has 2 dimensions, but declares \('embed',\)"):
        logical_axes(model)


def test_disagreeing_sizes_are_named():
    model = decoder()
    model.layers[1].mlp.up.weight = torch.nn.Parameter(torch.ones(5, 32))
    with pytest.raises(ValueError, match=r"axis 'mlp' is 128 elsewhere, but 5 in 'layers.1.mlp.up.weight'"):
        axis_sizes(model)


def test_the_layer_of_a_parameter_is_in_its_name():
    assert layer_of("layers.12.mlp.up.weight") == 12
    assert layer_of("embed.weight") is None
