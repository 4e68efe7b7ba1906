"""The process that bears those which meet a fault: started once, with the shim before it, and forked for each of them.

It is asked by a line of JSON, ``{"scenario", "folder", "mode", "number", "errno", "kinds", "trace", "marks"}``, and
answers with ``{"pid"}`` at once and ``{"end", "count", "error"}`` when the child has ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scenarios import SCENARIOS

SECONDS = 60
"""After which a child that hangs is killed by the alarm clock, which nobody expects."""


def main() -> None:
    """Bear children until nobody asks any more."""
    shim = ctypes.CDLL(sys.argv[1])
    # What git says of the code around is no matter here, and takes most of a run's time.
    os.environ["PATH"] = ""
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _be(shim, asked)
        _answer({"pid": child})
        _, status = os.waitpid(child, 0)
        _answer(_end_of(status, Path(asked["marks"])))


def _be(shim: ctypes.CDLL, asked: Mapping[str, Any]) -> None:
    """Carry a scenario out and leave; never returns."""
    signal.alarm(SECONDS)
    marks = os.open(asked["marks"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    trace = os.open(asked["trace"], os.O_WRONLY | os.O_CREAT, 0o600) if asked["trace"] else -1
    end = {"error": ""}

    def mark(text: str) -> None:
        os.write(marks, f"{text}\n".encode())
        shim.shim_mark(text.encode())

    folder = asked["folder"]
    shim.shim_arm(asked["mode"], ctypes.c_long(asked["number"]), asked["errno"], asked["kinds"], folder.encode(), trace)
    try:
        SCENARIOS[asked["scenario"]].body(Path(folder), mark)
    except BaseException as error:
        end["error"] = f"{type(error).__name__}: {error}"
    count = shim.shim_count()
    shim.shim_arm(0, ctypes.c_long(0), 0, 0, b"/", -1)
    os.write(marks, f"={json.dumps({**end, 'count': count})}\n".encode())
    os._exit(1 if end["error"] else 0)


def _end_of(status: int, marks: Path) -> dict[str, Any]:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return {"end": "killed" if number == signal.SIGKILL else signal.Signals(number).name, "count": 0, "error": ""}
    said = json.loads(marks.read_text().splitlines()[-1].removeprefix("="))
    return {"end": "raised" if said["error"] else "ended", **said}


def _answer(value: Mapping[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
