"""The inbox: commands as files, one atomic rename each, consumed at the worker's next boundary.

It is a maildir: a sender writes a hidden file and renames it, so a reader never sees half a command. Ids sort by time.
"""

from __future__ import annotations

import getpass
import json
import os
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.runs.files import write_json
from clew.runs.ids import ulid

if TYPE_CHECKING:
    from clew.runs.bell import Bell

RESCAN_SECONDS = 2.0
_TICK_NS = 50_000_000
"""A folder that changed so recently may change again at the same time: file systems count in some milliseconds."""


@dataclass(frozen=True)
class Command:
    """Something that somebody asks of a live run.

    Attributes:
        verb: What to do; ``?`` for a file that holds no command.
        args: With what.
        id: A ULID; a command that comes twice is carried out once.
        issuer: Who asks.
        sent: When, in Unix seconds.
        at: The step after which to carry it out; None means the next boundary.
        before: Expires at this step.
        if_config: Only for a run whose config hash begins so; empty means any.
    """

    verb: str
    args: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=ulid)
    issuer: str = ""
    sent: float = 0.0
    at: int | None = None
    before: int | None = None
    if_config: str = ""


class Inbox:
    """The commands that wait for one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = str(folder)
        self._changed = -1
        self._listed = 0.0
        self._bell: Bell | None = None

    def listen(self, tell: Callable[[], None] = lambda: None) -> None:
        """Hear what comes from now on, where the system can tell, instead of looking for it at every :meth:`poll`.

        Args:
            tell: Called, by another thread, when :meth:`poll` may return something.
        """
        from clew.runs.bell import Bell  # only for whoever asks after every step

        try:
            bell = Bell(self._folder, tell, every=RESCAN_SECONDS)
        except OSError:
            return  # looking does as well
        self.mute()
        weakref.finalize(self, bell.close).atexit = False
        self._bell = bell

    def mute(self) -> None:
        """Listen no more."""
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def send(self, verb: str, **args: Any) -> Command:
        """Put a command into the inbox and return it; whether it is one, its receiver decides."""
        return self.post(Command(verb, args))

    def post(self, command: Command) -> Command:
        """Put a command with its preconditions into the inbox, and return it with its issuer and its time."""
        command = replace(command, issuer=command.issuer or _user(), sent=command.sent or time.time())
        write_json(self._folder / f"{command.id}.json", asdict(command))
        if self._bell is not None:
            self._bell.ring()
        return command

    def poll(self) -> list[Command]:
        """Return waiting commands in the order in which they were sent; costs one ``stat`` when nothing changed.

        For one that listens (:attr:`is_heard`) it costs none. The folder is listed every two seconds as well, because
        network file systems cache attributes, and tell nothing of what other machines do.
        """
        now = time.monotonic()
        if not self._may_have_changed() and now - self._listed < RESCAN_SECONDS:
            return []
        self._listed = now
        return self.peek()

    @property
    def is_heard(self) -> bool:
        """Whether somebody is told when :meth:`poll` may return something; else it is to be asked after every step."""
        return self._bell is not None and self._bell.is_alive

    def _may_have_changed(self) -> bool:
        if self._bell is not None and self._bell.is_alive:
            return self._bell.take()
        changed = os.stat(self._path).st_mtime_ns  # noqa: PTH116 - once a step: a Path costs twice as much
        if changed == self._changed:
            return False
        may_change_unseen = 0 <= time.time_ns() - changed < _TICK_NS
        self._changed = -1 if may_change_unseen else changed
        return True

    def peek(self) -> list[Command]:
        """Return waiting commands in the order in which they were sent, changed or not."""
        found = [self._read(path) for path in self._folder.glob("*.json") if not path.name.startswith(".")]
        return sorted(found, key=lambda command: (command.sent, command.id))

    def remove(self, command: Command) -> None:
        """Take a command away, after its outcome is in the journal."""
        (self._folder / f"{command.id}.json").unlink(missing_ok=True)

    @staticmethod
    def _read(path: Path) -> Command:
        """Read one command; a file that is none becomes the verb ``?``, which the session rejects."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            command = Command(**{**value, "id": path.stem})
        except (ValueError, TypeError, OSError):
            return Command("?", id=path.stem)
        return command if all(_fits(command)) else Command("?", id=path.stem)


def _fits(command: Command) -> Iterator[bool]:
    """Whether each field has its type: anybody can write such a file."""
    yield from (isinstance(text, str) for text in (command.verb, command.issuer, command.if_config))
    yield from (step is None or type(step) is int for step in (command.at, command.before))
    yield isinstance(command.args, dict)
    yield type(command.sent) in (int, float)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
