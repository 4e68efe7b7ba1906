"""What has happened in a run, in a line for each event that is worth one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clew.cli.text import figures, number, one_line, size
from clew.errors import cause
from clew.reports.formats import clean, to_float
from clew.runs import Event
from clew.session.commands import APPLIED

Tone = Literal["plain", "good", "bad"]

_LONGEST = 300
_EVALUATED = ("val_", "eval_", "test_")
"""Metrics that begin so come from an evaluation and not from every step."""


@dataclass(frozen=True)
class Line:
    """One thing that has happened.

    Attributes:
        seconds: When, in Unix seconds.
        step: After how many steps; None where that says nothing.
        text: What.
        tone: How it is to be taken.
        command: The id of the command that it is the outcome of; empty for anything else.
    """

    seconds: float
    step: int | None
    text: str
    tone: Tone = "plain"
    command: str = ""

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step}: "
        return f"{time.strftime('%H:%M:%S', time.localtime(self.seconds))}  {step}{self.text}"


Told = tuple[str, Tone] | None


def tell(event: Event) -> Line | None:
    """Return what an event is told as; None for those that are not told one by one, such as most metrics."""
    teller = _TELLERS.get(str(event.get("kind")))
    told = teller(event) if teller else None
    if told is None:
        return None
    text, tone = told
    step = event.get("step", event.get("at"))
    command = str(event.get("id", "")) if event.get("kind") == "command" else ""
    shown = one_line(clean(text), _LONGEST)
    return Line(to_float(event.get("t")) or 0.0, step if isinstance(step, int) else None, shown, tone, command)


def _attempt(event: Event) -> Told:
    return f"attempt {event['attempt']} begins", "plain"


def _restore(event: Event) -> Told:
    return ("goes on from here", "plain") if event.get("step") else None


def _changed(event: Event) -> Told:
    changes = {**(event.get("keys") or {}), **(event.get("set") or {})}
    said = ", ".join(f"{key}={value}" for key, value in changes.items())
    return f"from now on: {said or event.get('target')}", "plain"


def _went_back(event: Event) -> Told:
    return f"went back to step {event.get('to')}: what came later counts no longer", "plain"


def _command(event: Event) -> Told:
    outcome = str(event.get("outcome"))
    words = [str(event.get("verb")), *_words(event.get("args"))]
    issuer = f" (by {event['issuer']})" if event.get("issuer") else ""
    result = "".join(f"; {word}" for word in _words(event.get("result")))
    return f"{' '.join(words)} {outcome}{issuer}{result}", "good" if outcome == APPLIED else "bad"


def _words(given: Any) -> list[str]:
    """Arguments or results as words; what is nested is left to ``clew show``."""
    if not isinstance(given, Mapping):
        return []
    plain = {name: value for name, value in given.items() if isinstance(value, str | int | float)}
    return [f"{name}={_word(value)}" for name, value in plain.items()]


def _word(value: str | float) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _checkpoint(event: Event) -> Told:
    metric = to_float(event.get("metric"))
    until = ", until the next" if event.get("due") == "halfway" else ""
    return f"checkpoint saved{until}{'' if metric is None else f', rated {number(metric)}'}", "plain"


def _bad_checkpoint(event: Event) -> Told:
    return f"the checkpoint cannot be used: {event.get('problem')}", "bad"


def _fetched(event: Event) -> Told:
    missing, whole = size(to_float(event.get("fetched")) or 0), size(to_float(event.get("bytes")) or 0)
    return f"no checkpoint here can be used; fetched from {event.get('source')} ({missing} of {whole})", "bad"


def _unsaved(event: Event) -> Told:
    return f"the state could not be saved: {event.get('reason')}", "bad"


def _metric(event: Event) -> Told:
    values = event.get("values")
    measured = {name: value for name, value in values.items() if name.startswith(_EVALUATED)} if values else {}
    return (f"evaluated: {figures(measured)}", "plain") if measured else None


def _artifact(event: Event) -> Told:
    num_bytes = to_float(event.get("bytes"))
    return f"artifact {event.get('name')}{'' if num_bytes is None else f', {size(num_bytes)}'}", "plain"


def _health(event: Event) -> Told:
    verdict = str(event.get("verdict", ""))
    return (f"health: {verdict}", "plain") if verdict else None


def _trouble(event: Event) -> Told:
    return f"{event.get('reason')}; on_nan: {event.get('on_nan')}", "bad"


def _progress(event: Event) -> Told:
    return f"{event.get('done')}/{event.get('total')} {event.get('what')}", "plain"


def _switched(event: Event) -> Told:
    return f"its process goes on as {event.get('child')}", "plain"


def _failure(event: Event) -> Told:
    return cause(str(event.get("error")), str(event.get("reason"))), "bad"


_TELLERS: Mapping[str, Callable[[Event], Told]] = {
    "attempt": _attempt,
    "restore": _restore,
    "changed": _changed,
    "went_back": _went_back,
    "command": _command,
    "paused": lambda event: ("paused", "plain"),
    "resumed": lambda event: ("no longer paused", "plain"),
    "checkpoint": _checkpoint,
    "checkpoint_bad": _bad_checkpoint,
    "checkpoint_fetched": _fetched,
    "checkpoint_failed": _unsaved,
    "disk_full": _unsaved,
    "metric": _metric,
    "artifact": _artifact,
    "health": _health,
    "trouble": _trouble,
    "progress": _progress,
    "switched": _switched,
    "failure": _failure,
}
