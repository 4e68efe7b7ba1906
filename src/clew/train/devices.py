"""What every worker sets up before it touches a model: device, threads, seeds."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from clew.errors import UserError
from clew.session.ranks import Ranks


def resolve_device(name: str) -> torch.device:
    """Return the device of a name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: If the device that was asked for is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in present.items() if there))
    if not present[name]:
        raise UserError(
            f"runtime.device is {name!r}, but this machine has none", hint="set runtime.device=auto, or leave it out"
        )
    return torch.device(name)


def prepare_rank(device: str, threads: int | None, seed: int, ranks: Ranks) -> torch.device:
    """Do what :func:`prepare` does, for one of several processes on this machine.

    Each takes its part of the processor's threads, unless a number is said, and a CUDA device of its own.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: Of each process.
        seed: The same for all.
        ranks: All of them.

    Raises:
        UserError: If the device that was asked for is not there, or not often enough.
    """
    if ranks.size == 1:
        return prepare(device, threads, seed)
    found = prepare(device, threads or max(1, (os.cpu_count() or 1) // ranks.size), seed)
    if found.type == "mps" or (found.type == "cuda" and torch.cuda.device_count() < ranks.size):
        raise UserError(
            f"there are not {ranks.size} devices of {found.type} on this machine",
            where="runtime.ranks",
            hint="lower runtime.ranks, or set runtime.device=cpu",
        )
    if found.type == "cuda":
        found = torch.device("cuda", ranks.rank)
        torch.cuda.set_device(found)
    return found


def prepare(device: str, threads: int | None, seed: int) -> torch.device:
    """Set the CPU threads, seed every random generator, and return the device.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: None keeps PyTorch's own choice.
        seed: Not negative.

    Raises:
        UserError: If the device that was asked for is not there.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return resolve_device(device)
