"""Replay: a run once more, from its config and the commands in its journal, and whether it is the same.

A run that was forked is replayed from its first ancestor on: each ancestor up to the step at which it bore the next.
What commands used (checkpoints of other runs, selections) was kept by the runs, and is taken from there. One that was
resumed with other values (:mod:`clew.lineage.going_on`) begins with those that it had at first, is stopped where they
changed, and goes on with the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from clew.config import to_yaml
from clew.errors import UserError
from clew.jobs.choices import Choice, changes, choose, words_of
from clew.jobs.loading import origins_with_content
from clew.lineage.compare import Comparison, Course, compare_courses
from clew.lineage.fork import load_child
from clew.lineage.stretches import Stretch, first_values, stretches
from clew.runs import Command, Event, JournalTail, Run, RunInfo, State
from clew.runs.environment import environment
from clew.runs.files import link_tree
from clew.runs.ids import check_spelling
from clew.runs.journal import read_events
from clew.runs.run import publish_run, stage_run
from clew.session.commands import APPLIED
from clew.session.sources import FOLDER as KEPT
from clew.targets import LocalTarget
from clew.targets.watching import TICK_SECONDS, is_over

_LEFT_OUT = frozenset({"stop", "abort", "pause", "resume", "step", "fork", "note"})
"""Commands that change nothing that is computed."""

_FOLDERS = (KEPT, "selections")
_PLACE = ("python", "machine", "cpus", "libraries")
"""What of the environment may be why a replay differs."""


@dataclass(frozen=True)
class Link:
    """A run on the way from the first ancestor to the one that is replayed.

    Attributes:
        run: The run.
        until: The step at which its child begins; None for the last.
        inherited: The commands of that very step which its child has inherited.
        attempt: The last one before the run went back to before its child began; None where it has not.
    """

    run: Run
    until: int | None = None
    inherited: frozenset[str] = frozenset()
    attempt: int | None = None

    def events(self, *kinds: str) -> Iterator[Event]:
        """Yield the run's events as they counted for the one that is replayed."""
        return read_events(self.run.path / "journal", frozenset(kinds), until=self.attempt)

    def stretches(self) -> list[Stretch]:
        """Return with which config the run made which of its steps."""
        found = stretches(self.run, until=self.attempt)
        return [one for one in found if self.until is None or one.begin < self.until]

    def holds(self, command: Event) -> bool:
        """Whether a command of the run has had an effect on the one that is replayed."""
        at: int = command["at"]
        return self.until is None or at < self.until or (at == self.until and command["id"] in self.inherited)


def ancestry(run: Run) -> list[Link]:
    """Return a run with all that it comes from, the oldest first.

    Raises:
        UserError: If an ancestor is gone.
    """
    chain = [Link(run)]
    while (info := chain[0].run.info).parent is not None:
        parent = Run(run.path.parent / info.parent)
        if not (parent.path / "run.json").is_file():
            raise UserError(
                f"its ancestor {info.parent} is gone, so it cannot be replayed from its beginning", where=run.id
            )
        chain.insert(0, Link(parent, info.fork_step, frozenset(info.inherited), _before_going_back(parent, info)))
    return chain


def _before_going_back(parent: Run, child: RunInfo) -> int | None:
    """The last attempt at a run before it went back to before a child began that had been born by then."""
    backs = (one for one in parent.events("went_back") if one["t"] > child.created)
    undone = [one["attempt"] for one in backs if one["to"] < (child.fork_step or 0)]
    return min(undone) - 1 if undone else None


def prepare(run: Run, name: str = "") -> list[Run]:
    """Make the runs of a replay, in state ``created``, with the commands that wait for them.

    Args:
        run: The run to be replayed.
        name: The name of the last of them; empty makes one.

    Returns:
        One run for each of its ancestry. Only the first is there yet; each bears the next one before it ends.

    Raises:
        UserError: If the name is taken, or an ancestor is gone.
    """
    chain = ancestry(run)
    check_spelling(name, "--name")
    name = name or f"{run.id}-replay-{int(time.time())}"
    if (run.path.parent / name).exists():
        raise UserError(f"a run named {name!r} exists already", hint="choose another --name")
    names = [f"{name}-of-{link.run.id}" for link in chain[:-1]] + [name]
    made: list[Run] = []
    following: Run | None = None
    for link, called in reversed(list(zip(chain, names, strict=True))):
        staged = _staged(link, called, parent=names[names.index(called) - 1] if link is not chain[0] else None)
        for command in commands_of(link):
            staged.inbox.post(command)
        if following is not None:
            after = time.time() + 1
            child = {"staging": following.path.name}
            staged.inbox.post(Command("fork", child, issuer="replay", at=link.until, sent=after))
            staged.inbox.post(Command("abort", issuer="replay", at=link.until, sent=after + 1))
        made.insert(0, staged)
        following = staged
    first = publish_run(made[0])
    return [first, *(Run(run.path.parent / called) for called in names[1:])]


def commands_of(link: Link) -> list[Command]:
    """Return what has to be asked of a run's replay, in the order in which it was carried out."""
    events = [one for one in link.events("command") if one["outcome"] == APPLIED and one["verb"] not in _LEFT_OUT]
    due = [one for one in sorted(events, key=lambda one: one["at"]) if link.holds(one)]
    now = time.time()
    return [
        Command(one["verb"], _exact(one), issuer="replay", at=one["at"], sent=now + number * 1e-4)
        for number, one in enumerate(due)
    ]


def _exact(event: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a command as they were understood then: no ``best``, no multiple, no recipe."""
    args, result = dict(event.get("args") or {}), event.get("result") or {}
    if event["verb"] == "set" and "values" in result:
        return dict(result["values"])
    if event["verb"] == "reset" and result.get("source"):
        return {**args, "to": result["source"].removeprefix("@")}
    if event["verb"] == "select" and result.get("stored"):
        return {**args, "stored": result["stored"]}
    if event["verb"] == "merge" and result.get("kept"):
        return {**args, "sources": result["kept"]}
    if event["verb"] == "checkpoint":
        return {}
    return args


def _staged(link: Link, name: str, parent: str | None) -> Run:
    loaded = load_child(link.run, name, words_of(first_values(link.run, until=link.attempt)))
    info = RunInfo(
        id=name,
        job=loaded.reference,
        config_hash=loaded.config_hash,
        code_hash=loaded.code_hash,
        target=link.run.info.target,
        parent=parent,
        changes=link.run.info.changes if parent else {},
        replay_of=link.run.id,
    )
    staged = stage_run(link.run.path.parent, info, to_yaml(loaded.plain), origins_with_content(loaded))
    for folder in _FOLDERS:
        if (link.run.path / folder).is_dir():
            link_tree(link.run.path / folder, staged.path / folder)
    return staged


@dataclass
class Replayed:
    """What came of a replay.

    Attributes:
        runs: The runs that it made, in their order.
        comparison: With the original; up to the first difference.
        state: How the last of them ended.
    """

    runs: list[Run]
    comparison: Comparison
    state: State
    unlike: list[str] = field(default_factory=list)
    """What is not as it was then, such as the code; it may be why they differ."""


def replay(run: Run, *, name: str = "", tell: Callable[[str], None] = lambda line: None) -> Replayed:
    """Carry a run out once more, and compare; at the first difference it ends.

    Args:
        run: The run.
        name: The name of the new run.
        tell: Is told how it goes.

    Raises:
        UserError: If it cannot be replayed.
        RunFailed: If a worker ends before it begins.
    """
    chain, made = ancestry(run), prepare(run, name)
    found = Replayed(made, Comparison(None, 0, 0, 0), State.CREATED, _unlike(run, made[0]))
    for link, new in zip(chain, made, strict=True):
        if not (new.path / "run.json").is_file():  # the one before it has ended before it could bear it
            break
        tell(f"{new.id} does again what {link.run.id} did{f' up to step {link.until}' if link.until else ''}")
        seen = _follow(link, new)
        found.comparison = _sum(found.comparison, seen)
        found.state = new.state
        if seen.difference is not None:
            break
    return found


def _follow(link: Link, new: Run) -> Comparison:
    """Carry out a run of a replay and compare it while it goes on, with each config up to where it changed."""
    original = Course.of(one for one in link.events("metric", "digest") if _belongs(one, link))
    course, tail = Course(), JournalTail(new.path / "journal")
    parts = link.stretches() or [Stretch(0)]
    seen = Comparison(None, 0, 0, 0)
    for part, later in zip(parts, [*parts[1:], None], strict=True):
        found = changes(new, words_of(part.keys))
        if found.keys:
            choose(new, Choice(keys=found.keys, was=found.was))
        if later is not None:
            new.inbox.post(Command("stop", issuer="replay", at=later.begin, sent=time.time() + 1))
        seen = _attempt(new, original, course, tail)
        if seen.difference is not None or new.state is not State.STOPPED:
            break
    return seen


def _attempt(new: Run, original: Course, course: Course, tail: JournalTail) -> Comparison:
    """Let a run of a replay make its next attempt, and end it at the first difference."""
    worker = LocalTarget().launch(new)
    while True:
        over = is_over(worker.poll())
        for event in tail.poll():
            course.take(event)
        seen = compare_courses(original, course)
        if over:
            return seen
        if seen.difference is not None:
            new.inbox.send("abort")
        time.sleep(TICK_SECONDS)


def _belongs(event: Event, link: Link) -> bool:
    return link.until is None or event.get("step", 0) <= link.until


def _sum(one: Comparison, other: Comparison) -> Comparison:
    return Comparison(
        other.difference, max(one.steps, other.steps), one.values + other.values, one.digests + other.digests
    )


def _unlike(run: Run, new: Run) -> list[str]:
    """What is not as it was when the run was made."""
    found = ["the code has changed since"] if run.info.code_hash != new.info.code_hash else []
    then = next(iter(run.events("attempt")), {}).get("environment", {})
    now = environment()
    return found + [f"{key}: {then[key]} then, {now.get(key)} now" for key in _PLACE if then and then[key] != now[key]]
