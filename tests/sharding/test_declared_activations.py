"""What the native decoder says of its activations is how large they are."""

from __future__ import annotations

import torch

from clew.models.axes import ACTIVATIONS, axis_sizes
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder

WHERE = {
    "stream": ("embed", "output"),
    "query": ("layers.0.attention.query", "output"),
    "key": ("layers.0.attention.key", "output"),
    "value": ("layers.0.attention.value", "output"),
    "mixed": ("layers.0.attention.out", "input"),
    "gated": ("layers.0.mlp.down", "input"),
    "logits": ("head", "output"),
}


def test_activations_have_the_axes_that_are_declared():
    model = Decoder(ModelConfig(depth=1, heads=4, kv_heads=2), 37, 16)
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, which: str):
        def hook(_module, inputs, output):
            found[name] = tuple((inputs[0] if which == "input" else output).shape)

        return hook

    for name, (path, which) in WHERE.items():
        model.get_submodule(path).register_forward_hook(note(name, which))
    tokens = torch.zeros(3, 16, dtype=torch.int64)
    model(tokens)
    found["tokens"] = tuple(tokens.shape)
    sizes = {**axis_sizes(model), "batch": 3, "seq": 16, "logits": 37}
    assert found == {name: tuple(sizes[axis] for axis in axes) for name, axes in ACTIVATIONS.items()}
