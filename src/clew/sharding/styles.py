"""How one module computes with its part of its matrices: PyTorch's styles of tensor parallel, chosen by the placements.

Between the modules every process along `tensor` holds the whole stream, or its part of the positions. So a product
whose output is split needs its input's gradients added up, and one whose input is split needs its outputs added up:
with the whole stream by one all-reduce each; with parts of it, by a gather of inputs and a scatter of sums, and the
other way round for gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel
from torch.distributed.tensor.parallel.style import ParallelStyle

from clew.errors import UserError
from clew.sharding.placing import Placed
from clew.sharding.rules import Rules

SEQUENCE_DIM = 1
"""Where the positions are in the stream: [B, T, C]."""
HEAD_DIM = 2
"""Where the heads are in what a norm of single heads gets: [B, T, heads, D]."""


@dataclass(frozen=True)
class Between:
    """How activations lie between the modules that have parameters."""

    stream: Placement = field(default_factory=Replicate)
    logits: Placement = field(default_factory=Replicate)

    @classmethod
    def of(cls, rules: Rules) -> Between:
        """Return what the rules say."""
        return cls(
            Shard(SEQUENCE_DIM) if rules.splits_stream else Replicate(),
            Shard(-1) if rules.splits_logits else Replicate(),
        )


def style_of(
    path: str, module: nn.Module, placed: Mapping[str, Placed], between: Between | None = None
) -> ParallelStyle:
    """Return how a module computes.

    Args:
        path: Its name in the model, for the error.
        module: The module that has the parameters itself.
        placed: Its parameters' placements, by their names in it.
        between: How activations come and go; None for whole ones.

    Raises:
        UserError: If it is to be split, but PyTorch can split only linear layers and embeddings.
    """
    between = between or Between()
    split = {name: one for name, one in placed.items() if one.tensor_dim is not None}
    if not split:
        return _style_of_whole(module, list(placed.values()), between)
    weight = placed.get("weight")
    if isinstance(module, nn.Embedding) and weight is not None and weight.tensor_dim == 0:
        return RowwiseParallel(input_layouts=Replicate(), output_layouts=between.stream)
    if isinstance(module, nn.Linear) and weight is not None and weight.tensor_dim is not None:
        if weight.tensor_dim == 1:
            return RowwiseParallel(output_layouts=between.stream)
        # Products between the stream and the words share an input, which `share_input` has gathered.
        return Logits(between) if weight.axes[0] == "vocab" else ColwiseParallel()
    one = next(iter(split.values()))
    raise UserError(
        f"{one.name} cannot be split over 'tensor' along {one.axes[one.tensor_dim or 0]!r}: {path} is a "
        f"{type(module).__name__}, and PyTorch splits linear layers and embeddings",
        where=f"mesh.compute.{one.axes[one.tensor_dim or 0]}",
        hint="set this rule to null at rest and in compute, or use fsdp",
    )


def _style_of_whole(module: nn.Module, placed: list[Placed], between: Between) -> ParallelStyle:
    if any(True for _ in module.children()):
        raise UserError(
            f"{placed[0].name} belongs to a module with modules in it, which tensor parallel cannot leave whole",
            where="mesh.tensor",
            hint="use fsdp for this model",
        )
    axes = {one.axes for one in placed}
    if ("head",) in axes:
        return OfEach(HEAD_DIM)
    if axes == {("embed",)} and between.stream.is_shard():
        return OfEach(SEQUENCE_DIM)
    if isinstance(module, nn.Embedding):
        return Whole(Replicate(), between.stream)
    fresh = isinstance(module, nn.Linear) and any("vocab" in one for one in axes)
    return Whole(between.stream, Replicate(), fresh=fresh)


def share_input(module: nn.Module, mesh: DeviceMesh, between: Between) -> None:
    """Let the split products in a module take one input: it is gathered once, and its gradients are added up once.

    Args:
        module: Its first argument, or ``hidden_states``, is used for nothing but these products.
        mesh: The mesh axis `tensor`.
        between: How the stream comes.
    """

    def enter(
        module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs:
            return (*_enter(between.stream, module, inputs[:1], mesh), *inputs[1:]), named
        (stream,) = _enter(between.stream, module, (named["hidden_states"],), mesh)
        return inputs, {**named, "hidden_states": stream}

    module.register_forward_pre_hook(enter, with_kwargs=True)


def check_lengths(model: nn.Module, parts: int) -> None:
    """Let a model refuse sequences that do not divide: a process would take its part for another one.

    Args:
        model: Its first argument is tokens [B, T].
        parts: How many there are.
    """

    def check(_model: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs[0].shape[1] % parts:
            raise ValueError(f"{inputs[0].shape[1]} positions do not divide by {parts}")

    model.register_forward_pre_hook(check)


class Whole(ParallelStyle):
    """A module that every process computes whole, on the whole stream; its parameters become DTensors like the others.

    So one optimizer can hold them all, and a gradient norm treats them alike.

    Args:
        enters: How its input comes; parts are gathered.
        leaves: How its output is to go.
        fresh: Whether the output is copied; see :class:`Logits`.
    """

    def __init__(self, enters: Placement, leaves: Placement, *, fresh: bool = False) -> None:
        super().__init__()
        self.enters = enters
        self.leaves = leaves
        self.fresh = fresh

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        enter, leave = partial(_enter, self.enters), partial(_leave, self.leaves, self.fresh)
        return distribute_module(module, device_mesh, None, enter, leave)  # type: ignore[arg-type]


class Logits(ColwiseParallel):
    """The output layer: each process has some words, and the loss takes the logits of all of them, or of these.

    They are copied, because `fully_shard` hangs its work on what a model returns, which a view of a DTensor may lose.

    Args:
        between: How the stream comes, and how logits are to go; split ones go as a DTensor, which knows all words.
    """

    def __init__(self, between: Between) -> None:
        super().__init__(
            input_layouts=between.stream,
            output_layouts=between.logits,
            use_local_output=between.logits.is_replicate(),
        )

    @staticmethod
    def _prepare_output_fn(
        output_layouts: Any, use_local_output: bool, mod: nn.Module, outputs: Any, device_mesh: DeviceMesh
    ) -> Any:
        given = ColwiseParallel._prepare_output_fn(  # type: ignore[no-untyped-call]
            output_layouts, use_local_output, mod, outputs, device_mesh
        )
        return given.clone()


class OfEach(SequenceParallel):
    """A norm of each head, or each position, by itself: a process has some, and its gradient is a part of the weight's.

    Args:
        dim: Where in its input the heads or positions are.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(sequence_dim=dim, use_local_output=True)
        self.dim = dim

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        made = super()._apply(module, device_mesh)
        for parameter in made.parameters():
            parameter.register_hook(_add_up)  # type: ignore[no-untyped-call]
        return made


def _enter(placement: Placement, _module: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> tuple[Any, ...]:
    return tuple(
        _whole(DTensor.from_local(value, mesh, (placement,), run_check=False))
        if isinstance(value, Tensor) and not isinstance(value, DTensor)
        else value
        for value in inputs
    )


def _whole(tensor: DTensor) -> DTensor:
    return tensor if tensor.placements[0].is_replicate() else tensor.redistribute(placements=[Replicate()])


def _leave(placement: Placement, fresh: bool, _module: nn.Module, output: Any, _mesh: DeviceMesh) -> Any:
    if not isinstance(output, DTensor):
        return output
    local = (output if output.placements[0] == placement else output.redistribute(placements=[placement])).to_local()
    return local.clone() if fresh else local


def _add_up(gradient: Tensor) -> Tensor:
    if isinstance(gradient, DTensor) and any(placement.is_partial() for placement in gradient.placements):
        return gradient.redistribute(placements=[Replicate()] * gradient.device_mesh.ndim)
    return gradient
