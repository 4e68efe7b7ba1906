"""The training data of a Lightning trainer: one batch at a time, taken at the moment at which it is fetched.

Lightning counts batches and never looks at their size, so an epoch stays as many batches as the loader had when the
training began, whatever becomes of batch size and selection.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from clew.checkpoints.rng import rng_state, set_rng_state
from clew.data.feed import Feed
from clew.errors import UserError
from clew.live.torch_data import samples_of
from clew.live.torch_parts import storable


class TrainData(Protocol):
    """Where batches come from, with a position that can be kept."""

    @property
    def feed(self) -> Feed | None:
        """What says which samples come next; None where that is the loader's own affair."""

    def begin(self) -> None:
        """Begin an epoch with the next batch."""

    def changed(self) -> None:
        """Fetch nothing that was prepared before the feed changed."""

    def __next__(self) -> Any: ...

    def state(self) -> dict[str, Any]:
        """Return where the data stands."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class Rows:
    """A map-style data set from which a feed chooses.

    Args:
        loader: A loader with the usual batches; its data set, collation and workers are used.
        seed: Of the order.
    """

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        samples = samples_of(loader)
        self.feed: Feed = Feed(samples.size, seed, samples.batch_size or 1, shuffled=samples.shuffled)
        self._samples = samples
        self._loader = loader
        self._batches: Iterator[Any] | None = None
        self._ahead = bool(loader.num_workers or loader.pin_memory)

    def begin(self) -> None:
        """Nothing: the feed has no end."""

    def changed(self) -> None:
        """Give up what workers have fetched ahead."""
        self._batches = None

    def __next__(self) -> Any:
        if not self._ahead:
            return self._samples.fetch(self.feed.take())
        if self._batches is None:
            self._batches = self._fetching()
        batch = next(self._batches)
        self.feed.take()
        return batch

    def state(self) -> dict[str, Any]:
        """Return where the data stands."""
        state: dict[str, Any] = storable(self.feed.state())
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.feed.load(state)
        self.changed()

    def _fetching(self) -> Iterator[Any]:
        """Fetch batches with the loader's own means; its workers run ahead of the feed."""
        loader = self._loader
        ahead = loader.num_workers and {
            "prefetch_factor": loader.prefetch_factor,
            "multiprocessing_context": loader.multiprocessing_context,
        }
        return iter(
            DataLoader(
                loader.dataset,
                batch_sampler=_Ahead(self.feed),
                num_workers=loader.num_workers,
                collate_fn=loader.collate_fn,
                pin_memory=loader.pin_memory,
                timeout=loader.timeout,
                worker_init_fn=loader.worker_init_fn,
                generator=torch.Generator(),  # or the seed of the workers would be drawn from what the model draws from
                **(ahead or {}),
            )
        )


class _Ahead:
    """The ids of a feed's coming batches; the feed itself stays where it is."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def __iter__(self) -> Iterator[list[int]]:
        ahead = copy.copy(self._feed)
        while True:
            yield ahead.take().tolist()


class Stream:
    """A loader that chooses its samples itself; after a resume it is read again up to where it was.

    Args:
        loader: Anything that can be iterated over.
    """

    feed = None

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._batches: Iterator[Any] | None = None
        self._taken = 0
        self._begun: dict[str, Any] = {}

    def begin(self) -> None:
        """Read from the beginning."""
        self._batches = None

    def changed(self) -> None:
        """Nothing: nothing can be changed."""

    def __next__(self) -> Any:
        batch = next(self._opened() if self._batches is None else self._batches)
        self._taken += 1
        return batch

    def _opened(self) -> Iterator[Any]:
        self._begun = {"rng": rng_state(), "generators": [one.get_state() for one in _generators(self._loader)]}
        batches: Iterator[Any] = iter(self._loader)
        self._batches, self._taken = batches, 0
        return batches

    def state(self) -> dict[str, Any]:
        """Return how many batches of the epoch were taken, and what could be drawn from when it began."""
        return {"taken": 0 if self._batches is None else self._taken, "begun": self._begun}

    def load(self, state: dict[str, Any]) -> None:
        """Begin the epoch as it began then, and pass over what was taken."""
        self._batches = None
        if not state["taken"]:
            return
        set_rng_state(state["begun"]["rng"])
        for generator, begun in zip(_generators(self._loader), state["begun"]["generators"], strict=True):
            generator.set_state(begun)
        for _ in islice(self._opened(), state["taken"]):
            self._taken += 1


def _generators(loader: Any) -> list[torch.Generator]:
    """The generators that a loader and its sampler draw from, where they have some of their own."""
    places = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    found = [getattr(place, "generator", None) for place in places]
    return [one for one in found if isinstance(one, torch.Generator)]


def train_data(loader: Any, seed: int) -> TrainData:
    """Return where the batches of a loader come from.

    Args:
        loader: What Lightning was given.
        seed: Of the order, where a feed gives it.

    Raises:
        UserError: If it has no known length.
    """
    length(loader)
    return Stream(loader) if why_not_fed(loader) else Rows(loader, seed)


def why_not_fed(loader: Any) -> str:
    """Say why the samples of a loader cannot be chosen; empty when they can."""
    if not isinstance(loader, DataLoader):
        return f"the training data is a {type(loader).__name__}, not a DataLoader"
    data: Any = loader.dataset
    if isinstance(data, IterableDataset):
        return "the training data is an IterableDataset, whose samples have no numbers"
    if type(loader.batch_sampler) is not BatchSampler:
        return "the training data has a batch sampler of its own"
    sampler = loader.sampler
    whole = isinstance(sampler, RandomSampler) and not sampler.replacement and len(sampler) == len(data)
    if type(sampler) is SequentialSampler or (type(sampler) is RandomSampler and whole):
        return ""
    return f"the training data has a {type(sampler).__name__}, which chooses the samples"


def length(loader: Any) -> int:
    """Return the number of batches of a loader.

    Raises:
        UserError: If it does not say it.
    """
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        raise UserError(
            "the training data does not say how many batches it has",
            hint="Lightning then fetches a batch ahead of every step; give the loader or its data set a __len__",
        ) from None
