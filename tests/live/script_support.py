"""Scripts that open a session, written to a folder and run there by a process of their own, or in this one."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import TypeVar

from clew.live.script import Origin
from clew.runs import Run

T = TypeVar("T")

WALK = """
    import json
    import os
    import signal
    import sys

    from clew.live.script import open_session


    class Walk:
        done, value = 0, 0.0

        def save(self, directory):
            (directory / "walk.json").write_text(json.dumps([self.done, self.value]))

        def load(self, directory):
            self.done, self.value = json.loads((directory / "walk.json").read_text())


    with open_session(name="walk", params={"until": 6, "by": 1.5}) as session:
        walk, params = Walk(), session.config.params
        session.attach(walk)
        while walk.done < params["until"]:
            walk.done += 1
            walk.value += params["by"]
            session.log(walk.done, value=walk.value)
            {middle}
            session.boundary(walk.done)
    print("the end")
"""


def write_script(folder: Path, text: str = WALK, *, middle: str = "pass", name: str = "train.py") -> Path:
    """Write a script; ``middle`` is a statement of the walk's loop."""
    path = folder / name
    path.write_text(dedent(text).replace("{middle}", middle))
    return path


def run_script(path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as ``python`` does, in its own folder, which is its workspace."""
    return subprocess.run(
        [sys.executable, path.name, *words],
        cwd=path.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_of(folder: Path, name: str = "walk") -> Run:
    """Return a run of the folder's workspace."""
    return Run(folder / "runs" / name)


def apart(body: Callable[[], T]) -> T:
    """Call something as a process of its own would: what sessions there were, it does not know."""
    return contextvars.copy_context().run(body)


def typed(folder: Path) -> Origin:
    """An origin of somebody who types."""
    return Origin(None, folder=str(folder))
