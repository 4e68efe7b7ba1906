from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from clew.errors import UserError
from clew.train.devices import prepare, resolve_device


def pretend(monkeypatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_best_that_is_there(cuda, mps, expected, monkeypatch):
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert resolve_device("auto").type == expected


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    pretend(monkeypatch, cuda=False, mps=False)
    with pytest.raises(UserError, match=r"runtime.device is 'cuda', but this machine has none\n  set runtime"):
        resolve_device("cuda")


def test_the_seed_sets_every_generator():
    def draw() -> tuple[float, float, float]:
        prepare("cpu", None, 2**40)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        prepare("cpu", 1, 0)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
