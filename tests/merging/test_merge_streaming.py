"""Weights come from files and go to files tensor by tensor."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from clew.errors import UserError
from clew.merging.weights import Files, Layout, TensorFile

MERGE = """
import resource, sys
from pathlib import Path
from clew.merging.merge import Merge
from clew.merging.methods import method_registry
from clew.merging.weights import Files, TensorFile

folder, name = Path(sys.argv[1]), sys.argv[2]
method = method_registry().resolve(name)()
models = [Files(folder / one) for one in "ab"]
merge = Merge(method, models, [1.0, 1.0], Files(folder / "c") if method.uses_base else None, models)
dict(Merge(method, [Files(folder / "small")] * 2, [1.0, 1.0], Files(folder / "small")))  # what is allocated once
fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("VmData"))
taken = int(fields["VmData"].split()[0]) * 1024
# Tensors are mapped from the files, which counts as data from the moment at which a file is opened, so before.
limit = taken + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
with TensorFile(folder / "out.safetensors", merge.layout) as file:
    for one, tensor in merge:
        file.write(one, tensor)
"""

LARGEST = 24 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    elements = LARGEST // 4
    for name in "abc":
        (folder / name).mkdir()
        # Not negative, since the same numbers serve as Fisher information.
        tensors = {f"layer.{number}": torch.rand(elements // 1024, 1024) for number in range(6)}
        save_file(tensors, folder / name / "model.safetensors")
    (folder / "small").mkdir()
    save_file({"w": torch.rand(1 << 19)}, folder / "small" / "model.safetensors")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's limit of a process's data")
@pytest.mark.parametrize("name", ["average", "fisher", "slerp", "ties", "dare", "task_arithmetic"])
def test_peak_memory_is_below_two_times_the_largest_tensor_for_each_model(name, models):
    def run(limit):
        command = [sys.executable, "-c", MERGE, str(models), name, str(limit)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    done = run(2 * LARGEST * 2)
    assert done.returncode == 0, done.stderr
    merged = load_file(models / "out.safetensors")
    assert len(merged) == 6
    # Less than the result itself cannot do, so the limit is felt.
    assert "memory" in run(LARGEST // 2).stderr


def test_a_file_that_is_written_tensor_by_tensor_is_the_library_s(tmp_path):
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7).to(torch.bfloat16),
        "c": torch.tensor(4),
        "d": torch.tensor([True, False]),
        "e": torch.zeros(0, 3),
    }
    layout = {name: Layout(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    with TensorFile(tmp_path / "model.safetensors", layout) as file:
        for name, tensor in tensors.items():
            file.write(name, tensor)
    read = load_file(tmp_path / "model.safetensors")
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)
    assert Files(tmp_path).layout == layout


def test_a_file_that_is_not_finished_or_in_another_order_is_an_error(tmp_path):
    layout = {"a": Layout((1,), torch.float32), "b": Layout((1,), torch.float32)}
    with pytest.raises(ValueError, match="b was not written"), TensorFile(tmp_path / "x", layout) as file:
        file.write("a", torch.ones(1))
    with pytest.raises(ValueError, match="a was to be written, not b"), TensorFile(tmp_path / "x", layout) as file:
        file.write("b", torch.ones(1))


def test_shards_are_one_model_and_names_of_tied_weights_are_passed_over(tmp_path):
    for shard, name in enumerate(("a", "b", "alias")):
        save_file({name: torch.full((2,), float(shard))}, tmp_path / f"model-{shard}.safetensors")
    where = {name: f"model-{shard}.safetensors" for shard, name in enumerate(("a", "b", "alias"))}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    files = Files(tmp_path, tied=["alias"])
    assert set(files.layout) == {"a", "b"}
    assert files.read("b").tolist() == [1.0, 1.0]


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match="the folder has no safetensors file"):
        Files(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 64)
    with pytest.raises(UserError, match="the weights cannot be read: "):
        Files(tmp_path)
