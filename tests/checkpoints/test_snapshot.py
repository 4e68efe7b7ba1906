from __future__ import annotations

import gc
import threading
import weakref
from collections import namedtuple

import pytest
import torch
from torch import Tensor

from clew.checkpoints.snapshot import Snapshots, to_memory

PATIENCE = 20.0


class Gate:
    """Copies only when it is open, and remembers what it copied."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.copied: list[float] = []

    def __call__(self, tensor: Tensor) -> Tensor:
        self.entered.set()
        assert self.open.wait(PATIENCE)
        self.copied.append(float(tensor.flatten()[0]))
        return to_memory(tensor)


def full(value: float) -> Tensor:
    return torch.full((3,), value)


def test_a_snapshot_is_the_state_of_its_moment():
    snapshots, weight, latest = Snapshots(), full(1), {"loss": 3.0}
    state = {"model": {"w": weight}, "latest": latest, "pair": (1, [weight]), "none": None}
    kept = snapshots.take(state)
    snapshots.settle()
    weight.fill_(2)
    latest["loss"] = 1.0
    found = kept()
    assert torch.equal(found["model"]["w"], full(1))
    assert torch.equal(found["pair"][1][0], full(1))
    assert (found["latest"], found["pair"][0], found["none"]) == ({"loss": 3.0}, 1, None)


def test_copies_keep_dtype_and_numbers_and_share_no_memory():
    snapshots = Snapshots()
    tensors = [
        torch.randn(4, 6, requires_grad=True),
        torch.randn(4, 6).t(),
        torch.arange(5, dtype=torch.uint8),
        torch.zeros(()),
        torch.randn(3, dtype=torch.bfloat16),
        torch.empty(0),
    ]
    for tensor, copy in zip(tensors, snapshots.take(tensors)(), strict=True):
        assert copy.dtype == tensor.dtype
        assert torch.equal(copy, tensor)
        assert not copy.requires_grad
        assert copy.numel() == 0 or copy.data_ptr() != tensor.data_ptr()


def test_taking_waits_for_nothing_and_settling_for_every_copy():
    gate = Gate()
    snapshots, state = Snapshots(gate), [full(number) for number in range(5)]
    kept = snapshots.take(state)
    assert gate.entered.wait(PATIENCE)
    assert gate.copied == []
    gate.open.set()
    snapshots.settle()
    assert gate.copied == [0, 1, 2, 3, 4]
    for tensor in state:
        tensor.fill_(9)
    assert [float(tensor[0]) for tensor in kept()] == [0, 1, 2, 3, 4]


def test_settling_without_a_snapshot_needs_no_thread():
    before = threading.active_count()
    Snapshots().settle()
    assert threading.active_count() == before


def test_snapshots_of_one_moment_share_their_copies_and_those_of_two_do_not():
    gate = Gate()
    gate.open.set()
    snapshots, weight = Snapshots(gate), full(1)
    one, two = snapshots.take({"w": weight, "step": 1}), snapshots.take({"w": weight, "step": 2})
    snapshots.settle()
    assert gate.copied == [1]
    weight.fill_(2)
    later = snapshots.take({"w": weight, "step": 3})
    snapshots.settle()
    assert gate.copied == [1, 2]
    assert [float(found["w"][0]) for found in (one(), two(), later())] == [1, 1, 2]
    assert [found["step"] for found in (one(), two(), later())] == [1, 2, 3]


def test_any_number_of_snapshots_have_one_thread():
    before = threading.active_count()
    snapshots = Snapshots()
    kept = [snapshots.take([full(number)]) for number in range(50)]
    assert threading.active_count() <= before + 1
    assert [float(one()[0][0]) for one in kept] == list(range(50))


def test_what_is_given_up_is_not_copied_any_more_and_nobody_waits_for_it():
    gate = Gate()
    snapshots = Snapshots(gate)
    wanted = snapshots.take([full(1)])
    assert gate.entered.wait(PATIENCE)
    given_up = snapshots.take([full(2), full(3)])
    del given_up
    gc.collect()
    gate.open.set()
    snapshots.settle()
    assert torch.equal(wanted()[0], full(1))
    # The thread has passed them by when it comes to what was asked for after them.
    assert torch.equal(snapshots.take([full(4)])()[0], full(4))
    assert gate.copied == [1, 4]


@pytest.mark.parametrize("settled", [True, False])
def test_giving_up_frees_the_memory(settled):
    snapshots, source = Snapshots(), full(1)
    kept = snapshots.take({"w": source})
    copy = weakref.ref(kept()["w"])
    if settled:
        snapshots.settle()
    assert copy() is not None
    del kept
    # What the thread did last it may still have at hand.
    assert snapshots.take([full(2)])
    snapshots.take([full(3)])()
    gc.collect()
    assert copy() is None


def test_what_trains_on_is_let_go_of_when_it_is_copied():
    """An optimizer that loads another state gives its tensors up; a writer that is at work must not hold them."""
    snapshots, source = Snapshots(), full(1)
    kept, alive = snapshots.take([source]), weakref.ref(source)
    snapshots.settle()
    del source
    gc.collect()
    assert alive() is None
    assert torch.equal(kept()[0], full(1))


def test_an_error_of_the_copy_is_raised_by_whoever_wants_it_and_not_by_the_training():
    def full_memory(tensor: Tensor) -> Tensor:
        if float(tensor[0]) == 2:
            raise MemoryError("no room")
        return to_memory(tensor)

    snapshots = Snapshots(full_memory)
    kept = snapshots.take([full(1), full(2), full(3)])
    snapshots.settle()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="could not be copied: no room"):
            kept()
    assert torch.equal(snapshots.take([full(4)])()[0], full(4))


def test_tuples_with_names_are_plain_ones_to_a_state():
    """As in :mod:`clew.checkpoints.state`: a state is of dicts, lists and tuples."""
    pair = namedtuple("pair", "one two")(full(1), 2)
    found = Snapshots().take({"pair": pair})()["pair"]
    assert torch.equal(found[0], full(1))
    assert found[1] == 2
