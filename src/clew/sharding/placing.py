"""Where each parameter lies: the rules applied to the axes and shapes of a model, with all that can be wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from clew.errors import UserError
from clew.sharding.activations import check_activations, check_batch
from clew.sharding.declared import OTHER, Declared
from clew.sharding.rules import DATA, FIRST, FSDP, TENSOR, Rules

Split = tuple[tuple[str, ...], ...]
"""The mesh axes that each dimension is split over, outermost first."""

_MAY_BE_UNEVEN = frozenset({"vocab"})
"""Axes whose parts over `tensor` may differ by one: each row computes alone."""


@dataclass(frozen=True)
class Placed:
    """Where a parameter lies."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    at_rest: Split
    compute: Split

    @property
    def fsdp_dim(self) -> int | None:
        """The dimension that is split between the steps and whole in compute."""
        return _dim_of(self.at_rest, FSDP)

    @property
    def tensor_dim(self) -> int | None:
        """The dimension that is split in compute."""
        return _dim_of(self.compute, TENSOR)

    def largest_part(self, split: Split, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape of the largest part that a device holds.

        Args:
            split: ``at_rest`` or ``compute``.
            sizes: Devices along each mesh axis.
        """
        parts = zip(self.shape, split, strict=True)
        return tuple(-(-size // math.prod(sizes[axis] for axis in over)) for size, over in parts)

    def is_uneven(self, sizes: Mapping[str, int]) -> bool:
        """Whether some device holds less than another."""
        parts = zip(self.shape, self.at_rest, strict=True)
        return any(size % math.prod(sizes[axis] for axis in over) for size, over in parts)


def place(declared: Declared, sizes: Mapping[str, int], rules: Rules) -> tuple[Placed, ...]:
    """Apply rules to the parameters of a model.

    Args:
        declared: Axes, shapes, and what stays together.
        sizes: Devices along each mesh axis.
        rules: The two tables.

    Returns:
        One entry for each parameter, in their order.

    Raises:
        UserError: If a rule cannot be carried out; it names the rule and a parameter.
    """
    check_batch(rules, sizes)
    rules.check(declared.known)
    placed = tuple(_place(name, declared, rules) for name in declared.axes)
    for one in placed:
        _check_kinds(one, sizes)
        _check_division(one, declared.units, sizes)
    _check_heads(placed)
    check_activations(declared, rules, placed)
    return placed


def _place(name: str, declared: Declared, rules: Rules) -> Placed:
    axes, shape = declared.axes[name], declared.shapes[name]
    at_rest = [rules.mesh_axes("at_rest", axis) for axis in axes]
    compute = [rules.mesh_axes("compute", axis) for axis in axes]
    for table, split in (("at_rest", at_rest), ("compute", compute)):
        _check_once(name, axes, table, split)
    taken = {mesh_axis for over in at_rest for mesh_axis in over}
    more = tuple(mesh_axis for mesh_axis in rules.mesh_axes("at_rest", FIRST) if mesh_axis not in taken)
    if at_rest and more:
        # What computes with a part of a dimension takes its part of that part.
        at_rest[0] = (*at_rest[0], *more)
    return Placed(name, tuple(shape), tuple(axes), tuple(at_rest), tuple(compute))


def _check_once(name: str, axes: tuple[str, ...], table: str, split: list[tuple[str, ...]]) -> None:
    owner: dict[str, str] = {}
    for axis, over in zip(axes, split, strict=True):
        for mesh_axis in over:
            if mesh_axis in owner:
                raise UserError(
                    f"{name} {list(axes)} is split over {mesh_axis!r} twice: by {owner[mesh_axis]!r} and by {axis!r}",
                    where=f"mesh.{table}.{axis}",
                    hint=f"set mesh.{table}.{owner[mesh_axis]} or mesh.{table}.{axis} to null",
                )
            owner[mesh_axis] = axis


def _check_kinds(one: Placed, sizes: Mapping[str, int]) -> None:
    """What PyTorch can carry out: `fsdp` between the steps, `tensor` in both, replicas never."""
    for axis, resting, computing in zip(one.axes, one.at_rest, one.compute, strict=True):
        if DATA in resting:
            raise UserError(
                f"{one.name} cannot be split over 'data', which is that of the replicas",
                where=f"mesh.at_rest.{axis}",
                hint="split it over fsdp",
            )
        if wrong := sorted({DATA, FSDP} & set(computing)):
            raise UserError(
                f"{one.name} cannot be split over {wrong[0]!r} in compute, which splits the batch there",
                where=f"mesh.compute.{axis}",
                hint="split it over tensor, or over fsdp at rest",
            )
        if (TENSOR in resting) != (TENSOR in computing):
            raise UserError(
                f"{one.name} must be split over 'tensor' at rest and in compute, or in neither",
                where=f"mesh.at_rest.{axis}",
                hint=f"set mesh.at_rest.{axis} and mesh.compute.{axis} together",
            )
        if TENSOR in computing and axis in ("embed", "head", "position", "fused", OTHER):
            raise UserError(
                f"{one.name} cannot be split over 'tensor' along {axis!r}: each device computes with the whole of it",
                where=f"mesh.compute.{axis}",
                hint="split vocab, heads, kv or mlp over tensor",
            )
    if sizes[FSDP] > 1 and one.fsdp_dim is None:
        raise UserError(
            f"no rule splits {one.name} {list(one.axes)} over 'fsdp', which has {sizes[FSDP]} devices",
            where="mesh.at_rest",
            hint=f"set mesh.at_rest.{FIRST}=fsdp, or mesh.fsdp=1",
        )


def _check_division(one: Placed, units: Mapping[str, int], sizes: Mapping[str, int]) -> None:
    for dim, (axis, size, over) in enumerate(zip(one.axes, one.shape, one.at_rest, strict=True)):
        if TENSOR in over:
            count, unit = size // units.get(axis, 1), units.get(axis, 1)
            if count % sizes[TENSOR] and axis not in _MAY_BE_UNEVEN:
                what = f"{count} heads of {axis!r}" if unit > 1 else f"{size} of {axis!r}"
                _does_not_divide(one, f"mesh.compute.{axis}", what, TENSOR, sizes)
        if FSDP in over and dim > 0:
            # fully_shard pads along the first dimension only.
            left = size // (sizes[TENSOR] if TENSOR in over else 1)
            if left % sizes[FSDP]:
                _does_not_divide(one, f"mesh.at_rest.{axis}", f"{left} of {axis!r}", FSDP, sizes)


def _does_not_divide(one: Placed, where: str, what: str, mesh_axis: str, sizes: Mapping[str, int]) -> None:
    raise UserError(
        f"{one.name} {list(one.shape)}: the {what} do not divide by {mesh_axis}={sizes[mesh_axis]}",
        where=where,
        hint=f"choose another size of {mesh_axis}, or split another axis over it",
    )


def _check_heads(placed: tuple[Placed, ...]) -> None:
    """A device must have the keys of its queries."""
    split = {axis: one for one in placed for axis, over in zip(one.axes, one.compute, strict=True) if over}
    whole = {axis: one for one in placed for axis, over in zip(one.axes, one.compute, strict=True) if not over}
    for axis, other in (("heads", "kv"), ("kv", "heads")):
        if axis in split and other in whole:
            raise UserError(
                f"{split[axis].name} is split along {axis!r}, but {whole[other].name} not along {other!r}: a device "
                "needs the keys and values of its queries",
                where=f"mesh.compute.{other}",
                hint="split heads and kv over tensor together",
            )


def _dim_of(split: Split, mesh_axis: str) -> int | None:
    return next((dim for dim, over in enumerate(split) if mesh_axis in over), None)
