from __future__ import annotations

from dataclasses import replace

from clew.merging import Described, differences

ONE = Described(
    config={"hidden_size": 32, "rope_theta": 1e4, "_name_or_path": "a", "dtype": "float32"},
    shapes={"embed": (10, 32), "norm": (32,)},
    vocabulary={"a": 0, "b": 1},
)


def test_models_that_mean_the_same_have_no_differences():
    other = replace(ONE, config={**ONE.config, "_name_or_path": "b", "dtype": "bfloat16"})
    assert differences(ONE, other) == []


def test_a_setting_that_no_shape_shows_is_a_difference():
    assert differences(ONE, replace(ONE, config={**ONE.config, "rope_theta": 1e6})) == [
        "rope_theta is 10000.0 and 1000000.0"
    ]


def test_settings_tensors_shapes_and_tokens_are_named():
    other = Described(
        config={"hidden_size": 64, "extra": True, "rope_theta": 1e4},
        shapes={"embed": (10, 64), "bias": (1,)},
        vocabulary={"a": 0, "c": 1, "b": 2},
    )
    assert differences(ONE, other) == [
        "extra is None and True",
        "hidden_size is 32 and 64",
        "only the first has norm",
        "only the second has bias",
        "the shape of embed is [10, 32] and [10, 64]",
        "the vocabularies differ in 2 tokens: 'b' is 1 and 2",
    ]


def test_tokenizers_that_cut_otherwise_are_a_difference_and_unknown_ones_are_not():
    one, other = ({"merges": "[]", "pre_tokenizer": rule} for rule in ("a", "b"))
    assert differences(replace(ONE, splitting=one), replace(ONE, splitting=other)) == [
        "the tokenizers cut texts in other ways (pre_tokenizer differs)"
    ]
    assert differences(replace(ONE, splitting=one), ONE) == []


def test_many_names_are_counted():
    other = replace(ONE, shapes={**ONE.shapes, **{f"layers.{number}": (1,) for number in range(9)}})
    assert differences(ONE, other) == ["only the second has layers.0, layers.1, layers.2 and 6 more"]
