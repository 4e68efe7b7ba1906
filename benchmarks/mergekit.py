"""Merges against those of mergekit 0.1.5: the largest difference of a weight, for each method that both have.

mergekit pins versions of libraries, so it lies in an environment of its own, which ``make mergekit`` makes. What is
drawn at random (``dare`` below a density of 1) cannot be compared weight by weight. mergekit is told to compute in
float32. Between models in bfloat16, differences often cancel each other exactly, or are as large as the last one that
``ties`` keeps; there the two decide otherwise, so how many weights that concerns is printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import Figure
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from clew.merging.merge import Merge
from clew.merging.methods import method_registry
from clew.merging.weights import Files
from clew.models.tokenizers import ByteTokenizer

COMMAND = Path(__file__).parents[1] / ".venv-mergekit" / "bin" / "mergekit-yaml"
WEIGHTS = (0.7, 0.4)
LARGEST = {"float32": 1e-6, "bfloat16": 2.0**-7}
"""What may differ, for weights of about 1: some roundings of the dtype."""

Case = tuple[str, dict[str, Any], str, dict[str, Any]]

# Our method with its options; and what mergekit calls it, with its own.
CASES: list[Case] = [
    ("average", {}, "linear", {"normalize": True}),
    ("linear", {"normalize": False}, "linear", {"normalize": False}),
    ("slerp", {}, "slerp", {"t": WEIGHTS[1] / sum(WEIGHTS)}),
    ("task_arithmetic", {"scale": 0.8}, "task_arithmetic", {"lambda": 0.8, "normalize": False}),
    ("ties", {"density": 0.3}, "ties", {"density": 0.3, "normalize": True}),
    ("ties", {"density": 0.9, "scale": 0.5}, "ties", {"density": 0.9, "lambda": 0.5, "normalize": True}),
    ("dare", {"density": 1.0}, "dare_linear", {"density": 1.0, "normalize": False}),
    ("dare", {"density": 1.0, "combination": "ties"}, "dare_ties", {"density": 1.0, "normalize": True}),
]


def main() -> None:
    """Print the largest difference for each method and dtype."""
    if not COMMAND.is_file():
        sys.exit("there is no mergekit; `make mergekit` brings it")
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        with TemporaryDirectory() as folder:
            family = _family(Path(folder), dtype)
            for case in CASES:
                _compare(Path(folder), family, case, str(dtype).removeprefix("torch."))


def _family(folder: Path, dtype: torch.dtype) -> list[Path]:
    """Write a model of 4 layers with weights of about 1, and two that came from it."""
    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **shape))
    start = {name: one.clone() for name, one in base.state_dict().items()}
    paths = [folder / name for name in ("base", "a", "b")]
    for path in paths:
        base.load_state_dict({name: one + 0.1 * torch.randn_like(one) for name, one in start.items()})
        base.to(dtype).save_pretrained(path)
        tokenizer.save_pretrained(path)
        base.float()
    return paths


def _compare(
    folder: Path, family: list[Path], case: tuple[str, dict[str, Any], str, dict[str, Any]], dtype: str
) -> None:
    name, options, theirs, more = case
    expected = _theirs(folder / "theirs", family, theirs, more, dtype)
    method = method_registry().resolve(name)(**options)
    base = Files(family[0]) if method.uses_base else None
    merged = dict(Merge(method, [Files(path) for path in family[1:]], list(WEIGHTS), base))
    apart = torch.cat([(one.double() - expected[key].double()).abs().flatten() for key, one in merged.items()])
    told = "".join(f", {key} {value}" for key, value in options.items())
    what = f"{name}{told}, against mergekit's {theirs}, {dtype}"
    if "ties" in theirs and dtype == "bfloat16":
        part = float((apart > LARGEST[dtype]).double().mean())
        Figure(f"{what}: weights that differ by more than {LARGEST[dtype]}", 100 * part, "%").print()
    else:
        Figure(f"{what}: largest difference of a weight", float(apart.max()), "", LARGEST[dtype]).print()


def _theirs(made: Path, family: list[Path], method: str, more: dict[str, Any], dtype: str) -> dict[str, torch.Tensor]:
    """Have mergekit do it."""
    base, *models = map(str, family)
    own = ("density",)
    listed = [
        {"model": model, "parameters": {"weight": weight, **{key: more[key] for key in own if key in more}}}
        for model, weight in zip(models, WEIGHTS, strict=True)
    ]
    asked: dict[str, Any] = {
        "merge_method": method,
        "models": listed,
        "parameters": {key: value for key, value in more.items() if key not in own},
        "dtype": "float32",
        "out_dtype": dtype,
    }
    if method == "slerp":
        asked |= {"base_model": models[0]}
    elif method != "linear":
        asked |= {"base_model": base}
    config = made.with_suffix(".yaml")
    config.write_text(json.dumps(asked))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    words = [COMMAND, config, made, "--no-copy-tokenizer", "--allow-crimes"]
    subprocess.run(words, check=True, env=environment, cwd=made.parent, stdout=sys.stderr)
    files = sorted(made.glob("*.safetensors"))
    return {name: one for file in files for name, one in load_file(file).items()}


if __name__ == "__main__":
    main()
