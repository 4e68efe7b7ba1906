"""The inbox: commands as files, one atomic rename each, consumed at the worker's next boundary.

It is a maildir: a sender writes a hidden file and renames it, so a reader never sees half a command. Ids sort by time.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clew.errors import UserError, did_you_mean
from clew.runs.files import write_json
from clew.runs.ids import ulid

VERBS = ("stop", "checkpoint", "answer")
RESCAN_SECONDS = 2.0


@dataclass(frozen=True)
class Command:
    """Something that somebody asks of a live run."""

    verb: str
    args: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=ulid)
    issuer: str = ""
    sent: float = 0.0


class Inbox:
    """The commands that wait for one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = str(folder)
        self._changed = -1
        self._listed = 0.0

    def send(self, verb: str, **args: Any) -> Command:
        """Put a command into the inbox and return it.

        Raises:
            UserError: If there is no such verb.
        """
        if verb not in VERBS:
            raise UserError(f"unknown command {verb!r}", hint=did_you_mean(verb, VERBS))
        command = Command(verb, args, issuer=_user(), sent=time.time())
        write_json(self._folder / f"{command.id}.json", asdict(command))
        return command

    def poll(self) -> list[Command]:
        """Return waiting commands in the order of their ids; costs one ``stat`` when nothing changed.

        The folder is listed every two seconds as well, because network file systems cache attributes.
        """
        now = time.monotonic()
        changed = os.stat(self._path).st_mtime_ns  # noqa: PTH116 - once a step: a Path costs twice as much
        if changed == self._changed and now - self._listed < RESCAN_SECONDS:
            return []
        self._changed, self._listed = changed, now
        return [self._read(path) for path in sorted(self._folder.glob("*.json")) if not path.name.startswith(".")]

    def remove(self, command: Command) -> None:
        """Take a command away, after its outcome is in the journal."""
        (self._folder / f"{command.id}.json").unlink(missing_ok=True)

    @staticmethod
    def _read(path: Path) -> Command:
        """Read one command; a file that is none becomes the verb ``?``, which the session rejects."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return Command(**{**value, "id": path.stem})
        except (ValueError, TypeError):
            return Command("?", id=path.stem)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
