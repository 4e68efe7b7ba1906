"""The states of a run, the moves between them, and who may make them.

``state.json`` is the one file of a run that changes in place. It holds the state, the attempt number and the lease of
the process that owns the run. The attempt number is a fencing token: whoever commits anything shows the attempt that it
belongs to, and an owner that was replaced meanwhile is refused.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from clew.errors import ClewError
from clew.runs.damage import readable
from clew.runs.files import read_json, write_json

LEASE_SECONDS = 60.0


class State(StrEnum):
    """Where a run stands."""

    CREATED = "created"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"
    """Only ever said by an observer, never written: the lease has run out and nothing answers."""


ACTIVE = frozenset({State.STARTING, State.RUNNING, State.PAUSED})
OWNED = ACTIVE | {State.QUEUED}
RESUMABLE = frozenset({State.STOPPED, State.FAILED, State.INTERRUPTED})
FINAL = RESUMABLE | {State.COMPLETED}
_ENDS = frozenset({State.STOPPED, State.FAILED, State.INTERRUPTED})
MOVES: dict[State, frozenset[State]] = {
    State.CREATED: frozenset({State.QUEUED}),
    State.QUEUED: _ENDS | {State.STARTING},
    State.STARTING: _ENDS | {State.RUNNING},
    State.RUNNING: _ENDS | {State.PAUSED, State.COMPLETED},
    State.PAUSED: _ENDS | {State.RUNNING},
    State.COMPLETED: frozenset(),
    State.STOPPED: frozenset({State.QUEUED}),
    State.FAILED: frozenset({State.QUEUED}),
    State.INTERRUPTED: frozenset({State.QUEUED}),
}


def why_not_live(state: State) -> str:
    """Say why nobody is there to take a command; empty when somebody is."""
    if state is State.CREATED:
        return "it has not been started"
    if state is State.UNKNOWN:
        return "nothing answers there, and it may or may not be alive"
    if state in FINAL:
        return f"it is over: {state}"
    return ""


PLAN_MOVES = {**MOVES, State.COMPLETED: frozenset({State.QUEUED})}
"""A plan that has completed may be asked for again: it then runs what has changed."""


class IllegalMove(ClewError):
    """A state change that the table of moves does not have."""


class Fenced(ClewError):
    """The writer belongs to an attempt that has been replaced."""


@dataclass(frozen=True)
class Owner:
    """A process, named so that a later process with the same number is not taken for it."""

    host: str
    pid: int
    started: int | None
    """The kernel's start time in clock ticks since boot; None where there is no ``/proc``."""

    @classmethod
    def current(cls) -> Owner:
        """Return the calling process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Return the process ``pid`` of this machine."""
        return cls(socket.gethostname(), pid, _start_time(pid))

    def is_here(self) -> bool:
        """Say whether the process belongs to this machine."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Say whether the process runs; ask only where :meth:`is_here`."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.started is None or _start_time(self.pid) == self.started


def _start_time(pid: int) -> int | None:
    """Field 22 of ``/proc/PID/stat`` (proc(5)); the name in field 2 may hold blanks. A zombie counts as gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


@dataclass(frozen=True)
class RunState:
    """The content of ``state.json``."""

    state: State
    attempt: int = 0
    owner: Owner | None = None
    lease_until: float | None = None
    """Unix seconds up to which the owner is to be believed alive without asking."""
    reason: str = ""
    queued: float = 0.0
    """Unix seconds at which the present attempt was asked for."""
    changed: float = 0.0
    successor: str = ""
    """The run as which the owner's process goes on, after a ``fork --switch``."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RunState:
        """Build from the JSON form."""
        owner = value.get("owner")
        return cls(**{**value, "state": State(value["state"]), "owner": Owner(**owner) if owner else None})

    def observed(self, now: float) -> State:
        """Return what an observer may say: a dead owner here is interrupted, a silent one elsewhere is unknown."""
        if self.state not in OWNED or self.owner is None:
            return self.state
        if self.owner.is_here():
            return self.state if self.owner.is_alive() else State.INTERRUPTED
        expired = self.lease_until is not None and now > self.lease_until
        return State.UNKNOWN if expired else self.state


class StateFile:
    """``state.json`` with its lock: every change is read, checked and written under one exclusive lock.

    Args:
        folder: The directory of the run or plan.
        moves: Which moves are legal.
        lease: For how many seconds an owner is believed alive without asking.
        clock: Gives Unix seconds. It decides about owners on other machines only; the kernel knows those here.
    """

    def __init__(
        self,
        folder: Path,
        moves: Mapping[State, frozenset[State]] = MOVES,
        *,
        lease: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = folder / "state.json"
        self._lock = folder / ".lock"
        self._moves = moves
        self._lease = lease
        self._clock = clock

    def read(self) -> RunState:
        """Return the present state.

        Raises:
            DamagedRun: If the file is gone or holds no state.
        """
        with readable(self.path):
            return RunState.from_json(read_json(self.path))

    def create(self, state: RunState | None = None) -> None:
        """Write the first state: ``created``, unless the run has a past elsewhere."""
        write_json(self.path, (state or RunState(State.CREATED, changed=self._clock())).to_json())

    @contextmanager
    def locked(self) -> Iterator[RunState]:
        """Hold the lock and give the state as it is under it."""
        with self._lock.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield self.read()

    @contextmanager
    def holding(self, attempt: int) -> Iterator[None]:
        """Let nobody replace ``attempt`` while the body commits something, such as one rename.

        To look and then to write would leave a moment between both, in which a process can be stopped for hours.

        Raises:
            Fenced: If another attempt has taken over.
        """
        with self.locked() as now:
            self._fence(now, attempt)
            yield

    def check(self, attempt: int) -> None:
        """Raise :class:`Fenced` unless ``attempt`` is the current one."""
        self._fence(self.read(), attempt)

    def queue(self, reason: str = "", *, take_over: bool = False) -> int:
        """Open the next attempt and return its number.

        Args:
            reason: Why, for people.
            take_over: Take the run from an owner on another machine that has let its lease run out. Should it live all
                the same, it is refused at its next commit.

        Raises:
            IllegalMove: If the run is in a state that allows none, or its owner still lives. Of several callers at the
                same time exactly one gets through.
        """
        with self.locked() as now:
            gone = (State.INTERRUPTED, State.UNKNOWN) if take_over else (State.INTERRUPTED,)
            if now.observed(self._clock()) in gone and now.state in OWNED:
                now = replace(now, state=State.INTERRUPTED)
            attempt = now.attempt + 1
            self._write(now, State.QUEUED, attempt=attempt, owner=Owner.current(), reason=reason)
            return attempt

    def take_over(self, reason: str) -> int:
        """Take the run from an owner on another machine that has let its lease run out; it is interrupted then.

        Should the owner live all the same, it is refused at its next commit: its attempt is no longer the newest.

        Args:
            reason: Why, for people.

        Returns:
            The number that the owner's attempt was replaced by; whoever goes on opens the next one.

        Raises:
            IllegalMove: If nobody owns it, or its owner is to be believed alive. Of several callers at the same time
                exactly one gets through.
        """
        with self.locked() as now:
            if now.observed(self._clock()) is not State.UNKNOWN:
                raise IllegalMove("there is no owner that has let its lease run out", where=self.path.parent.name)
            self._write(now, State.INTERRUPTED, attempt=now.attempt + 1, owner=None, reason=reason)
            return now.attempt + 1

    def move(
        self, to: State, *, attempt: int, reason: str = "", owner: Owner | None = None, successor: str = ""
    ) -> None:
        """Change the state on behalf of ``attempt``; ``successor`` is the run as which its process goes on.

        Raises:
            Fenced: If another attempt has taken over.
            IllegalMove: If the table has no such move.
        """
        with self.locked() as now:
            self._fence(now, attempt)
            self._write(now, to, attempt=attempt, owner=owner or now.owner, reason=reason, successor=successor)

    def renew(self, attempt: int) -> None:
        """Let the lease begin anew; raises :class:`Fenced` like :meth:`move`."""
        with self.locked() as now:
            self._fence(now, attempt)
            write_json(self.path, replace(now, lease_until=self._clock() + self._lease).to_json())

    def _fence(self, now: RunState, attempt: int) -> None:
        if now.attempt != attempt:
            raise Fenced(
                f"attempt {attempt} was replaced by attempt {now.attempt}; nothing was written",
                where=self.path.parent.name,
            )

    def _write(
        self, now: RunState, to: State, *, attempt: int, owner: Owner | None, reason: str, successor: str = ""
    ) -> None:
        if to not in self._moves[now.state]:
            raise IllegalMove(f"a run that is {now.state} cannot become {to}", where=self.path.parent.name)
        owned = to in OWNED
        clock = self._clock()
        lease = clock + self._lease if owned else None
        queued = clock if to is State.QUEUED else now.queued
        fresh = RunState(to, attempt, owner if owned else None, lease, reason, queued, clock, successor)
        write_json(self.path, fresh.to_json())
