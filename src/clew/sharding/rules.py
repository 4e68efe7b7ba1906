"""The two tables that map logical axes to axes of the mesh, and the presets that fill them.

``at_rest`` says how a parameter lies between the steps, with its gradient and its optimizer state; ``compute`` says how
it and the activations are split while a layer computes. What is split at rest but not in compute is gathered for each
layer, and its gradient is scattered again: that is `fsdp`. What is split in both is never gathered: that is `tensor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from clew.errors import UserError, did_you_mean

DATA, FSDP, TENSOR = MESH_AXES = ("data", "fsdp", "tensor")
"""The axes of the mesh, outermost first: replicas, shards of the weights at rest, shards of each matrix product."""

BATCH, SEQ, LOGITS = ACTIVATION_AXES = ("batch", "seq", "logits")
"""What dimensions of activations alone mean: samples, positions of the stream between the products, and the words that
the loss looks at."""
LOGICAL_AXES = ("vocab", "embed", "mlp", "heads", "kv", "fused", "position", *ACTIVATION_AXES)
"""What dimensions of parameters and activations mean; `fused` is a dimension of several parts that stay together."""

FIRST = "first"
"""The key, at rest, of the first dimension of a parameter that no other rule splits over that mesh axis."""

PRESETS = ("none", "ddp", "fsdp", "tp", "fsdp+tp", "hsdp", "tp+sp", "fsdp+tp+sp")

Table = Mapping[str, str | None]
"""Logical axis to mesh axis; several joined by ``+``, outermost first; None for whole."""

_BATCH = {BATCH: f"{DATA}+{FSDP}"}
_AT_REST = {"embed": FSDP, FIRST: FSDP}
_IN_COMPUTE = {"vocab": TENSOR, "heads": TENSOR, "kv": TENSOR, "mlp": TENSOR}
_BETWEEN = {SEQ: TENSOR, LOGITS: TENSOR}

_TABLES: Mapping[str, tuple[Table, Table]] = MappingProxyType(
    {
        "none": ({}, _BATCH),
        "ddp": ({}, _BATCH),
        "fsdp": (_AT_REST, _BATCH),
        "hsdp": (_AT_REST, _BATCH),
        "tp": (_IN_COMPUTE, {**_BATCH, **_IN_COMPUTE}),
        "fsdp+tp": ({**_AT_REST, **_IN_COMPUTE}, {**_BATCH, **_IN_COMPUTE}),
        "tp+sp": (_IN_COMPUTE, {**_BATCH, **_IN_COMPUTE, **_BETWEEN}),
        "fsdp+tp+sp": ({**_AT_REST, **_IN_COMPUTE}, {**_BATCH, **_IN_COMPUTE, **_BETWEEN}),
    }
)


@dataclass(frozen=True)
class Rules:
    """Where each logical axis goes, at rest and in compute; an axis that is not there stays whole."""

    at_rest: Table
    compute: Table

    @classmethod
    def of(cls, preset: str, at_rest: Table, compute: Table) -> Rules:
        """Return a preset's tables with single rules replaced.

        Args:
            preset: One of :data:`PRESETS`.
            at_rest: Rules that replace those of the preset; None makes an axis whole.
            compute: The same, in compute.
        """
        resting, computing = _TABLES[preset]
        return cls({**resting, **at_rest}, {**computing, **compute})

    def mesh_axes(self, table: str, axis: str) -> tuple[str, ...]:
        """Return the mesh axes that a logical axis is split over, outermost first; empty for none.

        Args:
            table: ``at_rest`` or ``compute``.
            axis: The logical axis.
        """
        chosen = (self.at_rest if table == "at_rest" else self.compute).get(axis)
        return tuple(part.strip() for part in chosen.split("+")) if chosen else ()

    @property
    def splits_stream(self) -> bool:
        """Whether the stream between the products is split along the sequence."""
        return TENSOR in self.mesh_axes("compute", SEQ)

    @property
    def splits_logits(self) -> bool:
        """Whether the loss is computed with a part of the words on each device."""
        return TENSOR in self.mesh_axes("compute", LOGITS)

    def check(self, known: Mapping[str, str]) -> None:
        """Check that every rule speaks of axes that exist.

        Args:
            known: For each logical axis of the model a parameter that has it, for the error.

        Raises:
            UserError: If a logical or a mesh axis does not exist; it names the rule and a parameter.
        """
        for table, rules in (("at_rest", self.at_rest), ("compute", self.compute)):
            for axis in rules:
                _check_logical(table, axis, known)
                for mesh_axis in self.mesh_axes(table, axis):
                    if mesh_axis not in MESH_AXES:
                        parameter = f", which {known[axis]} has" if axis in known else ""
                        raise UserError(
                            f"the mesh has no axis {mesh_axis!r} for {axis!r}{parameter}",
                            where=f"mesh.{table}.{axis}",
                            hint=did_you_mean(mesh_axis, MESH_AXES),
                        )


def _check_logical(table: str, axis: str, known: Mapping[str, str]) -> None:
    allowed = {*LOGICAL_AXES, *known, *([FIRST] if table == "at_rest" else [])}
    if axis not in allowed:
        raise UserError(
            f"no parameter and no activation has an axis {axis!r}",
            where=f"mesh.{table}.{axis}",
            hint=did_you_mean(axis, allowed),
        )
