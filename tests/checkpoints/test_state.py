import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clew.checkpoints.rng import rng_state, set_rng_state
from clew.checkpoints.state import load_state, save_state

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8]).map(
        lambda dtype: torch.arange(6).reshape(2, 3).to(dtype)
    ),
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(alphabet="ab.$", max_size=3), st.integers(0, 5)), inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=8,
)


def equal(left, right):
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return (
            isinstance(right, dict) and list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
        )
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and left == right


@given(states)
def test_any_state_comes_back_as_it_was(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("state")
    save_state(folder, "state", state)
    assert equal(load_state(folder, "state"), state)


def test_what_a_checkpoint_cannot_hold_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"state\.a\.1 is a set"):
        save_state(tmp_path, "state", {"a": [1, {2}]})


def test_tied_tensors_are_saved(tmp_path):
    weight = torch.ones(3)
    save_state(tmp_path, "state", {"a": weight, "b": weight, "view": torch.arange(6).reshape(2, 3).t()})
    loaded = load_state(tmp_path, "state")
    assert torch.equal(loaded["a"], loaded["b"])
    assert torch.equal(loaded["view"], torch.arange(6).reshape(2, 3).t())


def draw():
    return random.random(), np.random.rand(), np.random.normal(), torch.rand(3).tolist(), random.gauss(0, 1)


def test_every_generator_goes_on_where_it_was(tmp_path):
    draw()
    save_state(tmp_path, "rng", rng_state())
    expected = [draw(), draw()]
    draw()
    set_rng_state(load_state(tmp_path, "rng"))
    assert [draw(), draw()] == expected
