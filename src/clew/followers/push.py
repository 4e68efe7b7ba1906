"""The follower that pushes: the run and its newest checkpoint whenever there is one, and all of it at the end.

While it pushes, further checkpoints may come; the next push then takes the newest. An error is worth another try as
long as the run lives, and for some hours after: what cannot be reached now may be there again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from clew.config import config
from clew.followers.base import Follower, FollowerConfig
from clew.remote import Part, PushConfig
from clew.runs import Event, JobResult, Run


@config
class PushFollowing(FollowerConfig):
    """Pushing a run while it goes on."""

    kind: ClassVar[str] = "push"
    environment: ClassVar[Mapping[str, str]] = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    linger: ClassVar[float] = 6 * 3600.0

    push: PushConfig
    """What the run's config says."""

    def open(self, run: Run, memory: Mapping[str, Any]) -> Follower:
        """Begin; nothing is asked of the location yet."""
        return _Pusher(run, self.push)


class _Pusher(Follower):
    def __init__(self, run: Run, settings: PushConfig) -> None:
        super().__init__()
        self._run = run
        self._settings = settings

    def send(self, events: Sequence[Event]) -> None:
        """Push once, however many checkpoints were saved since the last look; not for one that will soon be gone."""
        saved = [event for event in events if event["kind"] == "checkpoint" and event.get("due") != "halfway"]
        parts: list[Part] = [part for part in self._settings.what if part != "artifacts"]
        if parts and self._settings.when == "checkpoint" and saved:
            self._push(parts)

    def close(self, result: JobResult | None) -> None:
        """Push what the run was asked to leave there."""
        if result is not None:
            self._push(self._settings.what)

    def _push(self, parts: Sequence[Part]) -> None:
        from clew.remote.push import LaterState, push  # not before it is needed: it brings YAML and the client

        settings = self._settings

        def once() -> None:
            done = push(
                self._run, settings.to, parts, revision=settings.revision, public=settings.public, base=settings.base
            )
            self.place = done.remote.url

        try:
            once()
        except LaterState:
            once()  # somebody here may have pushed by hand while this was gathered; from elsewhere it stays later
