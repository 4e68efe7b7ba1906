"""Whoever sits at the terminal of a pipeline: sees what happens, and is asked when a stage waits."""

from __future__ import annotations

import os
import select
import sys

from clew.cli.progress import ProgressWatcher
from clew.plans import CHOICES, Question


class TerminalAttendant:
    """Asks at the terminal, if there is one, without ever waiting for it: an answer may come from elsewhere as well.

    Args:
        watcher: Shows what there is to say.
        descriptor: Where answers are read; None means stdin.
        present: Whether a person sits there; None asks the system.
    """

    def __init__(self, watcher: ProgressWatcher, *, descriptor: int | None = None, present: bool | None = None) -> None:
        self._watcher = watcher
        self._present = _has_terminal() if present is None else present
        self._descriptor = descriptor
        self._asked = ""
        self._read = b""

    def note(self, text: str) -> None:
        """Show something."""
        self._watcher.note(text)

    def answer(self, question: Question) -> str | None:
        """Return what was typed, once it is one of the choices; prompts when the question is new.

        Raises:
            EOFError: At the end of the input.
        """
        if not self._present:
            return None
        if self._asked != question.id:
            self._asked = question.id
            self._watcher.hold()
            for choice, meaning in CHOICES.items():
                self._watcher.note(f"  {choice:<9} {meaning}")
            self._prompt(question)
        line = self._line()
        if line is None:
            return None
        found = [choice for choice in CHOICES if line and choice.startswith(line.lower())]
        if len(found) == 1:
            self._asked = ""
            return found[0]
        self._prompt(question)
        return None

    def _prompt(self, question: Question) -> None:
        print(f"{question.stage}: {', '.join(CHOICES)}? ", end="", flush=True)

    def _line(self) -> str | None:
        """Return a line that was typed; None while there is none."""
        descriptor = sys.stdin.fileno() if self._descriptor is None else self._descriptor
        if b"\n" not in self._read:
            if not select.select([descriptor], [], [], 0)[0]:
                return None
            try:
                more = os.read(descriptor, 4096)
            except OSError:  # the terminal is gone
                more = b""
            if not more:
                print(flush=True)
                raise EOFError
            self._read += more
        line, newline, rest = self._read.partition(b"\n")
        if not newline:
            return None
        self._read = rest
        return line.decode(errors="replace").strip()


def _has_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # closed, or none at all
        return False
