"""Which tensors of two checkpoints differ, and by how much."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clew.checkpoints.compare import compare_checkpoints
from clew.checkpoints.state import save_state


def folder(path: Path, **tensors: torch.Tensor) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    return path


def compared(tmp_path: Path, one: dict, other: dict):
    return compare_checkpoints(folder(tmp_path / "a", **one), folder(tmp_path / "b", **other))


def test_the_same_bits_are_the_same(tmp_path):
    state = {"w": torch.tensor([1.0, math.nan, -0.0]), "n": torch.tensor(3), "h": torch.ones(2, dtype=torch.bfloat16)}
    found = compared(tmp_path, state, state)
    assert (found.differences, found.same) == ((), 3)


def test_how_much_differs_is_measured(tmp_path):
    found = compared(tmp_path, {"w": torch.tensor([3.0, 4.0, 0.0])}, {"w": torch.tensor([3.0, 4.0, 1.0])})
    (one,) = found.differences
    assert (one.name, one.what, one.largest, one.values, one.size) == ("model: w", "", 1.0, 1, 3)
    assert one.relative == pytest.approx(0.2)


def test_bits_that_mean_the_same_number_differ_by_nothing(tmp_path):
    (one,) = compared(tmp_path, {"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([-0.0, 1.0])}).differences
    assert (one.largest, one.values) == (0.0, 1)


def test_a_number_and_none_are_infinitely_far_apart(tmp_path):
    (one,) = compared(tmp_path, {"w": torch.tensor([1.0])}, {"w": torch.tensor([math.nan])}).differences
    assert one.largest > 1e300


def test_what_is_only_in_one_or_has_another_layout_is_said(tmp_path):
    found = compared(
        tmp_path,
        {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)},
        {"b": torch.zeros(3), "c": torch.zeros(2, dtype=torch.int64), "d": torch.zeros(1)},
    )
    assert {one.name: one.what for one in found.differences} == {
        "model: a": "only in the first",
        "model: b": "float32 [2] against float32 [3]",
        "model: c": "float32 [2] against int64 [2]",
        "model: d": "only in the second",
    }


def test_numbers_before_the_names_of_a_state_do_not_matter(tmp_path):
    for name, more in (("a", {}), ("b", {"more": torch.zeros(1)})):
        (tmp_path / name).mkdir()
        save_state(tmp_path / name, "trainer", {**more, "model": {"w": torch.ones(2)}})
    found = compare_checkpoints(tmp_path / "a", tmp_path / "b")
    assert [one.name for one in found.differences] == ["trainer: more"]
    assert found.same == 1
