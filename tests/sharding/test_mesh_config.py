"""A mesh in a config: its sizes, its tables, and what is wrong with them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from clew.errors import UserError
from clew.sharding import MeshConfig


@pytest.mark.parametrize(
    ("config", "devices", "sizes"),
    [
        (MeshConfig(), 1, (1, 1, 1)),
        (MeshConfig(preset="ddp"), 8, (8, 1, 1)),
        (MeshConfig(preset="fsdp"), 8, (1, 8, 1)),
        (MeshConfig(preset="tp"), 4, (1, 1, 4)),
        (MeshConfig(preset="fsdp+tp"), 8, (1, 4, 2)),
        (MeshConfig(preset="hsdp"), 8, (2, 4, 1)),
        (MeshConfig(preset="hsdp", data=-1, fsdp=8), 1024, (128, 8, 1)),
        (MeshConfig(preset="fsdp+tp", tensor=-1, fsdp=2), 8, (1, 2, 4)),
        (MeshConfig(preset="tp", data=2, tensor=4), 8, (2, 1, 4)),
        (MeshConfig(preset="tp", data=-1, tensor=2), 8, (4, 1, 2)),
    ],
)
def test_the_sizes_fill_the_devices(config, devices, sizes):
    assert tuple(config.sizes(devices).values()) == sizes


@pytest.mark.parametrize(
    ("config", "devices", "product"),
    [
        (MeshConfig(preset="hsdp"), 3, "data=2 x fsdp=-1 does not fill 3 devices"),
        (MeshConfig(preset="fsdp+tp", fsdp=4, tensor=4), 8, "fsdp=4 x tensor=4 does not fill 8 devices"),
        (MeshConfig(preset="ddp", data=4), 1, "data=4 does not fill 1 device"),
    ],
)
def test_sizes_that_do_not_fill_the_devices_are_an_error(config, devices, product):
    with pytest.raises(UserError, match=product) as caught:
        config.sizes(devices)
    assert f"must multiply to {devices}" in caught.value.hint


def test_devices_without_a_preset_share_nothing_yet():
    with pytest.raises(UserError, match="the mesh of one device does not fill 8 devices") as caught:
        MeshConfig().sizes(8)
    assert caught.value.hint == "say what they share: mesh.preset=fsdp, or ddp, tp, ..."


def test_only_one_size_is_what_is_left():
    with pytest.raises(ValidationError, match="only one of them can be -1"):
        MeshConfig(preset="fsdp", fsdp=-1, tensor=-1)
    with pytest.raises(ValidationError, match="at least one device"):
        MeshConfig(preset="fsdp", fsdp=0)


def test_a_rule_of_the_config_replaces_that_of_the_preset():
    rules = MeshConfig(preset="fsdp+tp", compute={"vocab": None}, at_rest={"vocab": None, "mlp": "fsdp"}).rules
    assert rules.mesh_axes("compute", "vocab") == rules.mesh_axes("at_rest", "vocab") == ()
    assert rules.mesh_axes("at_rest", "mlp") == ("fsdp",)
    assert rules.mesh_axes("at_rest", "embed") == ("fsdp",)
    assert rules.mesh_axes("compute", "batch") == ("data", "fsdp")


@pytest.mark.parametrize(
    ("config", "message", "where", "hint"),
    [
        (
            MeshConfig(preset="tp", compute={"mlp": "tensr"}),
            "the mesh has no axis 'tensr' for 'mlp', which layers.0.mlp.up.weight has",
            "mesh.compute.mlp",
            "did you mean 'tensor'?",
        ),
        (
            MeshConfig(preset="fsdp", at_rest={"embd": "fsdp"}),
            "no parameter and no activation has an axis 'embd'",
            "mesh.at_rest.embd",
            "did you mean 'embed'?",
        ),
    ],
)
def test_a_rule_for_what_does_not_exist_names_itself(config, message, where, hint):
    with pytest.raises(UserError) as caught:
        config.rules.check({"mlp": "layers.0.mlp.up.weight"})
    assert (caught.value.what, caught.value.where, caught.value.hint) == (message, where, hint)


def test_the_config_needs_no_torch():
    code = "import sys, clew.sharding; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
