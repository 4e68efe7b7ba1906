"""Fork: a child run that begins where its parent is, or was.

The child's config is the *user's* config of its parent with a diff on top, with the origin of every value; what
somebody has set while the parent ran comes with the state, and not with the config.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clew.checkpoints import CheckpointStore
from clew.config import Origin, diff, leaves, plain, section_of, to_yaml
from clew.config.source import read_file
from clew.errors import RunFailed, UserError
from clew.inspection.recipes import request
from clew.jobs.loading import LoadedJob, config_below, load_job, origins_with_content
from clew.lineage.ending import check_end
from clew.lineage.values import check_settings
from clew.lineage.words import known_settings, understood
from clew.runs import Command, Run, RunInfo
from clew.runs.ids import check_spelling
from clew.runs.run import stage_run
from clew.runs.states import why_not_live
from clew.session.forking import bear
from clew.session.live import LiveRun, Refused, Sent, When
from clew.session.settings import STEPS
from clew.session.sources import find_checkpoint


@dataclass(frozen=True)
class Asked:
    """What a fork is to be.

    Attributes:
        at: A step, a tag, ``best`` or ``last``; empty is where the run is now.
        name: The child's name; empty makes one of its parent's.
        words: ``key=value``, what it does otherwise; see :func:`clew.lineage.words.understood`.
        select: What of the data it trains on, a recipe; empty leaves what its parent trains on.
        order: In which order; empty leaves it to the recipe.
        switch: Whether the parent's process goes on as the child.
    """

    at: str = ""
    name: str = ""
    words: Sequence[str] = ()
    select: str = ""
    order: str = ""
    switch: bool = False


@dataclass(frozen=True)
class Forked:
    """A fork: the child, or the command that will bear it."""

    name: str
    sent: Sent | None = None
    """The command; None where no live run was needed for it."""
    child: Run | None = None
    """The child, in state ``created``, or running where its parent's process goes on as it; None as long as the command
    has not been carried out."""
    wishes: Sequence[Command] = ()
    """What the child is asked at its first boundary, beside its config; its trainer may reject it."""


def fork(parent: Run, asked: Asked, *, wait: bool | float = True) -> Forked:
    """Make a child of a run, without starting it.

    From a checkpoint that there is, it is made at once, whatever its parent does. Else a live parent is asked for it at
    its next boundary, or at the step that is named.

    Args:
        parent: The run.
        asked: What the child is to be.
        wait: Whether to wait for a live parent; a number waits so many seconds at the most.

    Returns:
        The child.

    Raises:
        UserError: If it cannot be; nothing is left behind then.
        RunFailed: If the parent ends before, or does not answer in time.
    """
    child, told = _prepared(parent, asked)
    wishes = tuple(child.inbox.peek())
    try:
        return replace(_born(parent, child, asked, told, wait), wishes=wishes)
    except (UserError, RunFailed) as error:
        # A live parent that has not answered yet may still carry it out; one that refuses says so before it forgets it.
        if isinstance(error, Refused) or not _still_asked(parent, child):
            shutil.rmtree(child.path, ignore_errors=True)
        raise


def _born(parent: Run, child: Run, asked: Asked, told: Mapping[str, Any], wait: bool | float) -> Forked:
    name = child.info.id
    is_there = not asked.switch and asked.at and _has(parent, asked.at)
    if not is_there and not why_not_live(parent.state):
        if STEPS in told:
            check_end(parent, told, _come_to(parent, asked), _said(asked), child=True)
        return _from_live(parent, child, asked, wait)
    if asked.switch:
        raise UserError("only a live run can go on as its child", where=parent.id, hint="leave --switch out")
    checkpoint = find_checkpoint(parent, asked.at or "last")
    if STEPS in told:
        check_end(parent, told, checkpoint.step, _said(asked), child=True)
    return Forked(name, child=bear(child, checkpoint))


def _come_to(parent: Run, asked: Asked) -> int:
    """The step at which a child of a live run begins; or that to which the run has come at least."""
    if asked.at.isdigit():
        return int(asked.at)
    return max((event["step"] for event in parent.events("metric", "checkpoint")), default=0)


def _said(asked: Asked) -> list[str]:
    """What a command line says of a child, but for its beginning."""
    options = {"--name": asked.name, "--select": asked.select, "--order": asked.order}
    return [word for name, value in options.items() if value for word in (name, value)] + list(asked.words)


def _still_asked(parent: Run, child: Run) -> bool:
    """Whether a command for this child waits in its parent's inbox."""
    return any(command.args.get("staging") == child.path.name for command in parent.inbox.peek())


def _from_live(parent: Run, child: Run, asked: Asked, wait: bool | float) -> Forked:
    if asked.at and not asked.at.isdigit():
        raise UserError(f"there is no checkpoint {asked.at!r}", where=parent.id, hint="name a step, or leave --at out")
    if asked.at and int(asked.at) > (last := _last_step(parent)):
        raise UserError(f"the run ends at step {last:.0f}, and never comes to step {asked.at}", where=parent.id)
    info = child.info
    args: dict[str, Any] = {"staging": child.path.name, **({"switch": True} if asked.switch else {})}
    sent = LiveRun(parent).send("fork", args, When(at=int(asked.at) if asked.at else None), wait)
    return Forked(info.id, sent, Run(parent.path.parent / info.id) if sent.step is not None else None)


def _last_step(parent: Run) -> float:
    """How far a run goes, as far as it has said."""
    totals = [event["total"] for event in parent.events("horizon")]
    return float(totals[-1]) if totals else math.inf


def _has(parent: Run, at: str) -> bool:
    """Whether a checkpoint of that name is there; a step that a live run has not reached is none yet."""
    store = CheckpointStore(parent.checkpoints)
    return not at.isdigit() or any(one.step == int(at) for one in store.all())


def _prepared(parent: Run, asked: Asked) -> tuple[Run, dict[str, Any]]:
    """Make the child's directory under a hidden name, with the commands that wait for its first boundary.

    Returns:
        The child, and the settings of its trainer that are said anew.
    """
    check_spelling(asked.name, "--name")
    selection = request(asked.select, asked.order) if asked.select else None
    changes = understood(parent, asked.words)
    name = asked.name or _name(parent)
    loaded = load_child(parent, name, changes.overrides)
    said = {word.partition("=")[0] for word in changes.overrides}
    settings = {setting: key for setting, key in known_settings(parent).items() if key} if asked.words else {}
    changed = _changed(parent, loaded, said & set(settings.values()))
    anew = {setting: changed[key] for setting, key in settings.items() if key in changed}
    for values in (anew, changes.settings):
        check_settings(parent, values)
    child = _staged(parent, name, loaded, changed)
    if changes.settings:
        child.inbox.post(Command("set", dict(changes.settings), issuer="fork"))
    if selection:
        child.inbox.post(Command("select", dict(selection), issuer="fork"))
    return child, {**anew, **changes.settings}


def _staged(parent: Run, name: str, loaded: LoadedJob, changed: dict[str, Any]) -> Run:
    info = RunInfo(
        id=name,
        job=loaded.reference,
        config_hash=loaded.config_hash,
        code_hash=loaded.code_hash,
        target=parent.info.target,
        parent=parent.id,
        changes=changed,
    )
    if (parent.path.parent / name).exists():
        raise UserError(f"a run named {name!r} exists already", hint="choose another --name")
    return stage_run(parent.path.parent, info, to_yaml(loaded.plain), origins_with_content(loaded))


def load_child(parent: Run, name: str, overrides: Sequence[str] = ()) -> LoadedJob:
    """Load the config of a child: its parent's, the values with their places, and a diff on top.

    Raises:
        ConfigError: With every problem that it has.
    """
    below = config_below(str(parent.path), parent.path.parent)
    loaded = load_job({"job": parent.info.job}, [*overrides, f"name={json.dumps(name)}"], below=below)
    loaded.job.check(loaded.config, parent.path.parent)
    return loaded


def _changed(parent: Run, loaded: LoadedJob, anew: Collection[str]) -> dict[str, Any]:
    """What the child's config says otherwise; and what it says anew, over what may have been set in its parent."""
    before = plain(read_file(parent.config_path))
    after = {key: leaf.value for key, leaf in leaves(section_of(loaded.plain, Origin("", "")))}
    found = {key: new for key, (_, new) in diff(before, loaded.plain).items() if key not in ("name", "job")}
    return {**{key: after[key] for key in anew if key in after}, **found}


def _name(parent: Run) -> str:
    """A name that nobody else takes at the same moment."""
    return f"{parent.id}-{secrets.token_hex(2)}"
