"""How one module computes with its part of its matrices: PyTorch's styles of tensor parallel, chosen by the placements.

Between the modules every process along `tensor` holds the whole stream. So a product whose output is split needs its
input's gradients added up, and one whose input is split needs its outputs added up: one all-reduce each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, distribute_module
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel
from torch.distributed.tensor.parallel.style import ParallelStyle

from clew.errors import UserError
from clew.sharding.placing import Placed

HEAD_DIM = 2
"""Where the heads are in what a norm of single heads gets: [B, T, heads, D]."""


def style_of(path: str, module: nn.Module, placed: Mapping[str, Placed]) -> ParallelStyle:
    """Return how a module computes.

    Args:
        path: Its name in the model, for the error.
        module: The module that has the parameters itself.
        placed: Its parameters' placements, by their names in it.

    Raises:
        UserError: If it is to be split, but PyTorch can split only linear layers and embeddings.
    """
    split = {name: one for name, one in placed.items() if one.tensor_dim is not None}
    if not split:
        if any(True for _ in module.children()):
            raise UserError(
                f"{next(iter(placed.values())).name} belongs to a module with modules in it, which tensor parallel "
                "cannot leave whole",
                where="mesh.tensor",
                hint="use fsdp for this model",
            )
        if any(one.axes == ("head",) for one in placed.values()):
            return OfEachHead()
        return Whole(fresh=isinstance(module, nn.Linear) and any("vocab" in one.axes for one in placed.values()))
    weight = placed.get("weight")
    if isinstance(module, nn.Embedding) and weight is not None and weight.tensor_dim == 0:
        return RowwiseParallel(input_layouts=Replicate())
    if isinstance(module, nn.Linear) and weight is not None and weight.tensor_dim is not None:
        if weight.tensor_dim == 1:
            return RowwiseParallel()
        return Logits() if weight.axes[0] == "vocab" else ColwiseParallel()
    one = next(iter(split.values()))
    raise UserError(
        f"{one.name} cannot be split over 'tensor' along {one.axes[one.tensor_dim or 0]!r}: {path} is a "
        f"{type(module).__name__}, and PyTorch splits linear layers and embeddings",
        where=f"mesh.compute.{one.axes[one.tensor_dim or 0]}",
        hint="set this rule to null at rest and in compute, or use fsdp",
    )


def share_input(module: nn.Module, mesh: DeviceMesh) -> None:
    """Let the split products in a module take one input: its gradients are then added up once, not once a product.

    Args:
        module: Its first argument, or ``hidden_states``, is used for nothing but these products.
        mesh: The mesh axis `tensor`.
    """

    def enter(
        module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs:
            return (*_enter(module, inputs[:1], mesh), *inputs[1:]), named
        (stream,) = _enter(module, (named["hidden_states"],), mesh)
        return inputs, {**named, "hidden_states": stream}

    module.register_forward_pre_hook(enter, with_kwargs=True)


class Whole(ParallelStyle):
    """A module that every process computes whole, on the whole stream; its parameters become DTensors like the others.

    So one optimizer can hold them all, and a gradient norm treats them alike.

    Args:
        fresh: Whether the output is copied; see :class:`Logits`.
    """

    def __init__(self, *, fresh: bool = False) -> None:
        super().__init__()
        self.fresh = fresh

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        return distribute_module(module, device_mesh, None, _enter, _fresh if self.fresh else _leave)  # type: ignore[arg-type]


class Logits(ColwiseParallel):
    """The output layer: each process has some words, and the loss takes the logits of all of them.

    They are copied, because `fully_shard` hangs its work on what a model returns, which a view of a DTensor may lose.
    """

    def __init__(self) -> None:
        super().__init__(output_layouts=Replicate())

    @staticmethod
    def _prepare_output_fn(
        output_layouts: Any, use_local_output: bool, mod: nn.Module, outputs: Any, device_mesh: DeviceMesh
    ) -> Any:
        whole = ColwiseParallel._prepare_output_fn(  # type: ignore[no-untyped-call]
            output_layouts, use_local_output, mod, outputs, device_mesh
        )
        return whole.clone()


class OfEachHead(SequenceParallel):
    """A norm of each head by itself: a process has some heads, and its gradient is a part of the weight's."""

    def __init__(self) -> None:
        super().__init__(sequence_dim=HEAD_DIM, use_local_output=True)

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        made = super()._apply(module, device_mesh)
        for parameter in made.parameters():
            parameter.register_hook(_add_up)  # type: ignore[no-untyped-call]
        return made


def _enter(_module: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> tuple[Any, ...]:
    return tuple(
        DTensor.from_local(value, mesh, (Replicate(),), run_check=False)
        if isinstance(value, Tensor) and not isinstance(value, DTensor)
        else value
        for value in inputs
    )


def _leave(_module: nn.Module, output: Any, _mesh: DeviceMesh) -> Any:
    return output.to_local() if isinstance(output, DTensor) else output


def _fresh(module: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
    return _leave(module, output, mesh).clone()


def _add_up(gradient: Tensor) -> Tensor:
    if isinstance(gradient, DTensor) and any(placement.is_partial() for placement in gradient.placements):
        return gradient.redistribute(placements=[Replicate()] * gradient.device_mesh.ndim)
    return gradient
