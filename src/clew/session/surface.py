"""What a session needs of whatever trains, and how a live run ends early.

Two methods are needed, ``save`` and ``load``. Each of the other protocols here is a capability: a trainer that has it
takes the commands that need it. One that cannot do something in its present shape raises a :class:`clew.UserError` with
the reason, and the command is rejected with that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import Field

from clew.config import NOT_HASHED, Spelled, config
from clew.errors import UserError
from clew.inspection.samples import Scorer, Selection
from clew.runs import State
from clew.session.settings import Setting


class Surface(Protocol):
    """The control surface of a trainer: its complete state, out and in.

    Complete means that a fresh trainer that loads it goes on bitwise as the saved one would have: weights, optimizer,
    schedule, random generators, data position, selection.
    """

    def save(self, directory: Path) -> None:
        """Write the complete state as files into an empty directory."""

    def load(self, directory: Path) -> None:
        """Take over the state that :meth:`save` wrote there."""


@runtime_checkable
class Adjustable(Protocol):
    """A surface that lets some of its numbers be changed between two steps: ``clew set``."""

    def settings(self) -> Sequence[Setting]:
        """Return what can be set, with the bounds of the moment."""


@runtime_checkable
class Timed(Protocol):
    """A surface that measures how quick it is."""

    def idle(self) -> AbstractContextManager[None]:
        """Surround a time in which nothing is done on purpose."""


@runtime_checkable
class Snapshotting(Protocol):
    """A surface that can be saved while it trains on: ``clew fork`` then hardly holds it up."""

    def snapshot(self) -> Callable[[Path], None]:
        """Keep the complete state of this moment, and return what writes it into an empty directory.

        What is returned is called once, in another thread, while the training goes on; it writes what :meth:`save`
        would have written now. It may be given up without being called.
        """


@runtime_checkable
class Evaluable(Protocol):
    """A surface that can be evaluated between two steps: ``clew evaluate``."""

    def evaluate(self) -> Mapping[str, float]:
        """Measure the model as it is, and change nothing: not even a random generator."""


@runtime_checkable
class Resettable(Protocol):
    """A surface that can be put back: ``clew reset``. Steps and data position go on as if nothing had happened."""

    def reset(self, checkpoint: Path | None, *, optimizer: bool) -> None:
        """Take the weights of a checkpoint, and its optimizer's state with them.

        Args:
            checkpoint: What :meth:`Surface.save` wrote; None keeps the weights.
            optimizer: Forget what the optimizer knows (its moments) instead of taking it from the checkpoint.
        """


@runtime_checkable
class Selectable(Protocol):
    """A surface whose data can be chosen: ``clew select``."""

    def select(self, selection: Selection | None) -> None:
        """Train on these samples from the next batch on; None is all of them again."""


@runtime_checkable
class Scorable(Protocol):
    """A surface that can look at single samples: ``clew inspect``, and selections by loss."""

    def scorer(self, split: str) -> Scorer:
        """Return what scores a split with the weights of the moment; the ids of ``train`` are those of selections.

        Raises:
            UserError: If there is no such split.
        """


@dataclass(frozen=True)
class MergeRequest:
    """A merge into a live trainer.

    Attributes:
        sources: Checkpoints, what :meth:`Surface.save` wrote there, in the order of the request; None stands for the
            weights of the moment.
        names: What each is called in messages.
        method: The method's ``type`` and options, as in a config.
        weights: One for each source, or empty for 1 each.
        optimizer: What becomes of the optimizer's state.
        seed: Of methods that draw at random.
        base: A checkpoint that all sources came from, for methods that ask how they differ from it.
        scratch: A folder on a disk with room for the weights, where they are gathered; None is the system's.
        own: A checkpoint of the live trainer itself, to see whether the others' models mean the same; None without any.
    """

    sources: Sequence[Path | None]
    names: Sequence[str]
    method: Mapping[str, Any]
    weights: Sequence[float] = ()
    optimizer: Literal["keep", "reset"] = "reset"
    seed: int = 0
    base: Path | None = None
    scratch: Path | None = None
    own: Path | None = None


@runtime_checkable
class Mergeable(Protocol):
    """A surface into which other weights can be merged: ``clew merge --into``."""

    def merge(self, request: MergeRequest) -> Mapping[str, Any]:
        """Take the merged weights, and return what there is to say about it, as JSON. All of it, or nothing.

        Raises:
            UserError: If the sources do not fit together; with the differences.
        """


@runtime_checkable
class Digestible(Protocol):
    """A surface whose state can be compared with that of another run: ``clew verify``, ``clew replay``."""

    def digests(self) -> Mapping[str, str]:
        """Return short hashes of the state: ``weights`` and ``optimizer``, and whatever else is worth naming."""


@runtime_checkable
class Checkable(Protocol):
    """A surface that can say how the training is doing: ``clew health``."""

    def health(self) -> Mapping[str, Any]:
        """Return numbers and a verdict, as JSON; see :mod:`clew.health`."""


CapabilityT = TypeVar("CapabilityT")

_CANNOT: dict[Any, str] = {
    Evaluable: "this job has nothing to evaluate while it runs",
    Resettable: "this job cannot be put back",
    Selectable: "this job's data cannot be chosen while it runs",
    Scorable: "this job cannot look at single samples",
    Mergeable: "nothing can be merged into this job",
    Digestible: "this job's state cannot be compared",
    Checkable: "this job does not say how it is doing",
}


def capable(surface: object, of: type[CapabilityT]) -> CapabilityT:
    """Return the surface as one that can do something.

    Args:
        surface: A surface, or None where a job has none.
        of: The protocol.

    Raises:
        UserError: If it cannot.
    """
    if isinstance(surface, of):
        return surface
    raise UserError(_CANNOT[of])


def settings_of(surface: Surface | None) -> Sequence[Setting]:
    """Return what can be set; nothing for a surface that is not adjustable."""
    return surface.settings() if isinstance(surface, Adjustable) else ()


def idle(surface: Surface | None) -> AbstractContextManager[None]:
    """Surround the time in which a run is paused."""
    return surface.idle() if isinstance(surface, Timed) else nullcontext()


@config
class CheckpointConfig:
    """When to save, and what to keep."""

    every: Annotated[int | None, Field(ge=1), NOT_HASHED] = 50
    """Save after this many steps; null saves by time alone, or when asked."""
    minutes: Annotated[float | None, Field(gt=0), NOT_HASHED] = None
    """Save, besides, after the step at which this much time has passed since the last save; null looks at no clock."""
    keep_last: Annotated[int, Field(ge=1), NOT_HASHED] = 2
    """How many of the newest checkpoints to keep; the best by validation loss is kept besides."""
    keep_every: Annotated[int | None, Field(ge=1), NOT_HASHED] = None
    """Keep the checkpoints of steps that are multiples of this for good; null keeps none so."""
    asynchronous: Annotated[bool, NOT_HASHED] = True
    """Go on training while what is due is written, from a copy in memory, where the trainer can do that. What is asked
    for is always waited for."""
    halfway: Annotated[bool, NOT_HASHED] = True
    """Where the training goes on while its state is written, save halfway between two saves as well, so that a crash
    costs `every` steps at most. Such a checkpoint stays until the next is safe. False writes half as much, and a crash
    costs the steps of a write besides: twice `every` at most."""
    mirror: Annotated[str, Spelled(r"^([A-Za-z][A-Za-z0-9+.:-]*://.+)?$", "like SCHEME://PLACE"), NOT_HASHED] = ""
    """Send the newest and the best checkpoint there after each save, in the background: s3://BUCKET/PATH or another URL
    of fsspec; {run} in it becomes the run's name. It cannot fail or delay the run."""

    def is_at(self, step: int) -> bool:
        """Whether a step is one of every so many at which a save is due."""
        return self.every is not None and step % self.every == 0

    def is_halfway(self, step: int) -> bool:
        """Whether a step lies halfway between two such steps, and a save is due there if it need not be waited for.

        The next save waits for the one before. So a crash costs the steps since the last save but one, and these two
        are never further apart than ``every``.
        """
        every = self.every or 1
        return every > 1 and self.asynchronous and self.halfway and step % every == every // 2


@config
class LiveConfig:
    """What a live run notes about itself, and what it does in trouble."""

    digest_every: Annotated[int | None, Field(ge=1), NOT_HASHED] = 500
    """Note a hash of weights and optimizer after so many steps, by which runs are compared; null never does."""
    health_every: Annotated[int | None, Field(ge=1), NOT_HASHED] = None
    """Note how the training is doing after so many steps; null does when asked."""
    on_nan: Annotated[Literal["stop", "pause", "rollback"], NOT_HASHED] = "stop"
    """When loss or gradient are no longer finite: fail; wait for somebody; or go on from the newest checkpoint's
    weights, with the data that comes next."""


@dataclass(frozen=True)
class Outcome:
    """What a job returns: its final figures, and notes for the result that are no figures."""

    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of some metrics: ``{low, high, method, ...}``, at 95 %."""
    notes: dict[str, Any] = field(default_factory=dict)


class RunStopped(BaseException):
    """Unwinds a job whose state is safe; no error, so no ``except Exception`` on the way may catch it.

    Args:
        state: ``stopped`` (somebody asked) or ``interrupted`` (a signal came).
        reason: For the journal.
        step: Where the run stands.
    """

    def __init__(self, state: State, reason: str, step: int) -> None:
        super().__init__(f"{state} at step {step}: {reason}")
        self.state = state
        self.reason = reason
        self.step = step
