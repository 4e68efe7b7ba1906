"""From a model on one process to its part on a mesh: by PyTorch's tensor parallel, `fully_shard` and `replicate`.

Gradients are *sums* over the slices of a batch, never means: each rank divides its summed loss by the number of targets
in the whole batch (:func:`clew.sharding.devices.global_sum`), so that ragged slices count as what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._composable.replicate import DDP, replicate
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import parallelize_module

from clew.models.axes import ACTIVATIONS, axis_units, logical_axes
from clew.models.axes import SHARED_INPUT as NATIVE_SHARED_INPUT
from clew.models.decoder import Decoder
from clew.sharding.config import MeshConfig
from clew.sharding.declared import SHARED_INPUT, Declared, by_patterns, layer_name
from clew.sharding.placing import Placed, place
from clew.sharding.rules import DATA, FSDP, MESH_AXES, TENSOR, Rules
from clew.sharding.styles import Between, check_lengths, share_input, style_of


def declare(model: nn.Module, config: MeshConfig) -> Declared:
    """Return what a model says of its parameters, or what patterns say of their names; it may be on the meta device.

    Args:
        model: The native decoder, or a decoder of Transformers.
        config: Patterns of the user's own.

    Raises:
        UserError: If parameters' axes are not declared by anybody.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if isinstance(model, Decoder):
        return Declared(logical_axes(model), shapes, axis_units(model.shape), NATIVE_SHARED_INPUT, ACTIVATIONS)
    axes = by_patterns(shapes, config.axes, unmatched=config.unmatched)
    return Declared(axes, shapes, _units(model), SHARED_INPUT)


def parallelize(model: nn.Module, config: MeshConfig, mesh: DeviceMesh, declared: Declared | None = None) -> nn.Module:
    """Split a model over a mesh, in place; it has the same names, and computes the same.

    Where the rules split the logits, it returns a DTensor of them: :func:`clew.sharding.loss.summed_loss` takes it.

    Its parameters become DTensors wherever a part of them is all that a process holds; replicas (`ddp`) stay plain.
    Parameters that are one another stay so. Make the optimizer afterwards, of the parameters as they are then.

    Args:
        model: The same weights on every process, on the mesh's device.
        config: Rules.
        mesh: What :func:`clew.sharding.devices.build_mesh` returned.
        declared: Axes; None asks the model.

    Raises:
        UserError: If a rule cannot be carried out; it names the rule and a parameter.
    """
    sizes = {axis: mesh[axis].size() for axis in MESH_AXES}
    declared = declared or declare(model, config)
    placed = place(declared, sizes, config.rules)
    if sizes[TENSOR] > 1:
        _split_products(model, mesh[TENSOR], declared, placed, config.rules)
    if sizes[FSDP] > 1 or (sizes[DATA] > 1 and sizes[TENSOR] > 1):
        _shard(model, mesh, sizes, placed)
    elif sizes[DATA] > 1:
        _replicate(model, mesh[DATA].get_group())
    return model


def _split_products(
    model: nn.Module, mesh: DeviceMesh, declared: Declared, placed: tuple[Placed, ...], rules: Rules
) -> None:
    """Let each module compute with its part of its matrices; afterwards every parameter is a DTensor."""
    between = Between.of(rules)
    if rules.splits_stream:
        check_lengths(model, mesh.size())
    of_name = {one.name: one for one in placed}
    names = _aliases(model)
    for path, module in list(model.named_modules()):
        own = {
            name: of_name[names[f"{path}.{name}".removeprefix(".")]]
            for name, _ in module.named_parameters(recurse=False)
        }
        if own:
            # Every process has the same weights, so none has to send its own.
            parallelize_module(module, mesh, style_of(path, module, own, between), src_data_rank=None)
    split = {declared.input_of(one.name) for one in placed if len(one.shape) == 2 and one.tensor_dim == 0}
    for path, module in model.named_modules():
        if path in split and not isinstance(module, nn.Linear | nn.Embedding):
            share_input(module, mesh, between)
    _tie(model, names)


def _shard(model: nn.Module, mesh: DeviceMesh, sizes: Mapping[str, int], placed: tuple[Placed, ...]) -> None:
    """Shard each layer, and then what is left, each along the dimension of its rule."""
    submesh = mesh[DATA, FSDP] if sizes[DATA] > 1 else mesh[FSDP]
    dims = {one.name: _shard_dim(one) for one in placed}
    dim_of = {id(parameter): dims[name] for name, parameter in model.named_parameters()}

    def along(parameter: nn.Parameter) -> Shard:
        return Shard(dim_of[id(parameter)])

    # With one shard there is nothing to give back between the passes.
    reshard = None if sizes[FSDP] > 1 else False
    for name in dict.fromkeys(layer_name(one.name) for one in placed):
        if name:
            fully_shard(
                model.get_submodule(name), mesh=submesh, shard_placement_fn=along, reshard_after_forward=reshard
            )
    fully_shard(model, mesh=submesh, shard_placement_fn=along, reshard_after_forward=reshard)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # A plain sum: a mean over ranks would have to be taken back, with a rounding of its own.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    model.register_forward_hook(_give_back)


def _give_back(model: nn.Module, _inputs: Any, _output: Any) -> None:
    """Drop what a pass without a backward pass has gathered: weights that are written meanwhile would not be seen."""
    if not torch.is_grad_enabled():
        assert isinstance(model, FSDPModule)
        model.reshard()


def _shard_dim(one: Placed) -> int:
    """The dimension of the rule; where there is one shard alone, one that tensor parallel leaves whole."""
    if one.fsdp_dim is not None:
        return one.fsdp_dim
    return next((dim for dim, over in enumerate(one.at_rest) if not over), 0)


def _replicate(model: nn.Module, group: dist.ProcessGroup) -> None:
    replicate(model, process_group=group, gradient_as_bucket_view=True, forward_sync_buffers=False)
    assert isinstance(model, DDP)
    # DDP compares annotations with classes, and those of this file are text: a lambda has none.
    model.register_comm_hook(group, lambda group, bucket: _sum_bucket(group, bucket))


def _sum_bucket(group: dist.ProcessGroup, bucket: Any) -> torch.futures.Future[Tensor]:
    """Add up a bucket of gradients; without a hook, DDP takes the mean."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    assert work is not None
    done: torch.futures.Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
    return done


def _aliases(model: nn.Module) -> dict[str, str]:
    """Each name of a parameter, and the first name of the same parameter."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(parameter), name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def _tie(model: nn.Module, names: Mapping[str, str]) -> None:
    """Make parameters one another again that were before each was split."""
    for name, first in names.items():
        if name != first:
            path, _, own = name.rpartition(".")
            model.get_submodule(path).register_parameter(own, model.get_parameter(first))


def _units(model: nn.Module) -> dict[str, int]:
    """The width of a head, as the config of a Transformers model says it."""
    config = getattr(model, "config", None)
    width = getattr(config, "head_dim", None)
    if width is None and getattr(config, "num_attention_heads", None):
        width = config.hidden_size // config.num_attention_heads  # type: ignore[union-attr]
    return {"heads": int(width), "kv": int(width)} if width else {}
