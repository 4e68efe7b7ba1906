"""A live run seen from outside: asks it for things, and waits for what comes of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clew.errors import RunFailed, UserError, did_you_mean
from clew.inspection.recipes import request
from clew.runs import Command, JournalTail, Run, State
from clew.runs.states import OWNED, why_not_live
from clew.session.commands import APPLIED
from clew.session.verbs import VERBS

_POLL_SECONDS = 0.02


class Refused(UserError):
    """A run has rejected a command, or it came too late."""


@dataclass(frozen=True)
class Sent:
    """A command, and what is known of it.

    Attributes:
        id: Its ULID.
        verb: What was asked for.
        step: The boundary at which it was carried out; None while that is not known.
        result: What the run had to say about it.
    """

    id: str
    verb: str
    step: int | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class When:
    """Conditions of a command.

    Attributes:
        at: The step after which to carry it out; None means the next boundary.
        before: Expires at this step.
        if_config: Only for a run whose config hash begins so.
    """

    at: int | None = None
    before: int | None = None
    if_config: str = ""


NOW = When()


class LiveRun:
    """What can be asked of a live run. Every method sends a command and returns it.

    With ``wait`` they return when it is carried out, and raise :class:`Refused` if it is not, or
    :class:`clew.RunFailed` if the run ends before that or the time is up.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def pause(self, *, save: bool = True, when: When = NOW, wait: bool | float = False) -> Sent:
        """Make no further step, and stay ready to go on.

        Args:
            save: Save first; without, the newest checkpoint that there is must do.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("pause", {} if save else {"save": False}, when, wait)

    def resume(self, *, when: When = NOW, wait: bool | float = False) -> Sent:
        """Let a paused run go on. One that is not alive is resumed by ``clew resume``.

        Args:
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("resume", {}, when, wait)

    def step(self, steps: int = 1, *, when: When = NOW, wait: bool | float = False) -> Sent:
        """Make so many steps, and pause again; it is carried out when the first of them begins.

        Args:
            steps: How many.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("step", {"steps": steps}, when, wait)

    def stop(self, *, when: When = NOW, wait: bool | float = False) -> Sent:
        """Save and end, to go on later.

        Args:
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("stop", {}, when, wait)

    def abort(self, *, when: When = NOW, wait: bool | float = False) -> Sent:
        """End without saving.

        Args:
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("abort", {}, when, wait)

    def checkpoint(self, tag: str = "", *, when: When = NOW, wait: bool | float = False) -> Sent:
        """Save.

        Args:
            tag: A name under which this checkpoint is kept for good.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("checkpoint", {"tag": tag} if tag else {}, when, wait)

    def set(
        self, values: Mapping[str, Any] | None = None, *, when: When = NOW, wait: bool | float = False, **more: Any
    ) -> Sent:
        """Change numbers of the trainer from the next step on.

        Args:
            values: Names to numbers; use it for names that are no identifiers.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.
            more: The same, as keywords.

        Returns:
            The command.
        """
        return self.send("set", {**(values or {}), **more}, when, wait)

    def evaluate(self, *, when: When = NOW, wait: bool | float = False) -> Sent:
        """Measure the model as it is; what comes of it stands in the journal, and in the command's result.

        Args:
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("evaluate", {}, when, wait)

    def reset(
        self, to: int | str | None = None, *, optimizer: bool = False, when: When = NOW, wait: bool | float = False
    ) -> Sent:
        """Take the weights of an earlier checkpoint; steps and data go on.

        Args:
            to: A step, a tag, ``best`` or ``last``; None keeps the weights.
            optimizer: Let the optimizer begin anew, instead of with what it knew there.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        args = {**({} if to is None else {"to": to}), **({"optimizer": True} if optimizer else {})}
        return self.send("reset", args, when, wait)

    def select(self, recipe: str, *, order: str = "", when: When = NOW, wait: bool | float = False) -> Sent:
        """Train on a part of the data from the next batch on.

        Args:
            recipe: Such as ``hardest 15%``, ``where "length>200"`` or ``0.7 hardest 15% + 0.3 all``; ``all`` is
                everything again.
            order: ``shuffled``, ``given``, ``easy-first`` or ``hard-first``; empty leaves it to the recipe.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("select", request(recipe, order), when, wait)

    def inspect(self, split: str = "train", *, when: When = NOW, wait: bool | float = False, **options: Any) -> Sent:
        """Score every sample of a split, and write a table of them as an artifact.

        Args:
            split: Which.
            options: What else the verb ``inspect`` takes, such as ``clusters=8``.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("inspect", {"split": split, **options}, when, wait)

    def merge(
        self,
        sources: Sequence[str],
        method: str | Mapping[str, Any] = "average",
        *,
        weights: Sequence[float] = (),
        optimizer: str = "reset",
        base: str = "",
        seed: int = 0,
        when: When = NOW,
        wait: bool | float = False,
    ) -> Sent:
        """Take in the weights of other runs, or of earlier checkpoints, and go on from there.

        Args:
            sources: ``RUN@STEP``, or a step of this run; ``.`` is what it has now.
            method: A merge method, or a mapping of its ``type`` and options.
            weights: One for each source; none is 1 each.
            optimizer: ``keep`` or ``reset``: what becomes of the optimizer's state.
            base: What all came from, such as ``RUN@STEP``, for methods that ask how the sources differ from it.
            seed: Of methods that draw at random.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        args: dict[str, Any] = {"sources": list(sources), "method": method, "optimizer": optimizer}
        if weights:
            args["weights"] = list(weights)
        args |= {name: value for name, value in (("base", base), ("seed", seed)) if value}
        return self.send("merge", args, when, wait)

    def health(self, *, when: When = NOW, wait: bool | float = False) -> Sent:
        """Ask how the training is doing; the numbers stand in the journal, the verdict in the command's result.

        Args:
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("health", {}, when, wait)

    def note(self, text: str, *, when: When = NOW, wait: bool | float = False) -> Sent:
        """Write something into the journal.

        Args:
            text: What.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command.
        """
        return self.send("note", {"text": text}, when, wait)

    def send(self, verb: str, args: Mapping[str, Any], when: When = NOW, wait: bool | float = False) -> Sent:
        """Ask for anything that there is a verb for.

        Args:
            verb: What to do.
            args: With what.
            when: Conditions.
            wait: Whether to wait for what comes of it; a number waits so many seconds at the most.

        Returns:
            The command; with ``wait``, also where it was carried out.

        Raises:
            UserError: If there is no such verb, or nobody is there to take it.
        """
        if verb not in VERBS:
            raise UserError(f"there is no command {verb!r}", hint=did_you_mean(verb, VERBS))
        self._check_live(verb)
        tail = JournalTail(self.run.path / "journal", _sizes(self.run))
        command = Command(verb, dict(args), at=when.at, before=when.before, if_config=when.if_config)
        command = self.run.inbox.post(command)
        if wait is False:
            return Sent(command.id, verb)
        return self._outcome(command, tail, math.inf if wait is True else wait)

    def _check_live(self, verb: str) -> None:
        state = self.run.state
        if reason := why_not_live(state):
            hint = "" if state in (State.COMPLETED, State.UNKNOWN) else f"clew resume {self.run.id} goes on with it"
            raise UserError(f"there is nothing to {verb}: {reason}", where=self.run.id, hint=hint)

    def _outcome(self, command: Command, tail: JournalTail, seconds: float) -> Sent:
        deadline = time.monotonic() + seconds
        while True:
            state = self.run.state  # before the journal: what is settled before the end is seen
            for event in tail.poll():
                if event.get("kind") == "command" and event.get("id") == command.id:
                    return self._settled(command, event)
            if state not in OWNED:
                hint = f"clew show {self.run.id} says why" if state is State.FAILED else ""
                raise RunFailed(f"the run ended before it could {command.verb}: {state}", where=self.run.id, hint=hint)
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"it has not answered within {seconds:g} s; the command {command.id} still waits", where=self.run.id
                )
            time.sleep(_POLL_SECONDS)

    def _settled(self, command: Command, event: Mapping[str, Any]) -> Sent:
        if event["outcome"] != APPLIED:
            raise Refused(f"{command.verb} {event['outcome']}", where=self.run.id)
        return Sent(command.id, command.verb, event["at"], event.get("result") or {})


def _sizes(run: Run) -> dict[str, int]:
    """How long the journal's files are now: an answer can only come after that."""
    return {path.name: path.stat().st_size for path in (run.path / "journal").glob("*.jsonl")}
