"""Going on differently: what may be said when a run is resumed, and what is refused since it would alter the past.

A value that counts for no step that is done becomes part of the config (:mod:`clew.jobs.choices`). A number of the
trainer is set at the boundary where the attempt begins, as ``clew set`` does: it has the same bounds, stands in the
journal, and is repeated by a replay. Everything else made the steps what they are, and is a matter of ``clew fork``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clew.checkpoints import CheckpointStore
from clew.config.problems import show
from clew.errors import UserError
from clew.jobs.choices import Changes, Choice, changes, choose
from clew.jobs.layout import layout_words
from clew.lineage.ending import check_end
from clew.lineage.values import check_settings, check_value
from clew.lineage.words import known_settings, understood
from clew.runs import JournalTail, Run, State
from clew.runs.states import ACTIVE, OWNED
from clew.session.commands import APPLIED
from clew.session.live import LiveRun, Refused, Sent
from clew.session.saving import kept_with
from clew.session.settings import STEPS
from clew.session.sources import find_checkpoint
from clew.targets import target_named
from clew.targets.watching import TICK_SECONDS, Silent, Watcher

_ENDING_SECONDS = 60.0


@dataclass(frozen=True)
class Wish:
    """What is said when a run is resumed; nothing lets it go on as it was.

    Attributes:
        words: ``key=value``.
        at: From which checkpoint: a step, a tag, ``best`` or ``last``; empty is the newest, and keeps what came later.
        ranks: In how many processes; None leaves it.
        mesh: On which mesh, a preset; empty leaves it.
        on: On which target; empty leaves it.
    """

    words: Sequence[str] = ()
    at: str = ""
    ranks: int | None = None
    mesh: str = ""
    on: str = ""

    def __bool__(self) -> bool:
        return bool(self.words or self.at or self.ranks is not None or self.mesh or self.on)

    def __str__(self) -> str:
        options = {"--at": self.at, "--ranks": self.ranks, "--mesh": self.mesh, "--on": self.on}
        said = [f"{name} {value}" for name, value in options.items() if value not in (None, "")]
        return " ".join([*said, *self.words])


def go_on_with(run: Run, wish: Wish) -> Choice:
    """Write down what a run is to do otherwise from its next attempt on; that attempt takes it up.

    Args:
        run: A run that nobody works on.
        wish: What.

    Returns:
        What its next attempt will take up.

    Raises:
        UserError: If it cannot be, or would alter the past; with the key. Nothing is changed then.
        ConfigError: With every problem that the config would have.
    """
    _check_state(run, wish)
    if wish.on:
        target_named(wish.on)
    overrides, settings = _divided(run, wish.words)
    found = changes(run, [*overrides, *layout_words(wish.ranks, wish.mesh)])
    if found.fixed:
        raise _past(run, found, wish.words)
    back = _checkpoint(run, wish.at) if wish.at else None
    set_at = _set_at(run, settings) if back is None else None
    if STEPS in settings:
        check_end(run, settings, set_at or (_newest(run) if back is None else back[0]), wish.words)
    choice = Choice(
        keys=found.keys,
        was=found.was,
        settings=settings,
        set_at=set_at,
        back=None if back is None else back[0],
        contained=[] if back is None else back[1],
        target=wish.on,
    )
    has_news = choice.keys or choice.settings or choice.target or back is not None
    return choose(run, choice) if has_news else choice


def let_end(run: Run, seconds: float = _ENDING_SECONDS) -> None:
    """Wait for the end of a run that was asked to end, and has begun to: it is about to leave.

    Args:
        run: The run; nothing is waited for where it goes on.
        seconds: For how long at the most.
    """
    attempt, deadline = run.states.read().attempt, time.monotonic() + seconds
    ends = {"stop", "abort"}
    told = [one for one in run.events("command") if one["attempt"] == attempt and one["verb"] in ends]
    if any(one["outcome"] == APPLIED for one in told):
        while run.state in ACTIVE and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)


def set_in_pause(run: Run, wish: Wish) -> Sent:
    """Set what is wished in a run that is paused, and can be told at once.

    Raises:
        UserError: If it needs another attempt, or the run refuses it.
    """
    overrides, settings = _divided(run, wish.words)
    if overrides or not settings or wish.at or wish.ranks is not None or wish.mesh or wish.on:
        raise _alive(run, wish)
    return LiveRun(run).set(settings, wait=True)


class Heeding:
    """A watcher that sees whether a run has set what it was told to, and lets it stop where it has refused.

    Args:
        choice: What the run was told.
        run: The run, before the attempt is started.
        watcher: Is told everything; None shows nothing.
    """

    def __init__(self, run: Run, choice: Choice | None, watcher: Watcher | None = None) -> None:
        self._run = run
        self._command = choice.command if choice is not None and choice.settings else ""
        self._inner = watcher or Silent()
        sizes = {path.name: path.stat().st_size for path in (run.path / "journal").glob("*.jsonl")}
        self._tail = JournalTail(run.path / "journal", sizes)
        self.refusal = ""

    def started(self, label: str, run: Run) -> None:
        """Pass it on."""
        self._inner.started(label, run)

    def reused(self, label: str, run: Run) -> None:
        """Pass it on."""
        self._inner.reused(label, run)

    def ended(self, label: str, run: Run, state: State) -> None:
        """Pass it on."""
        self._look()
        self._inner.ended(label, run, state)

    def tick(self) -> None:
        """Pass it on, and look."""
        self._look()
        self._inner.tick()

    def wait(self) -> None:
        """Return when the run has set what it was told to.

        Raises:
            Refused: If it has not; it is asked to stop.
        """
        while self._command and self._run.state in OWNED:
            self._look()
            time.sleep(TICK_SECONDS)
        self.check()

    def check(self) -> None:
        """Raise what the run has refused.

        Raises:
            Refused: If it has refused something.
        """
        if self.refusal:
            hint = f"it was stopped, and nothing is lost; clew resume {self._run.id} goes on as before"
            raise Refused(f"set {self.refusal}", where=self._run.id, hint=hint)

    def _look(self) -> None:
        for event in self._tail.poll() if self._command else ():
            if event.get("kind") == "command" and event.get("id") == self._command:
                self._command = ""
                if event["outcome"] != APPLIED:
                    self.refusal = str(event["outcome"])
                    self._run.inbox.send("stop")


def _check_state(run: Run, wish: Wish) -> None:
    state = run.state
    if state is State.COMPLETED:
        fork = " ".join(["clew fork", run.id, *(["--at", wish.at] if wish.at else []), *wish.words])
        hint = f"{fork} makes a child that goes on from there"
        raise UserError("it has completed, and stays what it is", where=run.id, hint=hint)
    if state in OWNED:
        raise _alive(run, wish)


def _alive(run: Run, wish: Wish) -> UserError:
    """The error about what can change only between two attempts, or not at all: then nobody is told to stop the run."""
    state = run.state
    overrides, settings = _divided(run, wish.words)
    if (found := changes(run, overrides)).fixed:
        return _past(run, found, wish.words)
    by_set = f"clew set {run.id} {' '.join(f'{name}={value}' for name, value in settings.items())} changes that at once"
    by_stop = f"clew stop {run.id}, then clew resume {run.id} {wish}"
    alone = settings and len(settings) == len(wish.words) and not (wish.at or wish.on or wish.mesh or wish.ranks)
    return UserError(
        f"it is {state if state in ACTIVE else 'being started'}, and goes on differently only in its next attempt",
        where=run.id,
        hint=by_set if alone else by_stop,
    )


def _divided(run: Run, words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """What of the words is said to the config, and what is set: a key of the trainer's numbers is set."""
    if not words:
        return [], {}
    meant = understood(run, words)
    names = {key: name for name, key in known_settings(run).items() if key}
    overrides, settings = [], dict(meant.settings)
    for word in meant.overrides:
        key, _, value = word.partition("=")
        if key in names:
            check_value(run, key, value)
            settings[names[key]] = value
        else:
            overrides.append(word)
    check_settings(run, settings)
    return overrides, settings


def _past(run: Run, found: Changes, words: Iterable[str]) -> UserError:
    """The error about values with which steps were made."""
    said = " ".join(words)
    keys = ", ".join(f"{key} ({show(value)})" for key, value in found.fixed.items())
    has_steps = bool(CheckpointStore(run.checkpoints).all())
    why = "the steps that are done were made with it" if has_steps else "it makes the run what it is"
    hint = f"clew fork {run.id} {said} makes a child that goes on so"
    if not has_steps or any(key.split(".")[0] == "model" for key in found.fixed):  # another model has other weights
        hint = f"clew run {run.config_path} {said} --name NAME makes another run"
    return UserError(f"{keys} cannot change: {why}", where=run.id, hint=hint)


def _checkpoint(run: Run, at: str) -> tuple[int, list[str]]:
    """The step of a checkpoint that verifies, and the commands of that step which it contains."""
    try:
        found = find_checkpoint(run, at)
    except UserError as error:
        there = [str(one.step) for one in reversed(CheckpointStore(run.checkpoints).all())]
        hint = error.hint or f"there {'is' if len(there) == 1 else 'are'} {', '.join(there)}"
        raise UserError(error.what, where=error.where, hint=hint) from error
    return found.step, [str(one) for one in kept_with(found).get("contained", ())]


def _set_at(run: Run, settings: Mapping[str, Any]) -> int | None:
    """After which step to set: an attempt does again what was set after the checkpoint that it begins with.

    What is said last holds, so it is set after those; None is where the attempt begins.
    """
    applied = [one for one in run.events("command") if one["outcome"] == APPLIED and one["verb"] == "set"]
    later = [one["at"] for one in applied if settings.keys() & (one.get("args") or {}).keys()]
    if not later:
        return None
    begin = _newest(run)
    return max((at for at in later if at >= begin), default=None)


def _newest(run: Run) -> int:
    """The step from which the next attempt goes on."""
    good = CheckpointStore(run.checkpoints).newest_good()[0]
    return 0 if good is None else good.step
