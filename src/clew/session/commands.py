"""What becomes of commands: a state machine without files, clocks or trainers.

Commands take effect at boundaries, which are numbered by the steps that are finished. The journal holds what was
carried out and where. An attempt that restores the state of step *k* has in it everything up to that state, and carries
out again, at the same boundaries, what the journal has besides: so the run goes on as if nothing had interrupted it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clew.runs import Command, Event

APPLIED = "applied"
DISK = "disk"
"""The issuer of pauses for want of space, which hold for their attempt only: the next one looks at the disk itself."""


@dataclass(frozen=True)
class Standing:
    """What the commands so far have led to.

    Attributes:
        pause_at: The boundary from which on the run is paused; None when nothing pauses it.
        settings: Values in force over those of the config.
    """

    pause_at: int | None = None
    settings: Mapping[str, float | str] = field(default_factory=dict)

    def is_paused(self, step: int) -> bool:
        """Whether a run that has finished so many steps makes no further one."""
        return self.pause_at is not None and step >= self.pause_at


@dataclass(frozen=True)
class Done:
    """A command that was carried out.

    Attributes:
        id: Its ULID.
        verb: What was done.
        at: The boundary.
        args: With what.
        result: What the verb had to say about it.
    """

    id: str
    verb: str
    at: int
    args: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, event: Event) -> Done:
        """Build from an event of the journal."""
        return cls(event["id"], event["verb"], event["at"], event.get("args") or {}, event.get("result") or {})


Fold = Callable[[Standing, Done], Standing]
"""What a verb makes of a standing; a pure function."""


def unchanged(standing: Standing, done: Done) -> Standing:
    """The fold of a verb after which a run goes on as before."""
    return standing


@dataclass(frozen=True)
class Rule:
    """What the state machine knows of a verb.

    Attributes:
        fold: What it makes of the standing, once it is carried out.
        lapses: Whether it was meant for the attempt at that time, and not for one that is started later.
    """

    fold: Fold = unchanged
    lapses: bool = False


class Ledger:
    """Which commands wait, which are next, which are settled, and what they have led to.

    Args:
        rules: The verbs that there are.
        history: The run's ``command`` events so far, in the order of the journal.
        asked: When the present attempt was asked for, in Unix seconds.
        config_hash: Of the run.

    Attributes:
        standing: What the commands carried out up to here have led to.
        alarm: The first boundary at which there is something to do; infinite while there is nothing.
    """

    def __init__(
        self, rules: Mapping[str, Rule], history: Iterable[Event] = (), *, asked: float = 0.0, config_hash: str = ""
    ) -> None:
        self._rules = rules
        self._asked = asked
        self._config_hash = config_hash
        events = list(history)
        self._settled = {str(event.get("id")) for event in events}
        self._applied = [Done.of(event) for event in events if self._counts(event)]
        self._replays: list[Done] = []
        self._waiting: list[Command] = []
        self._begun: set[str] = set()
        self._here: tuple[int, list[str]] = (0, [])
        self.standing = Standing()
        self.alarm: float = math.inf
        self.restore(0)

    def restore(
        self, step: int, *, settings: Mapping[str, float | str] | None = None, contained: Iterable[str] = ()
    ) -> None:
        """Go on from a state: what it does not contain is to be carried out again.

        Args:
            step: The finished steps of that state.
            settings: Those in force in it.
            contained: Which of the commands that were carried out at this very boundary it contains.
        """
        inside = set(contained)
        past = [one for one in self._applied if one.at < step or (one.at == step and one.id in inside)]
        ids = {one.id for one in past}
        # In the order of the boundaries: a later attempt may have been told something at an earlier step.
        self._replays = sorted((one for one in self._applied if one.id not in ids), key=lambda one: one.at)
        self.standing = Standing(settings=dict(settings or {}))
        self._here = (step, [])
        for one in sorted(past, key=lambda one: one.at):
            self._take(one)
        self._set_alarm()

    def contained(self, step: int) -> list[str]:
        """Return the commands of this boundary that have been carried out; a state that is saved now contains them."""
        return list(self._here[1]) if self._here[0] == step else []

    def replay(self, step: int) -> list[Done]:
        """Take what earlier attempts were told up to this boundary as done again, and return it."""
        due = [replace(one, at=step) for one in self._replays if one.at <= step]
        self._replays = self._replays[len(due) :]
        for one in due:
            self._take(one)
        self._set_alarm()
        return due

    def receive(self, commands: Iterable[Command]) -> list[Command]:
        """Take in commands in the order of their arrival; return those that were settled before and came again."""
        again = []
        for command in commands:
            if command.id in self._settled:
                again.append(command)
            elif command.id not in self._begun and all(command.id != waiting.id for waiting in self._waiting):
                self._waiting.append(command)
        self._set_alarm()
        return again

    def next(self, step: int) -> Command | None:
        """Return the first command about which something is to be done at this boundary; None when there is none."""
        return next((command for command in self._waiting if _from(command) <= step), None)

    def refusal(self, command: Command, step: int) -> str:
        """Return why a command is not to be carried out at this boundary, as an outcome; empty when it is."""
        rule = self._rules.get(command.verb)
        if rule is None:
            return "rejected: not a command"
        if rule.lapses and command.at is None and command.sent < self._asked:
            return "expired: the run was resumed after it"
        if not self._config_hash.startswith(command.if_config):
            return f"rejected: the run's config is {self._config_hash[:12]}, not {command.if_config}"
        if command.before is not None and step >= command.before:
            return f"expired: it was for a step before {command.before}, and {step} are done"
        if command.at is not None and step > command.at:
            return f"rejected: step {command.at} has passed, {step} are done"
        return ""

    def begin(self, command: Command) -> None:
        """Take note that a command is under way: it is not next any more, and it is not settled yet."""
        self._waiting = [waiting for waiting in self._waiting if waiting.id != command.id]
        self._begun.add(command.id)
        self._set_alarm()

    def settle(self, command: Command, step: int, outcome: str, result: Mapping[str, Any] | None = None) -> None:
        """Take note of what has become of a command.

        Args:
            command: Which.
            step: The boundary.
            outcome: :data:`APPLIED`, or why it was not.
            result: What the verb had to say about it.
        """
        self.begin(command)
        self._settled.add(command.id)
        if outcome == APPLIED:
            self._take(Done(command.id, command.verb, step, command.args, result or {}))
        self._set_alarm()

    @property
    def waiting(self) -> list[Command]:
        """The commands that are neither carried out nor refused yet, in the order of their arrival."""
        return list(self._waiting)

    def _counts(self, event: Event) -> bool:
        """Whether an event tells of something that was carried out; a damaged journal may hold others."""
        applied = event.get("outcome") == APPLIED and event.get("verb") in self._rules
        return applied and isinstance(event.get("at"), int) and event.get("issuer") != DISK

    def _take(self, done: Done) -> None:
        self.standing = self._rules[done.verb].fold(self.standing, done)
        if done.at >= self._here[0]:  # what took long is settled at a later boundary than its own
            self._here = (done.at, [*self.contained(done.at), done.id])

    def _set_alarm(self) -> None:
        steps = [_from(command) for command in self._waiting]
        steps += [one.at for one in self._replays[:1]]
        steps += [] if self.standing.pause_at is None else [self.standing.pause_at]
        self.alarm = min(steps, default=math.inf)


def _from(command: Command) -> float:
    """The first boundary at which something is to be done about a command."""
    return min(_or(command.at, -math.inf), _or(command.before, math.inf))


def _or(step: int | None, otherwise: float) -> float:
    return otherwise if step is None else step
