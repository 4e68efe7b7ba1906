"""What a mesh makes of a model, before anything is started: placements, bytes, collectives, and what looks wrong.

Nothing here needs torch or a device: axes and shapes are enough, for 8 devices as for 1024.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from clew.sharding.activations import Activation, check_length, place_activations
from clew.sharding.collectives import FLOAT32, Collective, collectives, part_bytes, units_of
from clew.sharding.declared import Declared, family
from clew.sharding.placing import Placed, place
from clew.sharding.rules import DATA, FSDP, TENSOR, Rules
from clew.sharding.work import Work, activation_bytes

LARGE = 64 << 20
"""Bytes of a parameter that is worth a word when every device keeps the whole of it while others are split."""
TINY = 64 << 10
"""Bytes of a shard of a layer below which a gather takes as long as its first byte."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device that has the most; an estimate of what a training keeps, without what libraries take."""

    weights: int
    """Parameters at rest, in float32."""
    gradients: int
    """As large as the weights at rest."""
    optimizer: int
    """AdamW keeps two numbers for each parameter, Muon one for each hidden matrix."""
    gathered: int
    """Whole weights at one moment: outside the layers, two layers (one is fetched ahead), one layer's gradients."""
    activations: int | None
    """See :func:`clew.sharding.work.activation_bytes`; None where it is not known."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.gathered + (self.activations or 0)


@dataclass(frozen=True)
class Plan:
    """A model on a mesh."""

    sizes: Mapping[str, int]
    """Devices along each mesh axis."""
    parameters: tuple[Placed, ...]
    activations: tuple[Activation, ...]
    """Of one pass; empty for a model that declares none."""
    work: Work
    memory: Memory
    collectives: tuple[Collective, ...]
    warnings: tuple[str, ...]

    @property
    def devices(self) -> int:
        """How many there are."""
        return math.prod(self.sizes.values())

    @property
    def num_parameters(self) -> int:
        """How many numbers the model has."""
        return sum(math.prod(one.shape) for one in self.parameters)


def plan(declared: Declared, sizes: Mapping[str, int], rules: Rules, work: Work) -> Plan:
    """Say what a mesh makes of a model.

    Args:
        declared: The model's axes and shapes.
        sizes: Devices along each mesh axis; see :meth:`clew.sharding.MeshConfig.sizes`.
        rules: The two tables.
        work: What one step computes.

    Raises:
        UserError: If a rule cannot be carried out; it names the rule and a parameter.
    """
    check_length(rules, sizes, work.seq_len)
    placed = place(declared, sizes, rules)
    return Plan(
        sizes=dict(sizes),
        parameters=placed,
        activations=place_activations(declared, sizes, rules, work),
        work=work,
        memory=_memory(declared, placed, sizes, rules, work),
        collectives=collectives(declared, placed, sizes, rules, work),
        warnings=tuple(_warnings(placed, sizes, work)),
    )


def _memory(declared: Declared, placed: Sequence[Placed], sizes: Mapping[str, int], rules: Rules, work: Work) -> Memory:
    weights = part_bytes(placed, "at_rest", sizes)
    hidden = [one for one in placed if len(one.shape) == 2 and "vocab" not in one.axes]
    one_moment = part_bytes(hidden, "at_rest", sizes) if work.optimizer == "muon" else 0
    gathered = 0
    if sizes[FSDP] > 1:
        units = {name: part_bytes(unit, "compute", sizes) for name, unit in units_of(placed).items()}
        layers = [size for name, size in units.items() if name]
        gathered = units.get("", 0) + min(len(layers), 2) * max(layers, default=0) + max(units.values())
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=2 * weights - one_moment,
        gathered=gathered,
        activations=activation_bytes(declared, sizes, rules, work),
    )


def _warnings(placed: Sequence[Placed], sizes: Mapping[str, int], work: Work) -> Iterator[str]:
    yield from _batch_warnings(sizes, work)
    over_fsdp = any(FSDP in axes for one in placed for axes in one.at_rest)
    if over_fsdp and sizes[FSDP] == 1 < math.prod(sizes.values()):
        yield f"{FSDP} has one device, so nothing is split over it: mesh.{FSDP} says over how many"
    if sizes[FSDP] == sizes[TENSOR] == 1:
        return
    large = [one for one in placed if _is_whole(one, sizes) and FLOAT32 * math.prod(one.shape) >= LARGE]
    for name, size in {family(one.name): FLOAT32 * math.prod(one.shape) for one in large}.items():
        yield f"{name} is whole on every device, with {size >> 20} MiB"
    for name, one in {family(one.name): one for one in placed if one.is_uneven(sizes)}.items():
        yield f"{name} {list(one.shape)} does not divide: some devices hold more of it than others"
    if sizes[FSDP] > 1:
        tiny = {family(name): part_bytes(unit, "at_rest", sizes) for name, unit in units_of(placed).items()}
        for name, size in tiny.items():
            if size < TINY:
                yield f"{name or 'what is outside the layers'} has {size} bytes on a device: shards are tiny"


def _batch_warnings(sizes: Mapping[str, int], work: Work) -> Iterator[str]:
    slices = work.slices(sizes)
    axes = f"{DATA} x {FSDP} = {slices}"
    if work.batch_size < slices:
        yield f"a batch of {work.batch_size} leaves {slices - work.batch_size} of {axes} slices empty"
    elif work.batch_size % slices:
        yield f"a batch of {work.batch_size} does not divide by {axes}: some devices wait for others"


def _is_whole(one: Placed, sizes: Mapping[str, int]) -> bool:
    return all(sizes[axis] == 1 for over in one.at_rest for axis in over)
