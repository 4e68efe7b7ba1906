"""Where activations lie, and what a rule for them needs of the parameters.

``batch`` is split over the devices that have slices of a batch. Along `tensor` every device has the whole stream
between the products, unless ``seq`` is split over it: then each has some positions of the stream, the norms compute
with these, what goes into a product is gathered, and what comes out of it is scattered again (Korthikanti et al. 2022,
arXiv:2205.05198). ``logits`` says the same of the words that the loss looks at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clew.errors import UserError
from clew.sharding.declared import Declared
from clew.sharding.rules import BATCH, DATA, FSDP, LOGITS, SEQ, TENSOR, Rules
from clew.sharding.work import Work

if TYPE_CHECKING:
    from clew.sharding.placing import Placed, Split

INSIDE = ("heads", "kv", "mlp")
"""Axes of the products that the stream goes into and comes out of."""
_ALLOWED: Mapping[str, tuple[str, ...]] = {BATCH: (DATA, FSDP), SEQ: (TENSOR,), LOGITS: (TENSOR,)}
_INT64 = 8


@dataclass(frozen=True)
class Activation:
    """What one forward pass computes at one place; of alike layers, in one of them."""

    name: str
    shape: tuple[int, ...]
    """On all devices together."""
    axes: tuple[str, ...]
    compute: Split
    number_bytes: int
    """Of one number."""

    def bytes(self, sizes: Mapping[str, int]) -> int:
        """Return the bytes on the device that has the most of it."""
        parts = zip(self.shape, self.compute, strict=True)
        return self.number_bytes * math.prod(
            -(-size // math.prod(sizes[axis] for axis in over)) for size, over in parts
        )


def place_activations(declared: Declared, sizes: Mapping[str, int], rules: Rules, work: Work) -> tuple[Activation, ...]:
    """Say where the activations of one pass lie; nothing for a model that declares none.

    Args:
        declared: The model's axes and shapes.
        sizes: Devices along each mesh axis.
        rules: The two tables.
        work: What one step computes.
    """
    known = {BATCH: work.micro_batch(sizes) * work.slices(sizes), SEQ: work.seq_len, LOGITS: declared.size("vocab")}
    return tuple(
        Activation(
            name,
            tuple(known.get(axis) or declared.size(axis) for axis in axes),
            tuple(axes),
            tuple(_over(axis, axes, rules) for axis in axes),
            _INT64 if axes[-1] == SEQ else work.activation_bytes,
        )
        for name, axes in declared.activations.items()
    )


def _over(axis: str, axes: Sequence[str], rules: Rules) -> tuple[str, ...]:
    """The mesh axes that split a dimension: over `tensor` it is the stream alone that has a part of the positions."""
    over = rules.mesh_axes("compute", axis)
    return over if axis != SEQ or "embed" in axes else tuple(one for one in over if one != TENSOR)


def check_batch(rules: Rules, sizes: Mapping[str, int]) -> None:
    """Check that activations are split over axes that can split them.

    Raises:
        UserError: If they are not; it names the rule.
    """
    over = rules.mesh_axes("compute", BATCH)
    if missing := [axis for axis in (DATA, FSDP) if sizes[axis] > 1 and axis not in over]:
        raise UserError(
            f"the batch is not split over {missing[0]!r}, so its {sizes[missing[0]]} devices would compute the same",
            where="mesh.compute.batch",
            hint="leave this rule as the preset has it: data+fsdp",
        )
    for axis, allowed in _ALLOWED.items():
        if wrong := [mesh_axis for mesh_axis in rules.mesh_axes("compute", axis) if mesh_axis not in allowed]:
            why = ": PyTorch's context parallel has no attention for the CPU, and is not used" if axis == SEQ else ""
            raise UserError(
                f"{axis!r} cannot be split over {wrong[0]!r}{why}",
                where=f"mesh.compute.{axis}",
                hint="a batch is split over data+fsdp; the sequence of the stream, and logits, over tensor",
            )


def check_activations(declared: Declared, rules: Rules, placed: Sequence[Placed]) -> None:
    """Check that the parameters lie as rules for activations need it.

    Raises:
        UserError: If they do not; it names the rule and a parameter.
    """
    if rules.splits_stream:
        if not declared.activations:
            raise UserError(
                f"the model of {next(iter(declared.axes), 'no parameter')} does not say where its stream is, so "
                "sequences stay whole",
                where=f"mesh.compute.{SEQ}",
                hint="the native decoder says it; for others set this rule to null",
            )
        _require_split(SEQ, INSIDE, placed, "the stream between them is gathered for products that are split as well")
    if rules.splits_logits:
        _require_split(LOGITS, ("vocab",), placed, "a device has the logits of the words that it has the rows of")


def check_length(rules: Rules, sizes: Mapping[str, int], length: int) -> None:
    """Check that sequences divide.

    Args:
        rules: The two tables.
        sizes: Devices along each mesh axis.
        length: Positions of a sample.

    Raises:
        UserError: If they do not.
    """
    if rules.splits_stream and length % sizes[TENSOR]:
        raise UserError(
            f"the {length} positions of a sample do not divide by {TENSOR}={sizes[TENSOR]}",
            where=f"mesh.compute.{SEQ}",
            hint=f"choose another data.seq_len or another size of {TENSOR}, or set this rule to null",
        )


def _require_split(rule: str, axes: Sequence[str], placed: Sequence[Placed], why: str) -> None:
    for one in placed:
        for axis, over in zip(one.axes, one.compute, strict=True):
            if axis in axes and TENSOR not in over:
                raise UserError(
                    f"{rule!r} is split over {TENSOR!r}, but {one.name} not along {axis!r}: {why}",
                    where=f"mesh.compute.{rule}",
                    hint=f"set mesh.at_rest.{axis} and mesh.compute.{axis} to {TENSOR}, or this rule to null",
                )
