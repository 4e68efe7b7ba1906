"""A trainer in several processes, as the first one's session sees it: each call is made in all of them.

The session, its saver and the verbs know nothing of ranks. What they ask of the trainer goes through this surface,
which tells the others to do the same. So every rank does the same things between the same two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

from clew.errors import UserError
from clew.inspection.samples import Scorer, Scores, Selection
from clew.session.ranks import Channel
from clew.session.settings import Setting
from clew.session.surface import (
    Checkable,
    Digestible,
    Evaluable,
    MergeRequest,
    Resettable,
    Scorable,
    Selectable,
    Snapshotting,
    Surface,
    capable,
    idle,
    settings_of,
)

if TYPE_CHECKING:
    from clew.inspection.samples import Ids


@runtime_checkable
class Sealing(Protocol):
    """A surface that has something to add to its files once every rank has written its own."""

    def seal(self, directory: Path) -> None:
        """Complete what lies in a directory; called by the first rank, in any thread, and reads nothing but files."""


class JointSurface:
    """The surface of all ranks; for the first one.

    Args:
        surface: Its own.
        channel: To the others, of the thread that trains.
        beside: To the others, of the thread that writes snapshots.
        folder: The run's directory, which all ranks read.
    """

    def __init__(self, surface: Surface, channel: Channel, beside: Channel, folder: Path) -> None:
        self._surface = surface
        self._folder = folder
        self._channel = channel
        self._beside = beside
        self._snapshots = 0

    def save(self, directory: Path) -> None:
        """Let every rank write its part, and complete it."""
        self._channel.jointly(partial(self._surface.save, directory), do="save", directory=str(directory))
        self._seal(directory)

    def load(self, directory: Path) -> None:
        """Restore every rank."""
        self._channel.jointly(partial(self._surface.load, directory), do="load", directory=str(directory))

    def snapshot(self) -> Callable[[Path], None]:
        """Keep the state of this moment in every rank."""
        number, self._snapshots = self._snapshots, self._snapshots + 1
        write = self._channel.jointly(capable_of_snapshots(self._surface).snapshot, do="snapshot", number=number)
        return partial(self._write, write, number)

    def settings(self) -> Sequence[Setting]:
        """Return what can be set; it is written in every rank."""
        return [replace(setting, write=partial(self._set, setting)) for setting in settings_of(self._surface)]

    def idle(self) -> AbstractContextManager[None]:
        """Surround a time in which nothing is done on purpose."""
        return idle(self._surface)

    def evaluate(self) -> Mapping[str, float]:
        """Measure the model as it is, with all ranks."""
        found: Mapping[str, float] = self._channel.jointly(capable(self._surface, Evaluable).evaluate, do="evaluate")
        return found

    def digests(self) -> Mapping[str, str]:
        """Return hashes of the state as if it was in one process."""
        found: Mapping[str, str] = self._channel.jointly(capable(self._surface, Digestible).digests, do="digests")
        return found

    def health(self) -> Mapping[str, Any]:
        """Say how the training is doing."""
        found: Mapping[str, Any] = self._channel.jointly(capable(self._surface, Checkable).health, do="health")
        return found

    def reset(self, checkpoint: Path | None, *, optimizer: bool) -> None:
        """Put every rank back."""
        own = partial(capable(self._surface, Resettable).reset, checkpoint, optimizer=optimizer)
        folder = None if checkpoint is None else str(checkpoint)
        self._channel.jointly(own, do="reset", checkpoint=folder, optimizer=optimizer)

    def select(self, selection: Selection | None) -> None:
        """Let every rank train on the same samples: their numbers go by way of a file, as they may be many."""
        from clew.inspection.stored import store  # needs numpy

        own = partial(capable(self._surface, Selectable).select, selection)
        self._channel.jointly(own, do="select", stored=store(self._folder, selection).name)

    def scorer(self, split: str) -> Scorer:
        """Return what lets every rank look at samples."""
        return JointScorer(capable(self._surface, Scorable).scorer(split), split, self._channel)

    def merge(self, request: MergeRequest) -> Mapping[str, Any]:
        """Refuse: it is one of the things that are done in one process only."""
        _refuse("nothing can be merged")

    def _set(self, setting: Setting, value: Any) -> None:
        self._channel.jointly(partial(setting.write, value), do="set", name=setting.name, value=value)

    def _write(self, own: Callable[[Path], None], number: int, directory: Path) -> None:
        self._beside.jointly(partial(own, directory), number=number, directory=str(directory))
        self._seal(directory)

    def _seal(self, directory: Path) -> None:
        if isinstance(self._surface, Sealing):
            self._surface.seal(directory)


class JointScorer:
    """The scorer of all ranks, for the first one: what they find together, each of them knows.

    Args:
        scorer: Its own.
        split: What is scored.
        channel: To the others.
    """

    def __init__(self, scorer: Scorer, split: str, channel: Channel) -> None:
        self.batch_size = scorer.batch_size
        self._scorer = scorer
        self._split = split
        self._channel = channel

    def __len__(self) -> int:
        return len(self._scorer)

    def score(self, ids: Ids, *, tokens: bool = False) -> Scores:
        """Score the samples of these ids [B] with all ranks."""
        own = partial(self._scorer.score, ids, tokens=tokens)
        found: Scores = self._channel.jointly(own, do="score", split=self._split, ids=ids.tolist())
        return found

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return what is known of these samples; for that no other rank is needed."""
        return self._scorer.fields(ids)


def capable_of_snapshots(surface: Surface) -> Snapshotting:
    """Return a surface that can be saved while it trains on.

    Raises:
        TypeError: If it is none: what runs in several ranks must be.
    """
    if not isinstance(surface, Snapshotting):
        raise TypeError(f"{type(surface).__name__} has no snapshot(), which runs of several ranks need")
    return surface


def _refuse(what: str) -> NoReturn:
    raise UserError(
        f"{what} in a run of several ranks", hint="stop it, and go on in one process: clew resume RUN --ranks 1"
    )
