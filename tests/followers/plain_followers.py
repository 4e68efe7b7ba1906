"""Trackers as somebody would write them for a run: each is one config class and what it opens."""

from __future__ import annotations

import json
import time
from pathlib import Path

import clew
from clew.errors import UserError
from clew.followers import Follower, FollowerConfig


class LinesFile(Follower):
    """A line of JSON for each event."""

    def __init__(self, path: Path, trouble: str, failures: int) -> None:
        super().__init__()
        self.place = str(path)
        self._path = path
        self._trouble = trouble
        self._failures = failures

    def send(self, events):
        if self._trouble == "hangs":
            time.sleep(1000)
        tries = self._path.with_suffix(".tries")
        with tries.open("a") as stream:
            stream.write("x")
        if self._trouble == "fails" and len(tries.read_text()) <= self._failures:
            raise ConnectionError("nobody answers")
        with self._path.open("a") as stream:
            stream.writelines(json.dumps(event) + "\n" for event in events)
        self.memory["sent"] = self.memory.get("sent", 0) + len(events)

    def close(self, result):
        with self._path.with_suffix(".ends").open("a") as stream:
            stream.write(f"{result.status if result else 'goes on'}\n")


@clew.config
class Lines(FollowerConfig):
    """Lines in a file of the run directory."""

    file: str = "lines"
    trouble: str = ""
    failures: int = 2

    def open(self, run, memory):
        if self.trouble == "refuses":
            raise UserError("this will never work", hint="do something else")
        return LinesFile(run.path / "following" / self.file, self.trouble, self.failures)
