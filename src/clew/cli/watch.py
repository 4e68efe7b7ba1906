"""``clew watch``: look at a run while it goes on, and steer it with keys."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clew.cli.finding import find_run, workspace_of
from clew.cli.text import is_terminal
from clew.errors import UserError, require
from clew.runs import ACTIVE, Run, State, Workspace

if TYPE_CHECKING:
    from clew.cli.parser import Parser

_LIGHT = ("7", "15")
_PATIENCE_SECONDS = 60.0
"""How long a fork waits for a run to come to its next step; it is made then, too, if that takes longer."""


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument(
        "name", metavar="RUN", nargs="?", default="", help="which (default: the newest live one, else the newest)"
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a screen, as where there is no terminal")


def main(arguments: Namespace) -> int:
    """Show a run; in plain lines until it is over, and then with the exit code of ``clew run``."""
    workspace = workspace_of(arguments)
    if arguments.name:
        run = find_run(workspace, arguments.name, purpose="has no curves of its own")
    else:
        run = newest(workspace)
    run.states.read()  # says what is damaged
    if arguments.plain or not _can_draw():
        return _follow(run)
    require("textual", extra="live")
    from clew.cli.screen.app import WatchApp

    WatchApp(run, fork=_fork, theme=_theme()).run()
    return 0


def newest(workspace: Workspace) -> Run:
    """Return the newest live run, or the newest of all when none is alive.

    Raises:
        UserError: If there is none at all.
    """
    runs = workspace.list_runs()
    if not runs:
        raise UserError("there is no run", where=str(workspace.root), hint="clew run FILE starts one")
    return next((run for run in reversed(runs) if run.state in ACTIVE), runs[-1])


def _follow(run: Run) -> int:
    from clew import api
    from clew.cli.outcome import conclude
    from clew.cli.screen.lines import follow

    if run.state is State.CREATED:
        raise UserError("it has not been started", where=run.id, hint=f"clew resume {run.id} starts it")
    return conclude(run, api.result_of(run, follow(run)))


def _fork(run: Run, *, name: str, overrides: Sequence[str]) -> str:
    from clew import api

    return api.fork(run, name=name, overrides=overrides, wait=_PATIENCE_SECONDS).name


def _can_draw() -> bool:
    """Whether there is a terminal on both ends that can be drawn in."""
    return is_terminal() and sys.stdin.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def _theme() -> str:
    """A light theme where the terminal says that it is light (``COLORFGBG``); ``TEXTUAL_THEME`` goes before."""
    is_light = os.environ.get("COLORFGBG", "").rpartition(";")[2] in _LIGHT
    return "textual-light" if is_light and "TEXTUAL_THEME" not in os.environ else ""
