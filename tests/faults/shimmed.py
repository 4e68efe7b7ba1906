"""Processes whose file system fails where it is told to, from the side of a test."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Mode(IntEnum):
    """What happens at the call; the numbers are those of ``shim.c``."""

    OFF = 0
    KILL = 1
    """The process is killed before it."""
    TORN = 2
    """The process is killed after it, and in the middle of it where it writes."""
    ERROR = 3
    SHORT = 4
    """A write takes half of what it is given."""
    FULL = 5
    """This call and all that come fail."""
    HALT = 6
    """The process is stopped before it, until somebody lets it go on."""
    RECORD = 7


class Kind(IntEnum):
    """Kinds of calls; the numbers are those of ``shim.c``."""

    MAKE = 1
    WRITE = 2
    SYNC = 4
    NAME = 8
    REMOVE = 16
    CUT = 32


EVERY = sum(Kind)
TAKES_SPACE = Kind.MAKE | Kind.WRITE | Kind.CUT


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at one call.

    Attributes:
        mode: What.
        kinds: Which calls are counted.
        errno: What a failing call says.
    """

    mode: Mode
    kinds: int = EVERY
    errno: int = 0


KILLED, TORN = Fault(Mode.KILL), Fault(Mode.TORN)
NO_SPACE = Fault(Mode.ERROR, TAKES_SPACE | Kind.SYNC | Kind.NAME, errno.ENOSPC)
BROKEN = Fault(Mode.ERROR, EVERY, errno.EIO)
SHORT = Fault(Mode.SHORT, Kind.WRITE)
FULL = Fault(Mode.FULL, TAKES_SPACE, errno.ENOSPC)
FAULTS = {"killed": KILLED, "torn": TORN, "no space": NO_SPACE, "broken": BROKEN, "short": SHORT, "full": FULL}


@dataclass(frozen=True)
class Ended:
    """How a process came out of it.

    Attributes:
        end: ``killed``, ``raised`` or ``ended``; anything else is a bug.
        marks: What it has told others is safe.
        count: The calls that it made, unless it was killed.
        error: What it raised.
    """

    end: str
    marks: list[str] = field(default_factory=list)
    count: int = 0
    error: str = ""

    @property
    def survived(self) -> bool:
        """Whether the process got to its own end."""
        return self.end != "killed"


class Zygote:
    """Starts processes that meet faults.

    Args:
        shim: The compiled ``shim.c``.
        scratch: A folder for what they say.
    """

    def __init__(self, shim: Path, scratch: Path) -> None:
        self._scratch = scratch
        paths = [HERE, HERE.parent, HERE.parent / "lineage", os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "LD_PRELOAD": str(shim),
            "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with (scratch / "stderr").open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, HERE / "zygote.py", shim],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                text=True,
            )
        self._number = 0

    def run(
        self,
        scenario: str,
        folder: Path,
        fault: Fault,
        number: int = 1,
        *,
        trace: Path | None = None,
        meanwhile: Callable[[int], None] = lambda pid: None,
    ) -> Ended:
        """Carry a scenario out with a fault at the ``number``-th call.

        Args:
            scenario: Its name.
            folder: Where; calls below it are counted.
            fault: What goes wrong.
            number: At which call.
            trace: Where :attr:`Mode.RECORD` writes.
            meanwhile: Called with the process's number while it runs.
        """
        self._number += 1
        marks = self._scratch / f"marks-{os.getpid()}-{self._number}"
        asked = {
            "scenario": scenario,
            "folder": str(folder),
            "mode": int(fault.mode),
            "number": number,
            "errno": fault.errno,
            "kinds": fault.kinds,
            "trace": str(trace) if trace else "",
            "marks": str(marks),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        meanwhile(self._told()["pid"])
        told = self._told()
        lines = marks.read_text().splitlines() if marks.exists() else []
        marks.unlink(missing_ok=True)
        return Ended(told["end"], [line for line in lines if not line.startswith("=")], told["count"], told["error"])

    def close(self) -> None:
        """Ask for nothing more."""
        self._process.communicate(timeout=30)

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self._scratch / "stderr").read_text()
        value: dict[str, Any] = json.loads(line)
        return value


def compiled(folder: Path) -> Path | str:
    """Compile the shim; returns it, or why that cannot be."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return "the shim needs Linux and a C compiler"
    made = folder / "shim.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", made, HERE / "shim.c", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return made if done.returncode == 0 else f"the shim could not be compiled: {done.stderr.strip()[-300:]}"


@contextmanager
def zygote(folder: Path) -> Iterator[Zygote]:
    """Give a :class:`Zygote`; raises RuntimeError where there can be none."""
    shim = compiled(folder)
    if isinstance(shim, str):
        raise RuntimeError(shim)
    made = Zygote(shim, folder)
    try:
        yield made
    finally:
        made.close()
