"""The other processes of a run of several ranks: started by the first one, watched by it, and never left behind.

Between the first rank and each other one is a pair of sockets. When a process is gone, whatever ended it, the kernel
closes its end, and the other one knows: a rank whose first one is gone ends itself (on Linux the kernel kills it, even
where it is stopped), and when a rank is gone, the first one ends the run with the cause. All are in one process group.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType

from clew.logs.piping import log_pipe, wait_for_end
from clew.runs import Event, Failure, Run, State
from clew.runs.journal import decode
from clew.runs.result import log_tail
from clew.session.attempt import EXIT_CODES, End, RankLost

BLAME_SECONDS = 2.0
"""How long an error of the first rank waits for another one to turn out to be its cause."""
GRACE_SECONDS = 5.0
"""How long the first rank may take to notice that another one is gone, before it is ended from beside."""
LEAVE_SECONDS = 60.0
"""How long the others may take to end after the first one's work is done."""
_LOG_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1
_WELL = frozenset({EXIT_CODES[State.COMPLETED], EXIT_CODES[State.STOPPED], EXIT_CODES[State.INTERRUPTED]})


@dataclass
class _Hand:
    """One of the other processes."""

    rank: int
    process: subprocess.Popen[bytes]
    log: subprocess.Popen[bytes]
    line: socket.socket


@dataclass(frozen=True)
class Loss:
    """A process that ended before its time."""

    rank: int
    code: int
    at: float
    """Unix seconds."""


class Crew:
    """The ranks from 1 on, seen by the first.

    Args:
        run: The run.
        attempt: The attempt that this process has claimed.
        size: The number of all ranks.
        give_up: Called in another thread when the first rank does not come back from where it waits for one that is
            gone; it is to record the error and end the process.

    Attributes:
        signal: The name of a termination signal that another rank got; empty while none has.
    """

    def __init__(self, run: Run, attempt: int, size: int, give_up: Callable[[Exception], None]) -> None:
        self.signal = ""
        self._run = run
        self._attempt = attempt
        self._size = size
        self._give_up = give_up
        self._hands: list[_Hand] = []
        self._losses: list[Loss] = []
        self._watchers: list[threading.Thread] = []
        self._ending = threading.Event()

    def start(self, port: int) -> None:
        """Start all others.

        Args:
            port: Where on this machine's loopback the store listens.
        """
        for rank in range(1, self._size):
            self._hands.append(self._started(rank, port))
        for hand in self._hands:
            watcher = threading.Thread(target=self._watch, args=(hand,), name=f"clew-rank-{hand.rank}", daemon=True)
            watcher.start()
            self._watchers.append(watcher)

    def check(self) -> None:
        """Raise :class:`RankLost` if a rank is gone."""
        if self._losses and not self._ending.is_set():
            raise self._cause()

    def blame(self, error: BaseException) -> BaseException:
        """Return what ended this rank: its own error, or one of another rank of which it is a consequence."""
        if isinstance(error, RankLost) or not isinstance(error, Exception):
            return error
        deadline = time.monotonic() + BLAME_SECONDS
        while not (self._losses or self._failures()):
            if time.monotonic() > deadline:
                return error
            time.sleep(0.02)
        return self._cause()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let all others end, or end them if anything but the end of the work brings this about."""
        self._ending.set()
        if error is not None and not _is_orderly(error):
            self.kill()
        deadline = time.monotonic() + LEAVE_SECONDS
        for hand in self._hands:
            try:
                hand.process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                hand.process.kill()
                hand.process.wait()
            with suppress(subprocess.TimeoutExpired):
                hand.log.wait(timeout=_LOG_SECONDS)
        for watcher in self._watchers:
            watcher.join(timeout=_LOG_SECONDS)

    def kill(self) -> None:
        """End all others at once."""
        for hand in self._hands:
            with suppress(ProcessLookupError):
                hand.process.kill()

    def _started(self, rank: int, port: int) -> _Hand:
        ours, theirs = socket.socketpair()
        with ExitStack() as stack:
            stack.callback(theirs.close)
            pipe = stack.enter_context(log_pipe(self._run.rank_log_path(self._attempt, rank), os.environ))
            words = [str(rank), str(self._size), str(port), str(theirs.fileno())]
            process = subprocess.Popen(
                [sys.executable, "-m", "clew.worker", str(self._run.path), str(self._attempt), "--rank", *words],
                stdin=subprocess.DEVNULL,
                stdout=pipe.into,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
            )
            return _Hand(rank, process, pipe.filter, ours)

    def _watch(self, hand: _Hand) -> None:
        while word := _received(hand.line):
            self.signal = self.signal or word
        code = hand.process.wait()
        if code in _WELL and code >= 0:
            return
        self._losses.append(Loss(hand.rank, code, time.time()))
        if len(self._losses) == 1 and not self._ending.wait(GRACE_SECONDS):
            self.kill()
            self._give_up(self._cause())

    def _cause(self) -> RankLost:
        """The first rank that went, and why; one that could still say something said it before its end."""
        said = self._failures()
        lost = {loss.rank: loss for loss in self._losses}
        went = {rank: said[rank]["t"] if rank in said else lost[rank].at for rank in {*said, *lost}}
        first = min(went, key=lambda rank: float(went[rank]))
        return RankLost(_end_of(self._run, self._attempt, first, lost.get(first), said.get(first)))

    def _failures(self) -> dict[int, Event]:
        """What other ranks have put into their journals about their errors; they take a while to end."""
        said = {hand.rank: _said_by(self._run, self._attempt, hand.rank) for hand in self._hands}
        return {rank: event for rank, event in said.items() if event is not None}


def _is_orderly(error: BaseException) -> bool:
    from clew.session.surface import RunStopped

    return isinstance(error, RunStopped)


def _end_of(run: Run, attempt: int, rank: int, loss: Loss | None, said: Event | None) -> End:
    log = run.rank_log_path(attempt, rank)
    wait_for_end(log, _LOG_SECONDS)
    tail = log_tail(log)
    if said is not None:
        return End(State.FAILED, failure=Failure(str(said["error"]), f"rank {rank}: {said['reason']}", tail))
    assert loss is not None
    if loss.code >= 0:
        reason = f"rank {rank} ended with exit code {loss.code} without a word"
        return End(State.FAILED, failure=Failure("killed", reason, tail))
    name = signal.Signals(-loss.code).name
    advice = " (by hand, or because memory ran out)" if -loss.code == signal.SIGKILL else ""
    reason = f"rank {rank} was killed by {name}{advice}"
    return End(State.INTERRUPTED, failure=Failure("killed", reason, tail, signal=name))


def _said_by(run: Run, attempt: int, rank: int) -> Event | None:
    """The failure that a rank has put into its journal."""
    path = run.path / "journal" / f"{attempt}-{rank}.jsonl"
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            if (event := decode(line)) and event.get("kind") == "failure":
                return event
    return None


def _received(line: socket.socket) -> str:
    try:
        return line.recv(64).decode()
    except OSError:
        return ""


class Lifeline:
    """The other end: what a rank has of the first one.

    Args:
        descriptor: Of its socket.
    """

    def __init__(self, descriptor: int) -> None:
        self._line = socket.socket(fileno=descriptor)
        os.set_inheritable(descriptor, False)

    def hold(self) -> None:
        """From now on, end this process as soon as the first rank is gone."""
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        threading.Thread(target=self._wait, name="clew-lifeline", daemon=True).start()

    def tell(self, word: str) -> None:
        """Pass a signal's name on to the first rank."""
        with suppress(OSError):
            self._line.send(word.encode())

    def _wait(self) -> None:
        _received(self._line)
        os._exit(EXIT_CODES[State.FAILED])
