"""Tensors go from file to file as they are, and whatever is wrong with a file is said before anything is copied."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from clew.checkpoints.tensors import INDEX, SINGLE, are_equal, spans_of, tensors_of, write_tensors
from clew.errors import UserError

NAMED = {
    "b.weight": torch.randn(3, 5),
    "a.weight": torch.randn(7).to(torch.bfloat16),
    "ü": torch.tensor(4),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 3),
    "half": torch.randn(2, 2).half(),
    "double": torch.randn(2).double(),
    "bytes": torch.arange(5, dtype=torch.uint8),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    save_file(NAMED, tmp_path / "model" / SINGLE, {"format": "pt"})
    return tmp_path / "model"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(folder, target, shard_bytes=None):
    target.mkdir()
    write_tensors(tensors_of(folder), target, shard_bytes)
    return contents(target)


def same(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    assert found.keys() == NAMED.keys()
    for name, tensor in NAMED.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    return True


def test_one_file_is_byte_for_byte_the_library_s(folder, tmp_path):
    assert written(folder, tmp_path / "copy") == contents(folder)


@pytest.mark.parametrize("shard_bytes", [1, 16, 60, 10**6])
def test_shards_hold_the_same_and_become_one_again(folder, tmp_path, shard_bytes):
    files = written(folder, tmp_path / "shards", shard_bytes)
    assert same(tmp_path / "shards")
    assert (INDEX in files) == (shard_bytes < 10**6)
    for path in (tmp_path / "shards").glob("*.safetensors"):
        sizes = [span.bytes for span in spans_of(path).values()]
        assert sum(sizes) <= shard_bytes or len([size for size in sizes if size]) == 1
    assert written(tmp_path / "shards", tmp_path / "again") == contents(folder)
    assert written(tmp_path / "shards", tmp_path / "twice", shard_bytes) == files


def test_the_index_is_the_one_that_transformers_writes(folder, tmp_path):
    index = json.loads(written(folder, tmp_path / "shards", 60)[INDEX])
    files = sorted({*index["weight_map"].values()})
    assert files == [f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)]
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in NAMED.values())
    assert index["weight_map"].keys() == NAMED.keys()


def test_a_file_that_is_cut_off_anywhere_or_goes_on_is_damaged(folder):
    whole = (folder / SINGLE).read_bytes()
    for end in range(len(whole)):
        (folder / SINGLE).write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"model\.safetensors is damaged: "):
            spans_of(folder / SINGLE)
    (folder / SINGLE).write_bytes(whole + b"x")
    with pytest.raises(UserError, match="its head says that it has"):
        spans_of(folder / SINGLE)


def headed(head, data=b"\0" * 8):
    text = head.encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape="[2]", offsets="[0, 8]"):
    return f'{{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (headed("[]"), "its head names no tensors"),
        (headed('{"a'), "its head cannot be read"),
        (headed('{"a": 1}'), "the place of a in it is not that of a tensor"),
        (headed(f'{{"a": {entry(shape="[3]")}}}'), "the place of a in it"),
        (headed(f'{{"a": {entry(shape="[-2]")}}}'), "the place of a in it"),
        (headed(f'{{"a": {entry(offsets="[8, 0]")}}}'), "the place of a in it"),
        (headed(f'{{"a": {entry(offsets="[-8, 0]")}}}'), "the place of a in it"),
        (headed(f'{{"a": {entry(dtype="Q4")}}}'), "a is stored as Q4"),
        (headed(f'{{"a": {entry()}, "a": {entry()}}}'), "a name stands there twice"),
        (headed(f'{{"a": {entry()}, "b": {entry()}}}'), "b does not begin where the tensor before it ends"),
        (headed(f'{{"a": {entry(offsets="[4, 12]")}}}', b"\0" * 12), "a does not begin"),
    ],
    ids=map(str, range(11)),
)
def test_a_head_that_lies_is_found_out(folder, content, said):
    (folder / SINGLE).write_bytes(content)
    with pytest.raises(UserError, match=said):
        spans_of(folder / SINGLE)


def test_an_index_that_does_not_fit_its_files_is_found_out(folder, tmp_path):
    shards = tmp_path / "shards"
    written(folder, shards, 60)
    text = (shards / INDEX).read_text()
    index = json.loads(text)
    first = index["weight_map"]["ü"]

    def said(change) -> str:
        (shards / INDEX).write_text(change if isinstance(change, str) else json.dumps(change))
        with pytest.raises(UserError) as error:
            tensors_of(shards)
        return str(error.value)

    assert f"{INDEX} cannot be used" in said("{")
    assert f"{INDEX} cannot be used: KeyError" in said({})
    assert "leads out of its folder" in said({"weight_map": {"a": "../x.safetensors"}})
    assert "the weights are not there: x.safetensors" in said({"weight_map": {"a": "x.safetensors"}})
    assert f"{first} does not hold z" in said({"weight_map": {**index["weight_map"], "z": first}})
    fewer = {name: file for name, file in index["weight_map"].items() if name != "ü"}
    assert f"{first} holds ü, of which {INDEX} says nothing" in said({"weight_map": fewer})
    (shards / INDEX).write_text(text)
    assert len(tensors_of(shards)) == len(NAMED)
    (shards / first).unlink()
    with pytest.raises(UserError, match=f"the weights are not there: {first}"):
        tensors_of(shards)


def test_no_file_at_all_is_named(tmp_path):
    with pytest.raises(UserError, match=r"the weights are not there: model\.safetensors"):
        tensors_of(tmp_path)
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read: No such file"):
        spans_of(tmp_path / SINGLE)


def test_equal_is_bit_by_bit(tmp_path):
    nan = torch.tensor([float("nan"), 0.0])
    save_file(
        {"a": nan, "b": nan.clone(), "c": torch.tensor([float("nan"), -0.0]), "d": nan.clone().reshape(2, 1)},
        tmp_path / SINGLE,
    )
    spans = tensors_of(tmp_path)
    assert are_equal(spans["a"], spans["b"])
    assert not are_equal(spans["a"], spans["c"])
    assert not are_equal(spans["a"], spans["d"])
