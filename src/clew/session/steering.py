"""What is asked of a live run: from its inbox through the state machine into the journal."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from clew.errors import ClewError, RunFailed
from clew.logs.logger import Logger
from clew.runs import Command, Event, Fenced, JournalWriter, Run, State
from clew.session.commands import APPLIED, Done, Ledger, unchanged
from clew.session.disturbance import Disturbance
from clew.session.verbs import VERBS, Boundary
from clew.session.verbs.base import Result

WAIT_SECONDS = 0.02
"""How often a paused run looks up; what comes into its inbox it hears at once, where the system can tell."""


class Steering:
    """Carries commands out, once each, and says in the journal what has become of them.

    What a command does is in the process's memory only, until a checkpoint holds it. So it is done first and journalled
    then: of a process that dies in between nothing remains, and the command still lies in the inbox.

    Args:
        run: The run.
        attempt: Number of this attempt.
        journal: Where outcomes are written.
        disturbance: Raised when :meth:`look` may find something, if it is to be called at all (:attr:`is_heard`).
    """

    def __init__(self, run: Run, attempt: int, journal: JournalWriter, disturbance: Disturbance) -> None:
        self._run = run
        self._attempt = attempt
        self._journal = journal
        self._inbox = run.inbox
        self._disturbance = disturbance
        self._inbox.listen(disturbance.come)
        self._log = Logger("clew.session", run=run.id, attempt=attempt)
        self._paused = False
        self._applied: set[tuple[int, str]] = set()
        self._under_way: list[tuple[Command, int, Future[Result]]] = []
        self.ledger = Ledger(
            {name: verb.rule for name, verb in VERBS.items()},
            run.events("command"),
            asked=run.states.read().queued,
            config_hash=run.info.config_hash,
        )

    @property
    def is_heard(self) -> bool:
        """Whether the disturbance tells when :meth:`look` may find something."""
        return self._inbox.is_heard

    def look(self) -> None:
        """Look into the inbox; costs one ``stat`` when nothing has come."""
        if commands := self._inbox.poll():
            for command in self.ledger.receive(commands):
                self._inbox.remove(command)  # an earlier attempt has settled it
        if self._under_way:
            self._collect()

    def look_closely(self) -> None:
        """Look into the inbox itself: what this process has just put there may not have been heard yet."""
        for command in self.ledger.receive(self._inbox.peek()):
            self._inbox.remove(command)

    def replay(self, boundary: Boundary) -> None:
        """Do again what earlier attempts were told at this boundary, after the state that was restored.

        Raises:
            RunFailed: If something cannot be done again: without it the run would be another one.
        """
        again = [one for one in self.ledger.replay(boundary.step) if _holds_again(one)]
        if not again:
            return
        self._log.info(
            f"commands of an earlier attempt hold again: {', '.join(one.verb for one in again)}", step=boundary.step
        )
        for one in again:
            try:
                if repeat := VERBS[one.verb].again:
                    repeat(boundary, one.args, one.result)
            except Fenced:
                raise
            except Exception as error:
                what = f"{one.verb}, which was carried out at step {one.at} before, cannot be done again: {error}"
                raise RunFailed(what, where=self._run.id) from error
        self._show(boundary.step)

    def carry_out(self, boundary: Boundary, ends: Callable[[], bool]) -> None:
        """Carry out what is asked for at a boundary, in the order of arrival, until something ends the run.

        Args:
            boundary: Where the run stands.
            ends: Whether the run is to end here.
        """
        while not ends() and (command := self.ledger.next(boundary.step)) is not None:
            self._run.states.check(self._attempt)  # the inbox belongs to the newest attempt
            if refusal := self.ledger.refusal(command, boundary.step):
                self._settle(command, boundary.step, refusal)
            else:
                self._try(command, boundary)
            self._show(boundary.step)
        self._show(boundary.step)

    def hold(self, boundary: Boundary, ends: Callable[[], bool]) -> None:
        """Stay here as long as the run is paused; commands are answered at once."""
        if not self.ledger.standing.is_paused(boundary.step):
            return
        while self.ledger.standing.is_paused(boundary.step) and not ends():
            self._disturbance.wait(WAIT_SECONDS)
            self._disturbance.take()
            self.look()
            self.carry_out(boundary, ends)
        self._disturbance.come()  # what was taken here may have been meant for somebody else

    def was_applied_at(self, step: int, *, issuer: str) -> bool:
        """Say whether something that this issuer asked for was carried out at a boundary of this attempt."""
        return (step, issuer) in self._applied

    def finish(self) -> None:
        """Wait for what is under way, and say what has become of it."""
        for *_, future in self._under_way:
            future.exception()
        self._collect()

    def close(self, step: int) -> None:
        """Say of everything that still waits that the run has come to its end."""
        self.finish()
        self.look()
        for command in self.ledger.waiting:
            self._run.states.check(self._attempt)
            self._settle(command, step, f"expired: the run completed at step {step}")

    def _try(self, command: Command, boundary: Boundary) -> None:
        """Do what a command says; whatever goes wrong, the run goes on."""
        try:
            done = VERBS[command.verb].carry_out(boundary, command.args)
        except Fenced:
            raise
        except Exception as error:
            self._settle(command, boundary.step, _rejection(error))
            return
        if isinstance(done, Future):
            self.ledger.begin(command)
            self._under_way.append((command, boundary.step, done))
            done.add_done_callback(lambda _: self._disturbance.come())
        else:
            self._settle(command, boundary.step, APPLIED, done)

    def _collect(self) -> None:
        """Settle what was under way and is done."""
        ended = [one for one in self._under_way if one[2].done()]
        self._under_way = [one for one in self._under_way if one not in ended]
        for command, step, future in ended:
            error = future.exception()
            if isinstance(error, Fenced):
                raise error
            if error is not None:
                self._settle(command, step, _rejection(error), is_late=True)
            else:
                self._settle(command, step, APPLIED, future.result(), is_late=True)

    def _settle(
        self, command: Command, step: int, outcome: str, result: Result = None, *, is_late: bool = False
    ) -> None:
        """Record what became of a command, durably, and only then take it out of the inbox.

        Who sees the outcome of a pause shall see a run that is paused. What was under way says nothing about that: it
        belongs to an earlier step.
        """
        self.ledger.settle(command, step, outcome, result)
        if not is_late:
            self._show(step)
        if outcome == APPLIED:
            self._applied.add((step, command.issuer))
        more = {"result": dict(result)} if result else {}
        self._journal.write("command", **_fields(command), at=step, outcome=outcome, **more)
        self._journal.flush(sync=True)
        self._log.info(f"command {command.verb} {outcome}", id=command.id, issuer=command.issuer, step=step)
        self._inbox.remove(command)

    def _show(self, step: int) -> None:
        """Let the run's state say whether it is paused."""
        paused = self.ledger.standing.is_paused(step)
        if paused == self._paused:
            return
        self._run.states.move(State.PAUSED if paused else State.RUNNING, attempt=self._attempt)
        self._paused = paused
        if paused:
            self._journal.write("paused", at=step)
        else:
            self._journal.write("resumed", at=step)
        self._journal.flush()


def _holds_again(done: Done) -> bool:
    """Whether a command is more than a record of something."""
    verb = VERBS[done.verb]
    return verb.again is not None or verb.rule.fold is not unchanged


def _rejection(error: BaseException) -> str:
    reason = error.one_line() if isinstance(error, ClewError) else f"{type(error).__name__}: {error}"
    return f"rejected: {reason}"


def _fields(command: Command) -> Event:
    """What the journal says of a command; preconditions and arguments only where there are some."""
    conditions: dict[str, Any] = {"at": command.at, "before": command.before, "if_config": command.if_config or None}
    given = {name: value for name, value in conditions.items() if value is not None}
    return {
        "id": command.id,
        "verb": command.verb,
        "issuer": command.issuer,
        "sent": command.sent,
        **({"args": command.args} if command.args else {}),
        **({"conditions": given} if given else {}),
    }
