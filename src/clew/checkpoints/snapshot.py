"""The state of a moment, kept while the training goes on.

What is small is copied at once. Tensors are copied by a thread beside the training, and whoever is about to change
them waits for that first (:meth:`Snapshots.settle`). A step changes weights and moments only at its end, so the copies
are made while it computes its gradients, and it waits for what is left of them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor


def to_memory(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor of any device in the CPU's memory."""
    return tensor.detach().to("cpu", copy=True)


class Snapshots:
    """Keeps states that are about to change; used by one thread, the one that trains.

    Several snapshots between two changes share their copies. All copies are made by one thread, one tensor after the
    other, and those that nobody wants any more are left out.

    Args:
        copy: Copies a tensor; what comes out shares no memory with it.
    """

    def __init__(self, copy: Callable[[Tensor], Tensor] = to_memory) -> None:
        self._copy = copy
        self._thread: ThreadPoolExecutor | None = None
        # By the tensor's id, which is its own as long as the copy holds the tensor.
        self._begun: weakref.WeakValueDictionary[int, _Copy] = weakref.WeakValueDictionary()

    def take(self, state: Any) -> Callable[[], Any]:
        """Keep a state as it is now.

        Args:
            state: Nested dicts, lists and tuples of tensors and of what never changes, such as numbers. Nobody may
                change the tensors before :meth:`settle` returned.

        Returns:
            Gives the state, with its tensors on the CPU, in any thread; it waits until they are copied, and raises
            what went wrong with them. Whoever drops it gives the memory back.
        """
        return partial(_made, self._kept(state))

    def settle(self) -> None:
        """Wait until everything is copied that somebody still wants; from then on tensors may be changed."""
        if self._begun:
            for copy in list(self._begun.values()):
                copy.wait()
                copy.source = None
            self._begun.clear()

    def _kept(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._begin(value)
        if isinstance(value, dict):
            return {key: self._kept(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            kept = [self._kept(item) for item in value]
            return tuple(kept) if isinstance(value, tuple) else kept
        return value

    def _begin(self, tensor: Tensor) -> _Copy:
        copy = self._begun.get(id(tensor))
        if copy is None:
            copy = self._begun[id(tensor)] = _Copy(tensor)
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="snapshot")
            self._thread.submit(_make, weakref.ref(copy), self._copy)
        return copy


class _Copy:
    """A tensor's copy that another thread makes."""

    def __init__(self, source: Tensor) -> None:
        self.source: Tensor | None = source
        self._done = threading.Event()
        self._made: Tensor | None = None
        self._error: BaseException | None = None

    def make(self, copy: Callable[[Tensor], Tensor]) -> None:
        """Copy the tensor; what goes wrong is kept for whoever wants the copy."""
        assert self.source is not None, "a tensor is let go of only after it was copied"
        try:
            self._made = copy(self.source)
        except BaseException as error:
            self._error = error
        self._done.set()

    def wait(self) -> None:
        """Wait until the tensor is copied, or could not be."""
        self._done.wait()

    def result(self) -> Tensor:
        """Return the copy, or raise what went wrong."""
        self.wait()
        if self._made is None:
            raise RuntimeError(f"a tensor could not be copied: {self._error}") from self._error
        return self._made


@torch.no_grad()
def _make(wanted: weakref.ref[_Copy], copy: Callable[[Tensor], Tensor]) -> None:
    """Make a copy, unless it was given up before its turn came."""
    if (one := wanted()) is not None:
        one.make(copy)


def _made(value: Any) -> Any:
    if isinstance(value, _Copy):
        return value.result()
    if isinstance(value, dict):
        return {key: _made(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        made = [_made(item) for item in value]
        return tuple(made) if isinstance(value, tuple) else made
    return value
