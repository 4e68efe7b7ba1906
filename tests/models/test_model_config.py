from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.models import ModelConfig


@given(depth=st.integers(1, 64))
def test_every_depth_gives_a_consistent_shape(depth):
    shape = ModelConfig(depth=depth).shape
    assert shape.layers == depth
    assert shape.width == 64 * depth
    assert shape.heads >= 4
    assert shape.head_width == (64 if depth >= 4 else 16 * depth)
    assert shape.heads % shape.kv_heads == 0
    assert shape.mlp_width % 64 == 0
    assert 0 <= shape.mlp_width - 8 * shape.width / 3 < 64


def test_the_learning_rate_falls_as_one_over_the_width_and_is_capped():
    assert ModelConfig(depth=12).shape.learning_rate == pytest.approx(6e-4)
    assert ModelConfig(depth=24).shape.learning_rate == pytest.approx(3e-4)
    assert ModelConfig(depth=1).shape.learning_rate == 1e-3


def test_each_size_can_be_given():
    shape = ModelConfig(depth=2, width=48, heads=6, kv_heads=3, mlp_width=100).shape
    assert (shape.width, shape.heads, shape.kv_heads, shape.mlp_width) == (48, 6, 3, 100)


def test_a_tiny_model_has_less_than_half_a_million_parameters():
    assert 350_000 < ModelConfig(depth=2).shape.num_parameters(258) < 500_000


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 100, "heads": 3}, "width and heads: a width of 100 does not split into 3 heads"),
        ({"width": 6, "heads": 2}, "width and heads: a width of 6 does not split into 2 heads of an even width"),
        ({"heads": 4, "width": 64, "kv_heads": 3}, "heads and kv_heads: 4 query heads cannot share 3"),
    ],
)
def test_sizes_that_do_not_fit_name_both_fields(sizes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(depth=2, **sizes)
