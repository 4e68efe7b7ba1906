"""One follower's way along a run: batches, the note of each, and new tries after what went wrong."""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TextIO

from clew.errors import ClewError, UserError
from clew.followers.base import Follower, FollowerConfig
from clew.followers.tail import NumberedTail
from clew.logs.redaction import Redactor
from clew.runs import FINAL, JobResult, Run, State
from clew.runs.following import Record, by_hand, lock_path, read_record, record_path

BATCH = 1000
POLL_SECONDS = 0.5

Standing = Literal["live", "ended", "replaced"]
"""How a run stands to who follows one attempt of it: it may say more, it is over, or another attempt goes on."""


@dataclass(frozen=True)
class Patience:
    """How long is waited for a tracker."""

    first_seconds: float = 1.0
    """Before the second try; each wait is twice as long as the one before."""
    most_seconds: float = 60.0
    """The longest wait between two tries."""


class GivenUp(Exception):
    """Nobody waits for this follower any more."""


class Follow:
    """Keeps one follower going until the run is over and everything was handed on; called in a thread, which may hang.

    Args:
        run: The run.
        attempt: The attempt that is followed.
        name: The follower's name in the run's directory.
        config: What makes the follower.
        patience: How long is waited between tries.
        say: Takes a line for the log.
    """

    def __init__(
        self,
        run: Run,
        attempt: int,
        name: str,
        config: FollowerConfig,
        *,
        patience: Patience | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.name = name
        self.last_progress = time.monotonic()
        """When it last got on, on the monotonic clock."""
        self._run = run
        self._attempt = attempt
        self._config = config
        self._patience = patience or Patience()
        self._say = say
        self._enough = threading.Event()
        self._lock = threading.Lock()
        self._record = Record(name, config.kind)
        self._furthest = 0

    def __call__(self) -> None:
        """Follow until there is nothing more to do here."""
        try:
            with self._alone():
                self._record = read_record(record_path(self._run.path, self.name)) or self._record
                if self._record.status != "done" or self._record.attempt != self._attempt:
                    self._persist()
        except GivenUp:
            return
        except OSError as error:
            self._say(f"clew: {self.name}: {error}")  # the run's directory is gone, or its disk is full

    def stop(self, reason: str) -> None:
        """Note that nobody waits any longer; a call that hangs is left where it is."""
        self._enough.set()
        if self._record.status == "retrying":
            reason = f"{reason}: {self._record.error}"
        with contextlib.suppress(OSError):
            self._note(status="given up", error=reason)
        self._say(f"clew: {self.name}: given up: {reason}; {by_hand(self._run.id, self._config.kind)}")

    def _persist(self) -> None:
        wait = self._patience.first_seconds
        while True:
            before = self.last_progress
            try:
                return self._once()
            except GivenUp:
                raise
            except UserError as error:
                return self.stop(_one_line(error))
            except Exception as error:
                reason = _one_line(error)
            wait = self._patience.first_seconds if self.last_progress > before else wait
            self._note(status="retrying", error=reason)
            self._say(f"clew: {self.name}: {reason}; next try in {wait:g} s")
            self._pause(wait)
            wait = min(2 * wait, self._patience.most_seconds)

    def _once(self) -> None:
        """Open the follower and go along the journal to its end."""
        if self._config.replays:
            self._record = replace(self._record, offsets={}, events=0)
        tail = NumberedTail(self._run.path / "journal", self._record.offsets, self._record.events)
        follower = self._config.open(self._run, dict(self._record.memory))
        try:
            self._deliver(follower, tail)
        except BaseException:
            with contextlib.suppress(Exception):
                follower.close(None)
            raise

    def _deliver(self, follower: Follower, tail: NumberedTail) -> None:
        while True:
            standing = standing_of(self._run, self._attempt)  # before the look at the journal, which is then complete
            events, more = tail.poll(BATCH)
            if events:
                follower.send(events)
            if more or self._record.status != "following" or self._record.place != follower.place:
                self._commit(follower, tail)
            elif standing == "live":
                self._pause(POLL_SECONDS)
            else:
                return self._close(follower, standing)

    def _close(self, follower: Follower, standing: Standing) -> None:
        follower.close(_outcome(self._run) if standing == "ended" else None)
        if standing == "ended":
            place, memory = follower.place, dict(follower.memory)
            self._note(status="done", attempt=self._attempt, place=place, memory=memory, error="")

    def _commit(self, follower: Follower, tail: NumberedTail) -> None:
        self._note(
            status="following",
            error="",
            place=follower.place,
            offsets=tail.offsets,
            events=tail.number,
            memory=dict(follower.memory),
        )
        if tail.number > self._furthest:  # to come again where it was before is no progress
            self._furthest, self.last_progress = tail.number, time.monotonic()

    def _note(self, **changes: object) -> None:
        with self._lock:
            if self._enough.is_set() and changes.get("status") != "given up":
                raise GivenUp
            self._record = replace(self._record, **changes)  # type: ignore[arg-type]
            self._record.save(self._run.path)

    def _pause(self, seconds: float) -> None:
        """Wait; not longer than another attempt lets us."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._enough.wait(min(left, POLL_SECONDS)):
                raise GivenUp
            if standing_of(self._run, self._attempt) == "replaced":
                raise GivenUp

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of this follower: two at a time would deliver twice."""
        lock = lock_path(self._run.path, self.name)
        lock.parent.mkdir(exist_ok=True)
        tries = 0
        with lock.open("a") as stream:
            while not _locked(stream):
                self._pause(POLL_SECONDS)
                if (tries := tries + 1) == 2:  # at the first one it may have been somebody who only looked
                    self._say(f"clew: {self.name}: another process follows this run; waiting for its end")
            yield


def standing_of(run: Run, attempt: int) -> Standing:
    """Say how a run stands to who follows an attempt of it; one whose directory is gone is nobody's any more."""
    try:
        now = run.states.read()
    except (OSError, ValueError, KeyError, TypeError):
        return "replaced"
    if now.attempt != attempt:
        return "replaced"
    state = now.observed(time.time())
    return "ended" if state in FINAL or state is State.UNKNOWN else "live"


def _outcome(run: Run) -> JobResult:
    """What came of a run that is over; a worker that was killed may have left no word of it, or an older one."""
    now, state, result = run.states.read(), run.state, run.result
    if result is not None and (result.status, result.attempts) == (state.value, now.attempt):
        return result
    return JobResult(run.id, run.info.job, state.value, run.busy_seconds(), now.attempt)


def _locked(stream: TextIO) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _one_line(error: Exception) -> str:
    text = error.one_line() if isinstance(error, ClewError) else " ".join(str(error).split())[:200]
    named = text if isinstance(error, ClewError) else f"{type(error).__name__}: {text}".removesuffix(": ")
    return Redactor.of().text(named)
