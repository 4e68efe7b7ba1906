"""What a follower is: somebody who reads a run's journal as it grows, and does something with it elsewhere.

A follower never meets the run: it lives in a process beside the worker, and what becomes of it is of no consequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from clew.config import NOT_HASHED, Plugin, Registry, config
from clew.remote import PushConfig
from clew.runs import Event, JobResult, Run
from clew.session.surface import CheckpointConfig


class Follower:
    """One follower of one run. Everything it raises is taken as "try again later", but a UserError as "never"."""

    place: str = ""
    """A URL or a folder where the run can be seen, as soon as it is known."""

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {}
        """JSON that whoever goes on after this process is given; it is stored after each :meth:`send`."""

    def send(self, events: Sequence[Event]) -> None:
        """Hand events on; when it returns they count as delivered and are not sent again.

        Args:
            events: In the order of the journal, each with its ``attempt``, ``rank``, and the ``number`` that it has
                among all events of the run. After a crash between the delivery and the note of it, they come again.
                An attempt that goes on from an earlier step begins with a ``restore``: what was said of later steps
                before no longer counts.
        """
        raise NotImplementedError

    def close(self, result: JobResult | None) -> None:
        """Say how the run ended.

        Args:
            result: What came of it; None when it goes on without this follower, who only lets go then.
        """


@config
class FollowerConfig:
    """Who follows a run. Derive a config class from it, and let :meth:`open` return a :class:`Follower`."""

    kind: ClassVar[str] = "tracker"
    """What it is called in records."""
    replays: ClassVar[bool] = False
    """Whether a new follower is told everything from the start of the journal, since it finds out by itself what has
    arrived; otherwise it goes on where the last one had come to."""
    environment: ClassVar[Mapping[str, str]] = {}
    """Variables that a library wants to find in its process, unless the user has set them."""
    linger: ClassVar[float] = 60.0
    """Seconds without getting on, after the end of the run, until it is given up."""

    def open(self, run: Run, memory: Mapping[str, Any]) -> Follower:
        """Begin, or go on, to follow a run.

        Args:
            run: The run's directory; a follower writes only below its ``following/``.
            memory: What the last follower of this run remembered; empty for the first one.

        Raises:
            UserError: If it will never work, such as without a library.
        """
        raise NotImplementedError

    def missing(self) -> str:
        """Say in a line what is not installed; empty when nothing is missing."""
        return ""


def tracker_registry() -> Registry:
    """Return the trackers that ship, and those that installed packages offer under ``clew.trackers``."""
    return Registry(
        "tracker",
        {
            "tensorboard": "clew.followers.tensorboard:TensorBoard",
            "wandb": "clew.followers.wandb:WandB",
            "mlflow": "clew.followers.mlflow:MLflow",
        },
        "clew.trackers",
    )


def _all_different(trackers: list[FollowerConfig]) -> list[FollowerConfig]:
    """Two that are the same would write to one place."""
    if any(tracker in trackers[:index] for index, tracker in enumerate(trackers)):
        raise ValueError("the same tracker stands there twice")
    return trackers


Trackers = Annotated[list[Annotated[FollowerConfig, Plugin("tracker")]], NOT_HASHED, AfterValidator(_all_different)]


@config
class FollowingConfig:
    """The part of a job's config that says who follows its runs."""

    track: Trackers = Field(default_factory=list)
    """Trackers that are told what happens, such as {type: tensorboard}; they cannot fail or delay the run."""
    push: Annotated[PushConfig | None, NOT_HASHED] = None
    """Where to send the run while it goes on and when it ends."""
    checkpoint: Annotated[CheckpointConfig | None, NOT_HASHED] = None
    """Whose mirror says where to send checkpoints."""


def followers_of(settings: Any) -> dict[str, FollowerConfig]:
    """Return the followers that a config asks for, by names under which a run's directory knows them.

    Args:
        settings: A :class:`FollowingConfig`, or a job's config, which has the same fields.
    """
    registry = tracker_registry()
    found: dict[str, FollowerConfig] = {}
    for tracker in settings.track:
        word = registry.name_of(type(tracker)).rpartition(":")[2].rpartition(".")[2].lower()
        same = sum(name.partition("-")[0] == word for name in found)
        found[f"{word}-{same + 1}" if same else word] = tracker
    if settings.push is not None:
        from clew.followers.push import PushFollowing  # which is made of the classes above

        found["push"] = PushFollowing(push=settings.push)
    if mirror := _mirror(settings):
        from clew.followers.push import PushFollowing

        found["mirror"] = PushFollowing(push=PushConfig(to=mirror, what=["checkpoints", "run"]))
    return found


def _mirror(settings: Any) -> str:
    """Return where checkpoints are sent; a job may have something of its own under that name, or nothing."""
    saving = getattr(settings, "checkpoint", None)
    return saving.mirror if isinstance(saving, CheckpointConfig) else ""
