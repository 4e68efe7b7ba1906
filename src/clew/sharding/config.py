"""The mesh in a config: a preset, sizes, and single rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from clew.config import config
from clew.errors import UserError
from clew.sharding.rules import DATA, FSDP, MESH_AXES, TENSOR, Rules

REST = -1
"""A size: what is left of the devices."""

_SIZES: Mapping[str, tuple[int, int, int]] = {
    "none": (1, 1, 1),
    "ddp": (REST, 1, 1),
    "fsdp": (1, REST, 1),
    "tp": (1, 1, REST),
    "fsdp+tp": (1, REST, 2),
    "hsdp": (2, REST, 1),
    "tp+sp": (1, 1, REST),
    "fsdp+tp+sp": (1, REST, 2),
}


@config
class MeshConfig:
    """How a model and its batches lie on several devices."""

    preset: Literal["none", "ddp", "fsdp", "tp", "fsdp+tp", "hsdp", "tp+sp", "fsdp+tp+sp"] = "none"
    """What fills the tables below: replicas (ddp), shards of weights (fsdp), split products (tp), or two of these; with
    sp the activations between the products are split, too."""
    data: Annotated[int, Field(ge=-1)] | None = None
    """Replicas; -1 means as many as devices are left; null means what the preset says (hsdp: 2)."""
    fsdp: Annotated[int, Field(ge=-1)] | None = None
    """Devices that share the weights between the steps; -1 and null as above."""
    tensor: Annotated[int, Field(ge=-1)] | None = None
    """Devices that share each matrix product; -1 and null as above (fsdp+tp and fsdp+tp+sp: 2)."""
    at_rest: dict[str, str | None] = Field(default_factory=dict)
    """Rules that replace the preset's between the steps: logical axis to mesh axis, null for whole."""
    compute: dict[str, str | None] = Field(default_factory=dict)
    """Rules that replace the preset's while a layer computes."""
    axes: dict[str, str] = Field(default_factory=dict)
    """Logical axes of a model's parameters by patterns of their names, such as '*.proj.weight': 'embed mlp'."""
    unmatched: Literal["error", "replicate"] = "error"
    """What becomes of parameters whose axes nobody declares: an error, or whole in compute."""

    def __post_init__(self) -> None:
        if any(size == 0 for size in self._wanted):
            raise ValueError("data, fsdp and tensor: a mesh axis has at least one device; -1 is what is left")
        if sum(size == REST for size in self._wanted) > 1:
            raise ValueError("data, fsdp and tensor: only one of them can be -1, what is left")

    @property
    def _wanted(self) -> tuple[int, int, int]:
        data, fsdp, tensor = _SIZES[self.preset]
        # Where the user gives an axis the rest, the one that had it by the preset keeps one device.
        if REST in (self.data, self.fsdp, self.tensor):
            data, fsdp, tensor = (1 if size == REST else size for size in (data, fsdp, tensor))
        return (
            data if self.data is None else self.data,
            fsdp if self.fsdp is None else self.fsdp,
            tensor if self.tensor is None else self.tensor,
        )

    @property
    def rules(self) -> Rules:
        """The preset's tables with this config's own rules over them."""
        return Rules.of(self.preset, self.at_rest, self.compute)

    def sizes(self, devices: int) -> dict[str, int]:
        """Return the number of devices along each mesh axis.

        Args:
            devices: How many there are.

        Raises:
            UserError: If the product of the sizes is not the number of devices.
        """
        wanted = dict(zip(MESH_AXES, self._wanted, strict=True))
        given = math.prod(size for size in wanted.values() if size != REST)
        if REST in wanted.values() and devices % given == 0:
            return {axis: devices // given if size == REST else size for axis, size in wanted.items()}
        if given == devices and REST not in wanted.values():
            return wanted
        product = " x ".join(f"{axis}={size}" for axis, size in wanted.items() if size != 1)
        multiply = f"the sizes of {DATA}, {FSDP} and {TENSOR} must multiply to {devices}; -1 is what is left"
        raise UserError(
            f"the mesh {product or 'of one device'} does not fill {devices} {'device' if devices == 1 else 'devices'}",
            where="mesh",
            hint=multiply if product else "say what they share: mesh.preset=fsdp, or ddp, tp, ...",
        )
