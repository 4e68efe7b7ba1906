"""``clew mesh``: what a mesh of devices would make of a config's model, without starting anything."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clew import api
from clew.cli.finding import workspace_of
from clew.cli.text import print_table, size
from clew.config import dump, hydrate, override_layer
from clew.config.merge import merge_all
from clew.config.tree import Origin, Section, tree_of
from clew.errors import UserError
from clew.jobs import LoadedJob
from clew.sharding import MESH_AXES, MeshConfig
from clew.sharding.declared import family

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.sharding.placing import Placed, Split
    from clew.sharding.plan import Plan


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("what", metavar="FILE", help="the config of a pretrain or sft job")
    parser.add_argument("--devices", type=int, required=True, metavar="N", help="how many devices there would be")
    parser.add_argument("--json", action="store_true", help="print it for programs")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="values over those of the file, mesh.* too"
    )


def main(arguments: Namespace) -> int:
    """Print the plan."""
    if arguments.devices < 1:
        raise UserError(f"there are no {arguments.devices} devices", hint="--devices takes a number from 1")
    said = [text for text in arguments.overrides if text.startswith("mesh.")]
    rest = [text for text in arguments.overrides if text not in said]
    workspace = workspace_of(arguments)
    work = api.read(arguments.what, rest, workspace=workspace)
    if not isinstance(work, LoadedJob):
        raise UserError("this is a pipeline, not a job", where=arguments.what, hint="name the config of one stage")
    from clew.jobs.mesh import planned

    mesh = _mesh(getattr(work.config, "mesh", None) or MeshConfig(), said)
    found = planned(work.config, mesh, arguments.devices, workspace.runs)
    if arguments.json:
        print(json.dumps(as_json(found), indent=2))
    else:
        print_plan(found, mesh)
    return 0


def _mesh(below: MeshConfig, said: Sequence[str]) -> MeshConfig:
    """Lay what the command line says of the mesh over what the config says."""
    base = tree_of({"mesh": dump(below)}, Origin("file", "config"))
    over = override_layer(said)
    assert isinstance(base, Section)
    merged = merge_all([base, over] if over is not None else [base]).items["mesh"]
    assert isinstance(merged, Section)
    made, _ = hydrate(merged, MeshConfig, {}, prefix="mesh")
    assert isinstance(made, MeshConfig)
    return made


def print_plan(plan: Plan, mesh: MeshConfig) -> None:
    """Print a plan as tables: parameters, bytes on a device, collectives, warnings."""
    sizes = " x ".join(f"{axis}={plan.sizes[axis]}" for axis in MESH_AXES)
    work = plan.work
    print(f"mesh        {sizes} ({plan.devices} devices), preset {mesh.preset}")
    print(f"parameters  {plan.num_parameters:,}")
    passes, micro = work.passes(plan.sizes), work.micro_batch(plan.sizes)
    print(
        f"step        {work.batch_size} samples of {work.seq_len} tokens: on each device {passes} "
        f"{'pass' if passes == 1 else 'passes'} of {micro}"
    )
    print()
    print_table(("parameter", "", "shape", "axes", "at rest", "in compute", "on a device"), _parameter_rows(plan))
    if plan.activations:
        print()
        print_table(("activation", "shape", "axes", "in compute", "on a device"), _activation_rows(plan))
    print()
    print_table(("memory", "on a device"), _memory_rows(plan))
    if plan.collectives:
        print()
        print_table(("collective", "over", "of", "a step", "bytes", "sent by a device"), _collective_rows(plan))
    for warning in plan.warnings:
        print(f"\nwarning: {warning}")


def _parameter_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """One row for parameters that differ in the number of their layer alone."""
    count = Counter(family(one.name) for one in plan.parameters)
    for name, one in {family(one.name): one for one in plan.parameters}.items():
        yield (
            name,
            f"x{count[name]}" if count[name] > 1 else "",
            " x ".join(map(str, one.shape)),
            " ".join(one.axes),
            _split_text(one.axes, one.at_rest, plan.sizes),
            _split_text(one.axes, one.compute, plan.sizes),
            size(count[name] * _part_bytes(one, plan.sizes)),
        )


def _activation_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    for one in plan.activations:
        yield (
            one.name,
            " x ".join(map(str, one.shape)),
            " ".join(one.axes),
            _split_text(one.axes, one.compute, plan.sizes),
            size(one.bytes(plan.sizes)),
        )


def _split_text(axes: Sequence[str], split: Split, sizes: Mapping[str, int]) -> str:
    parts = (
        f"{axis}/{'+'.join(over)}"
        for axis, all_over in zip(axes, split, strict=True)
        if (over := [mesh_axis for mesh_axis in all_over if sizes[mesh_axis] > 1])
    )
    return " ".join(parts) or "whole"


def _part_bytes(one: Placed, sizes: Mapping[str, int]) -> int:
    from clew.sharding.collectives import part_bytes

    return part_bytes([one], "at_rest", sizes)


def _memory_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    memory = plan.memory
    yield "weights", size(memory.weights)
    yield "gradients", size(memory.gradients)
    yield f"optimizer ({plan.work.optimizer})", size(memory.optimizer)
    yield "gathered weights", size(memory.gathered)
    yield "activations (estimate)", "unknown" if memory.activations is None else size(memory.activations)
    yield "together", size(memory.total)


def _collective_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    for one in plan.collectives:
        yield one.op, f"{one.axis}={one.devices}", one.what, str(one.count), size(one.bytes), size(one.sent)


def as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values; bytes are numbers."""
    memory = plan.memory
    return {
        "devices": plan.devices,
        "mesh": dict(plan.sizes),
        "num_parameters": plan.num_parameters,
        "parameters": [
            {
                "name": one.name,
                "shape": list(one.shape),
                "axes": list(one.axes),
                "at_rest": [list(over) for over in one.at_rest],
                "compute": [list(over) for over in one.compute],
                "bytes_per_device": _part_bytes(one, plan.sizes),
            }
            for one in plan.parameters
        ],
        "activations": [
            {
                "name": one.name,
                "shape": list(one.shape),
                "axes": list(one.axes),
                "compute": [list(over) for over in one.compute],
                "bytes_per_device": one.bytes(plan.sizes),
            }
            for one in plan.activations
        ],
        "bytes_per_device": {
            "weights": memory.weights,
            "gradients": memory.gradients,
            "optimizer": memory.optimizer,
            "gathered": memory.gathered,
            "activations": memory.activations,
            "total": memory.total,
        },
        "collectives": [
            {
                "op": one.op,
                "axis": one.axis,
                "devices": one.devices,
                "what": one.what,
                "count": one.count,
                "bytes": one.bytes,
                "sent_per_device": one.sent,
            }
            for one in plan.collectives
        ],
        "warnings": list(plan.warnings),
    }
