"""A run in plain lines, where there is no terminal to draw in."""

from __future__ import annotations

import time

from clew.cli.screen.telling import Line
from clew.cli.screen.watched import Look, Watched
from clew.cli.text import headline
from clew.runs import Run, State
from clew.targets.watching import is_over

_POLL_SECONDS = 0.2
_HISTORY = 10
"""How much of what happened before is said."""


def follow(run: Run, *, interval: float = 10.0) -> State:
    """Print what happens in a run until it is over, and return its state; Ctrl-C leaves it alone.

    Args:
        run: The run.
        interval: Seconds between two lines that say how far it is.
    """
    watched = Watched(run)
    look, history = _catch_up(watched)
    _print(run, f"{look.state}, attempt {look.attempt} ({run.path})")
    for line in history[-_HISTORY:]:
        _print(run, line)
    _print(run, _standing(look))
    said, step = time.monotonic(), look.step
    while not is_over(look.state):
        time.sleep(_POLL_SECONDS)
        look, news = _catch_up(watched)
        for line in news:
            _print(run, line)
        if time.monotonic() - said >= interval and look.step != step:
            said, step = time.monotonic(), look.step
            _print(run, _standing(look))
    if look.step != step:
        _print(run, _standing(look))
    _print(run, look.state)
    return look.state


def _catch_up(watched: Watched) -> tuple[Look, list[Line]]:
    """Look until there is nothing left to read."""
    look = watched.look()
    news = list(look.news)
    while look.is_behind:
        look = watched.look()
        news += look.news
    return look, news


def _standing(look: Look) -> str:
    return ", ".join(filter(None, (*look.standing, headline(look.metrics))))


def _print(run: Run, what: object) -> None:
    print(f"{run.id}: {what}", flush=True)
