"""What every worker sets up before it touches a model: device, threads, seeds."""

from __future__ import annotations

import random

import numpy as np
import torch

from clew.errors import UserError


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
