"""Which collectives one optimizer step makes, how many, and how large: counted from where the parameters lie.

The numbers are those of :mod:`clew.sharding.parallel`, as tests count them on real processes. Bytes that a device sends
are those of the ring algorithms (Thakur, Rabenseifner & Gropp 2005, Int. J. High Perf. Comp. Appl. 19:49-66): of N
devices, each sends (N-1)/N of a message for a gather or a scatter, and twice that for an all-reduce.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clew.sharding.declared import Declared, layer_name
from clew.sharding.placing import Placed
from clew.sharding.rules import DATA, FSDP, TENSOR, Rules
from clew.sharding.work import Work

FLOAT32 = 4
FIRST_BUCKET, BUCKET = 1 << 20, 25 << 20
"""DDP adds up gradients in buckets of 25 MiB, of which the first is small so that it can leave early."""

Op = Literal["all-gather", "reduce-scatter", "all-reduce"]


@dataclass(frozen=True)
class Collective:
    """Alike collectives of one optimizer step."""

    op: Op
    axis: str
    """The mesh axis whose devices take part."""
    devices: int
    what: str
    count: int
    """How many there are in one step."""
    bytes: int
    """All messages of the step together: what is gathered, or what is to be scattered or added up."""

    @property
    def sent(self) -> int:
        """Bytes that each device sends in a step."""
        times = 2 if self.op == "all-reduce" else 1
        return round(times * self.bytes * (self.devices - 1) / self.devices)


def units_of(placed: Sequence[Placed]) -> dict[str, list[Placed]]:
    """Return what is gathered at once: each layer, and under an empty name everything outside of the layers."""
    units: dict[str, list[Placed]] = defaultdict(list)
    for one in placed:
        units[layer_name(one.name)].append(one)
    return dict(units)


def part_bytes(placed: Iterable[Placed], split: Literal["at_rest", "compute"], sizes: Mapping[str, int]) -> int:
    """Return the bytes of the largest parts, in float32, that a device has of some parameters.

    Args:
        placed: The parameters.
        split: As they lie between the steps, or as a layer computes with them.
        sizes: Devices along each mesh axis.
    """
    splits = ((one, one.at_rest if split == "at_rest" else one.compute) for one in placed)
    return FLOAT32 * sum(math.prod(one.largest_part(over, sizes)) for one, over in splits)


def collectives(
    declared: Declared, placed: Sequence[Placed], sizes: Mapping[str, int], rules: Rules, work: Work
) -> tuple[Collective, ...]:
    """Return the collectives of one optimizer step, of weights and gradients first, then of activations.

    Args:
        declared: Which products share an input.
        placed: Where the parameters lie.
        sizes: Devices along each mesh axis.
        rules: How the activations lie.
        work: What a step computes.
    """
    found = [*_weights(placed, sizes, work), *_activations(declared, placed, sizes, rules, work)]
    return tuple(one for one in found if one.count)


def _weights(placed: Sequence[Placed], sizes: Mapping[str, int], work: Work) -> Iterator[Collective]:
    units = units_of(placed)
    whole = {name: part_bytes(unit, "compute", sizes) for name, unit in units.items()}
    passes = work.passes(sizes)
    if sizes[FSDP] > 1:
        # What is outside the layers is kept from the forward to the backward pass; layers are gathered twice.
        gathers = {name: passes * (2 if name else 1) for name in units}
        total = sum(whole[name] * times for name, times in gathers.items())
        yield Collective("all-gather", FSDP, sizes[FSDP], "weights", sum(gathers.values()), total)
        yield Collective(
            "reduce-scatter", FSDP, sizes[FSDP], "gradients", passes * len(units), passes * sum(whole.values())
        )
    if sizes[DATA] > 1:
        parts = [part_bytes(unit, "at_rest", sizes) for unit in units.values()]
        count = len(parts) if sizes[FSDP] > 1 or sizes[TENSOR] > 1 else _buckets(placed)
        yield Collective("all-reduce", DATA, sizes[DATA], "gradients", count, sum(parts))


def _activations(
    declared: Declared, placed: Sequence[Placed], sizes: Mapping[str, int], rules: Rules, work: Work
) -> Iterator[Collective]:
    if sizes[TENSOR] == 1:
        return
    passes = work.passes(sizes)
    positions = work.micro_batch(sizes) * work.seq_len
    split = [one for one in placed if len(one.shape) == 2 and one.tensor_dim is not None]
    words = next((one for one in split if "vocab" in one.axes), None)
    width = next((one.shape[one.axes.index("embed")] for one in split if "embed" in one.axes), 0)

    def of_each_pass(op: Op, what: str, count: int, message: int) -> Collective:
        return Collective(op, TENSOR, sizes[TENSOR], what, passes * count, passes * count * message)

    forward, backward = _of_stream(declared, split, rules, work)
    stream = positions * width * work.activation_bytes
    yield from (of_each_pass(*one, stream) for one in forward)
    if words and rules.splits_logits:
        yield of_each_pass("all-reduce", "sums of the loss", 3, positions * FLOAT32)
    elif words:
        num_words = words.shape[words.axes.index("vocab")]
        yield of_each_pass("all-gather", "logits", 1, positions * num_words * work.activation_bytes)
    yield from (of_each_pass(*one, stream) for one in backward)
    norms = [FLOAT32 * one.shape[0] for one in placed if one.axes in _norms_in_parts(rules)]
    yield Collective(
        "all-reduce", TENSOR, sizes[TENSOR], "gradients of norms", passes * len(norms), passes * sum(norms)
    )


_Sent = tuple[tuple[Op, str, int], ...]


def _of_stream(declared: Declared, split: Sequence[Placed], rules: Rules, work: Work) -> tuple[_Sent, _Sent]:
    """What a forward and a backward pass send of the stream, and how often."""
    looked_up = any("vocab" in one.axes for one in split)
    inside = [one for one in split if "vocab" not in one.axes]
    outputs = sum(one.tensor_dim == 1 for one in inside)
    inputs = len({declared.input_of(one.name) for one in inside if one.tensor_dim == 0})
    # A layer that is computed again is left as soon as all is there that was dropped: before its last output is sent.
    layers = len({layer_name(one.name) for one in inside if one.tensor_dim == 1})
    outputs_again, inputs_again = (outputs - layers, inputs) if work.checkpointing else (0, 0)
    if not rules.splits_stream:
        return (
            (("all-reduce", "outputs, forward", outputs + outputs_again + looked_up),),
            (("all-reduce", "inputs' gradients, backward", inputs + looked_up),),
        )
    # The output layer gathers its input, split or not; an embedding that is whole takes a part of what it looks up.
    return (
        (
            ("all-gather", "inputs, forward", inputs + inputs_again + 1),
            ("reduce-scatter", "outputs, forward", outputs + outputs_again + looked_up),
        ),
        (
            ("all-gather", "outputs' gradients, backward", outputs + 1),
            ("reduce-scatter", "inputs' gradients, backward", inputs + looked_up),
        ),
    )


def _norms_in_parts(rules: Rules) -> set[tuple[str, ...]]:
    """The axes of norms that a device computes for some heads, or some positions: its gradient is a part of theirs."""
    return {("head",), ("embed",)} if rules.splits_stream else {("head",)}


def _buckets(placed: Sequence[Placed]) -> int:
    """How many buckets the gradients of all parameters fill, the last parameters' first."""
    count, room, used = 1, FIRST_BUCKET, 0
    for one in reversed(placed):
        if used >= room:
            count, room, used = count + 1, BUCKET, 0
        used += FLOAT32 * math.prod(one.shape)
    return count
