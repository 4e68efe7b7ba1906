"""Where rules put the parameters of a model, and the errors of rules that cannot be carried out."""

from __future__ import annotations

import pytest

from clew.errors import UserError
from clew.sharding import MeshConfig
from clew.sharding.declared import OTHER, Declared, by_patterns, family, layer_name
from clew.sharding.placing import place

DECLARED = Declared(
    axes={
        "embed.weight": ("vocab", "embed"),
        "layers.0.q.weight": ("heads", "embed"),
        "layers.0.q.bias": ("heads",),
        "layers.0.k.weight": ("kv", "embed"),
        "layers.0.down.weight": ("embed", "mlp"),
        "norm.weight": ("embed",),
    },
    shapes={
        "embed.weight": (37, 32),
        "layers.0.q.weight": (32, 32),
        "layers.0.q.bias": (32,),
        "layers.0.k.weight": (16, 32),
        "layers.0.down.weight": (32, 60),
        "norm.weight": (32,),
    },
    units={"heads": 8, "kv": 8},
)


def sizes(**axes: int) -> dict[str, int]:
    """How many devices an axis has; one where nothing is said."""
    return {"data": 1, "fsdp": 1, "tensor": 1, **axes}


EIGHT = sizes(fsdp=4, tensor=2)


def placed(config: MeshConfig, devices: dict[str, int]):
    return {one.name: one for one in place(DECLARED, devices, config.rules)}


def test_at_rest_a_parameter_is_split_over_both_axes_and_in_compute_over_one():
    found = placed(MeshConfig(preset="fsdp+tp"), EIGHT)
    query = found["layers.0.q.weight"]
    assert (query.at_rest, query.compute) == ((("tensor",), ("fsdp",)), (("tensor",), ()))
    assert query.largest_part(query.at_rest, EIGHT) == (16, 8)
    assert (query.fsdp_dim, query.tensor_dim) == (1, 0)
    down = found["layers.0.down.weight"]
    assert (down.at_rest, down.tensor_dim) == ((("fsdp",), ("tensor",)), 1)
    assert found["norm.weight"].compute == ((),)


def test_a_parameter_without_the_axis_of_a_rule_is_split_along_its_first_one():
    bias = placed(MeshConfig(preset="fsdp+tp"), EIGHT)["layers.0.q.bias"]
    assert bias.at_rest == (("tensor", "fsdp"),)
    assert bias.largest_part(bias.at_rest, EIGHT) == (4,)


def test_replicas_are_whole():
    found = placed(MeshConfig(preset="ddp"), sizes(data=8))
    assert all(one.at_rest == one.compute == ((),) * len(one.shape) for one in found.values())


@pytest.mark.parametrize(
    ("config", "devices", "where", "message"),
    [
        (
            MeshConfig(preset="fsdp", at_rest={"heads": "fsdp"}),
            EIGHT,
            "mesh.at_rest.embed",
            r"layers.0.q.weight \['heads', 'embed'\] is split over 'fsdp' twice: by 'heads' and by 'embed'",
        ),
        (
            MeshConfig(preset="tp"),
            sizes(tensor=4),
            "mesh.compute.kv",
            r"layers.0.k.weight \[16, 32\]: the 2 heads of 'kv' do not divide by tensor=4",
        ),
        (
            MeshConfig(preset="fsdp"),
            sizes(fsdp=64),
            "mesh.at_rest.embed",
            r"embed.weight \[37, 32\]: the 32 of 'embed' do not divide by fsdp=64",
        ),
        (
            MeshConfig(preset="tp", compute={"kv": None}, at_rest={"kv": None}),
            sizes(tensor=2),
            "mesh.compute.kv",
            "a device needs the keys and values of its queries",
        ),
        (
            MeshConfig(preset="tp", compute={"mlp": None}),
            sizes(tensor=2),
            "mesh.at_rest.mlp",
            "layers.0.down.weight must be split over 'tensor' at rest and in compute, or in neither",
        ),
        (
            MeshConfig(preset="fsdp", at_rest={"embed": None, "first": None}),
            sizes(fsdp=2),
            "mesh.at_rest",
            r"no rule splits embed.weight \['vocab', 'embed'\] over 'fsdp', which has 2 devices",
        ),
        (
            MeshConfig(preset="fsdp", at_rest={"embed": "data"}),
            sizes(data=2, fsdp=2),
            "mesh.at_rest.embed",
            "embed.weight cannot be split over 'data'",
        ),
        (
            MeshConfig(preset="fsdp", compute={"mlp": "fsdp"}),
            sizes(fsdp=2),
            "mesh.compute.mlp",
            "layers.0.down.weight cannot be split over 'fsdp' in compute",
        ),
        (
            MeshConfig(preset="none", compute={"embed": "tensor"}, at_rest={"embed": "tensor"}),
            sizes(tensor=2),
            "mesh.compute.embed",
            "cannot be split over 'tensor' along 'embed'",
        ),
        (
            MeshConfig(preset="ddp", compute={"batch": "fsdp"}),
            sizes(data=2),
            "mesh.compute.batch",
            "the batch is not split over 'data'",
        ),
        (
            MeshConfig(preset="tp", compute={"seq": "tensor"}),
            sizes(tensor=2),
            "mesh.compute.seq",
            "the model of embed.weight does not say where its stream is, so sequences stay whole",
        ),
        (
            MeshConfig(preset="tp", compute={"seq": "context"}),
            sizes(tensor=2),
            "mesh.compute.seq",
            "'seq' cannot be split over 'context': PyTorch's context parallel has no attention for the CPU",
        ),
        (
            MeshConfig(preset="fsdp", compute={"logits": "fsdp"}),
            sizes(fsdp=2),
            "mesh.compute.logits",
            "'logits' cannot be split over 'fsdp'",
        ),
        (
            MeshConfig(preset="tp", compute={"logits": "tensor", "vocab": None}, at_rest={"vocab": None}),
            sizes(tensor=2),
            "mesh.compute.logits",
            "'logits' is split over 'tensor', but embed.weight not along 'vocab'",
        ),
    ],
)
def test_an_error_names_the_parameter_and_the_rule(config, devices, where, message):
    with pytest.raises(UserError, match=message) as caught:
        placed(config, devices)
    assert caught.value.where == where
    assert caught.value.hint


def test_words_may_be_spread_unevenly():
    found = placed(MeshConfig(preset="tp"), sizes(tensor=2))["embed.weight"]
    assert found.largest_part(found.at_rest, sizes(tensor=2)) == (19, 32)
    assert found.is_uneven(sizes(tensor=2))


# Models that say nothing of their axes.


def test_the_names_of_a_model_declare_its_axes():
    shapes = {
        "model.embed_tokens.weight": (8, 4),
        "model.layers.0.self_attn.q_proj.weight": (4, 4),
        "model.layers.0.self_attn.v_proj.weight": (2, 4),
        "model.layers.0.self_attn.q_norm.weight": (2,),
        "model.layers.0.post_attention_layernorm.weight": (4,),
        "model.layers.0.mlp.down_proj.weight": (4, 16),
        "model.norm.weight": (4,),
        "transformer.h.0.attn.c_attn.weight": (4, 12),
        "transformer.h.0.ln_1.bias": (4,),
    }
    assert list(by_patterns(shapes, {}, unmatched="error").values()) == [
        ("vocab", "embed"),
        ("heads", "embed"),
        ("kv", "embed"),
        ("head",),
        ("embed",),
        ("embed", "mlp"),
        ("embed",),
        ("embed", "fused"),
        ("embed",),
    ]


def test_the_patterns_of_the_user_go_first():
    shapes = {"model.layers.0.mlp.down_proj.weight": (4, 16), "adapter.weight": (4, 2)}
    own = {"adapter.*": "embed rank", "*.down_proj.weight": "embed wide"}
    assert by_patterns(shapes, own, unmatched="error") == {
        "model.layers.0.mlp.down_proj.weight": ("embed", "wide"),
        "adapter.weight": ("embed", "rank"),
    }


def test_parameters_that_no_pattern_matches_are_listed_or_replicated():
    shapes = {f"blocks.{layer}.mixer.{part}": (4, 4) for layer in range(3) for part in ("a", "b")}
    with pytest.raises(UserError, match=r"no pattern declares the axes of blocks.\*.mixer.a, blocks.\*.mixer.b\n"):
        by_patterns(shapes, {}, unmatched="error")
    assert set(by_patterns(shapes, {}, unmatched="replicate").values()) == {(OTHER, OTHER)}


def test_a_pattern_with_another_number_of_dimensions_is_an_error():
    with pytest.raises(UserError, match=r"adapter.weight has 2 dimensions, but the pattern declares 'embed'") as caught:
        by_patterns({"adapter.weight": (4, 2)}, {"adapter.*": "embed"}, unmatched="error")
    assert caught.value.where == "mesh.axes.adapter.*"


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("layers.11.mlp.up.weight", "layers.11", "layers.*.mlp.up.weight"),
        ("model.layers.3.mlp.experts.5.up.weight", "model.layers.3", "model.layers.*.mlp.experts.*.up.weight"),
        ("model.norm.weight", "", "model.norm.weight"),
    ],
)
def test_the_layer_of_a_name(name, layer, kind):
    assert (layer_name(name), family(name)) == (layer, kind)
