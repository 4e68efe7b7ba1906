"""What every job's config has, and what a job is."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, overload

from pydantic import Field

from clew.config import BETWEEN_ATTEMPTS, NOT_HASHED, Spelled, config
from clew.config.plugins import reference_of
from clew.errors import UserError
from clew.followers import Trackers
from clew.remote import PushConfig
from clew.runs.ids import NAME, NAME_IN_WORDS
from clew.session import CheckpointConfig, Outcome, Session

__all__ = ["CheckpointConfig", "Job", "JobConfig", "RuntimeConfig", "job"]


@config
class RuntimeConfig:
    """The device and the threads of the worker."""

    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], BETWEEN_ATTEMPTS] = "auto"
    """Where tensors live; auto takes CUDA, then MPS, then the CPU."""
    threads: Annotated[int | None, Field(ge=1), BETWEEN_ATTEMPTS] = None
    """CPU threads of the worker; null is PyTorch's own choice. One thread makes CPU runs repeat bitwise everywhere."""
    ranks: Annotated[int, Field(ge=1), NOT_HASHED] = 1
    """Processes that train together, each with its part of the batch or of the model, as `mesh` says; pretrain only."""


@config
class JobConfig:
    """Fields that every job has."""

    name: Annotated[str, NOT_HASHED, Spelled(f"^({NAME})?$", f"made of {NAME_IN_WORDS}")] = ""
    """The run's name and id, unique in its workspace; empty means one made from the job and the time."""
    notes: Annotated[str, NOT_HASHED] = ""
    """Free text that is kept with the run."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice: initial weights, sample order, dropout, sampling."""
    track: Trackers = Field(default_factory=list)
    """Trackers that are told what happens, such as {type: tensorboard}; they cannot fail or delay the run."""
    push: Annotated[PushConfig | None, NOT_HASHED] = None
    """Where to send the run while it goes on and when it ends, such as {to: "hf://owner/name"}."""

    def settled(self, runs: Path) -> Mapping[str, Any]:
        """Return what left open must be settled when the run is asked for: key to value, sections as mappings.

        A job overrides it where its config stands for something that may be another thing tomorrow.

        Args:
            runs: The folder of runs.

        Raises:
            UserError: If it cannot be settled.
        """
        return {}


ConfigT = TypeVar("ConfigT", bound=JobConfig)
Run = Callable[[Session[ConfigT]], Outcome]


@dataclass(frozen=True)
class Job(Generic[ConfigT]):
    """Something that can be run: a config class and a function of a session."""

    config: type[ConfigT]
    run: Run[ConfigT]
    summary: str
    """One line for ``clew jobs``."""
    check: Callable[[ConfigT, Path], None]
    """``check(config, runs_folder)`` raises a UserError for what can be known to fail before anything runs."""

    @property
    def reference(self) -> str:
        """A reference by which a worker process finds the job again."""
        return reference_of(self.run)


def ranks_of(config: JobConfig) -> int:
    """Return how many processes a config asks for."""
    runtime = vars(config).get("runtime")
    return runtime.ranks if isinstance(runtime, RuntimeConfig) else 1


def _check_ranks(name: str, check: Callable[[Any, Path], None], config: JobConfig, runs: Path) -> None:
    """Refuse several ranks for a job that knows nothing of them."""
    if ranks_of(config) > 1:
        raise UserError(f"{name} runs in one process", where="runtime.ranks", hint="leave it out")
    check(config, runs)


@overload
def job(run: Run[ConfigT], /) -> Job[ConfigT]: ...


@overload
def job(*, check: Callable[[Any, Path], None], ranks: bool = False) -> Callable[[Run[ConfigT]], Job[ConfigT]]: ...


def job(
    run: Run[Any] | None = None,
    /,
    *,
    check: Callable[[Any, Path], None] = lambda config, runs: None,
    ranks: bool = False,
) -> Any:
    """Make a function a job; its config class is taken from its annotation.

    Example::

        @clew.job
        def count(session: clew.Session[CountConfig]) -> clew.Outcome:
            \"\"\"Count to a number.\"\"\"

    Args:
        run: The function; its first parameter is the session.
        check: ``check(config, runs_folder)`` for ``clew check`` and for the moment before a start.
        ranks: Whether it can run in several processes together; its config has a ``runtime`` then.

    Returns:
        The :class:`Job`; without ``run``, what makes one of a function.

    Raises:
        TypeError: If the function's first parameter is not annotated ``Session[SomeConfig]``.
    """

    def made(run: Run[Any]) -> Job[Any]:
        annotation: Any = next(iter(typing.get_type_hints(run).values()), None)
        arguments = typing.get_args(annotation)
        if not arguments or not issubclass(arguments[0], JobConfig):
            raise TypeError(f"{run.__name__} must take a Session[C], C being a config class derived from JobConfig")
        checked = check if ranks else partial(_check_ranks, run.__name__, check)
        return Job(arguments[0], run, (run.__doc__ or run.__name__).strip().splitlines()[0], checked)

    return made if run is None else made(run)
