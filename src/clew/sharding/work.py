"""What one optimizer step computes, and the memory that its activations take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from clew.sharding.declared import Declared, layer_name
from clew.sharding.rules import DATA, FSDP, LOGITS, SEQ, TENSOR, Rules

FLOAT32 = 4


@dataclass(frozen=True)
class Work:
    """One optimizer step; all numbers are of the whole mesh, but for the micro-batch."""

    batch_size: int = 32
    """Samples in a step."""
    seq_len: int = 128
    """Positions in a sample."""
    micro_batch_size: int | None = None
    """Samples in one forward pass of one device; None means its whole slice of the batch."""
    activation_bytes: int = 4
    """Bytes of one number of an activation: 4, or 2 for bfloat16."""
    checkpointing: bool = False
    """Whether activations are computed once more in the backward pass."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Decides what is kept of each parameter besides itself."""

    def slices(self, sizes: Mapping[str, int]) -> int:
        """Return how many slices the batch is cut into."""
        return sizes[DATA] * sizes[FSDP]

    def slice_size(self, sizes: Mapping[str, int]) -> int:
        """Return the number of samples in the largest slice."""
        return -(-self.batch_size // self.slices(sizes))

    def micro_batch(self, sizes: Mapping[str, int]) -> int:
        """Return the number of samples in one forward pass of a device."""
        return min(self.micro_batch_size or self.batch_size, self.slice_size(sizes))

    def passes(self, sizes: Mapping[str, int]) -> int:
        """Return how many forward and backward passes make a step."""
        return -(-self.slice_size(sizes) // self.micro_batch(sizes))


def activation_bytes(declared: Declared, sizes: Mapping[str, int], rules: Rules, work: Work) -> int | None:
    """Estimate the bytes that one pass keeps on a device for its backward pass.

    Counted as by Korthikanti et al. 2022 (arXiv:2205.05198, section 4) for the layers that are used here, without an
    attention matrix, which the fused attention computes again (Dao et al. 2022, arXiv:2205.14135). For each position,
    with widths C of the stream, H of all queries, K of all keys, M of the MLP, V words, and t devices along `tensor`:

    - a layer keeps ``4 C + (3 H + 2 K + 4 M) / t`` numbers: both norms' inputs and outputs; queries, attention's output
      in two layouts, keys and values; gate, its activation, up, and their product;
    - with checkpointing it keeps ``C``, and one layer at a time all of the above;
    - the end keeps ``2 C`` numbers for the last norm, and ``2 V`` in float32: log-probabilities and their gradient.

    Where the stream is split, half of the ``4 C`` and of the ``2 C`` are divided by t, too: norms' inputs are parts,
    and their outputs are gathered. Where the logits are split, so are the ``2 V``.

    Returns:
        None for a model whose layers do not declare `embed`, `heads`, `kv`, `mlp` and `vocab`.
    """
    width, heads, kv, mlp, vocab = (declared.size(axis) for axis in ("embed", "heads", "kv", "mlp", "vocab"))
    if not (width and heads and kv and mlp and vocab):
        return None
    layers = len({layer_name(name) for name in declared.axes} - {""})

    def part(axis: str, size: int) -> float:
        return size / sizes[TENSOR] if TENSOR in rules.mesh_axes("compute", axis) else size

    between = part(SEQ, width)
    layer = 2 * width + 2 * between + 3 * part("heads", heads) + 2 * part("kv", kv) + 4 * part("mlp", mlp)
    kept = layers * between + layer if work.checkpointing else layers * layer
    positions = work.micro_batch(sizes) * work.seq_len
    return round(positions * (work.activation_bytes * (kept + width + between) + 2 * FLOAT32 * part(LOGITS, vocab)))
