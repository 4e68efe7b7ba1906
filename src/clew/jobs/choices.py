"""What a run does otherwise from its next attempt on: chosen when it is resumed, taken up by the attempt's worker.

What was chosen lies in ``resume.json`` until an attempt has taken it up, so that it is neither lost nor done by halves
if whoever asks, or the worker, dies in between; taking it up twice comes to the same. Then it stands where everything
else of a run stands: values in ``config.yaml`` and, with what they won over, in ``origins.json``; what is new since
which attempt, in the journal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from clew.checkpoints.aside import set_aside
from clew.config import Origin, changeable_keys, leaves, section_of, to_yaml
from clew.errors import UserError
from clew.jobs.loading import LoadedJob, load_job, run_origins
from clew.logs.logger import Logger
from clew.runs import Command, JournalWriter, Run
from clew.runs.files import read_json, sync_directory, write_atomically, write_json
from clew.runs.ids import ulid
from clew.runs.journal import Beginning, beginnings, journal_files
from clew.runs.states import OWNED

FILE = "resume.json"
LAYER = "resume"
"""The layer of values that were said when a run was resumed."""
ISSUER = "resume"


@dataclass(frozen=True)
class Choice:
    """What a run is to do otherwise from its next attempt on.

    Attributes:
        keys: Dotted keys of the config with their values, as JSON.
        was: What stood at these keys before.
        settings: What the trainer is told to set, as ``clew set`` would.
        set_at: The step after which it is told that; None is where the attempt begins.
        back: The checkpoint's step from which it goes on, where later ones are to count no longer; None is the newest.
        contained: The commands of that very step which the checkpoint contains.
        target: Where it runs; empty leaves it.
        command: The id of the command that sets.
        after: The number of the attempt that was the last one then.
        asked: When, in Unix seconds.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    was: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    set_at: int | None = None
    back: int | None = None
    contained: list[str] = field(default_factory=list)
    target: str = ""
    command: str = field(default_factory=ulid)
    after: int = 0
    asked: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Changes:
    """What words of a command line would change in a run's config.

    Attributes:
        keys: Dotted keys with their new values.
        was: The same keys with the present ones.
        fixed: Keys of values that a run which has begun cannot have anew, with the present ones.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    was: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)


def changes(run: Run, words: Sequence[str]) -> Changes:
    """Find out what ``key=value`` would change in a run's config.

    Raises:
        ConfigError: With every problem that the config would have.
        UserError: If the job's own check fails.
    """
    found = Changes()
    if not words:
        return found
    before, after = load_job(run.config_path), load_job(run.config_path, words)
    free = {*changeable_keys(before.config), *changeable_keys(after.config)} - {"name"}
    old, new = _flat(before.plain), _flat(after.plain)
    for key in dict.fromkeys((*old, *new)):
        if (key in old) == (key in new) and old.get(key) == new.get(key):
            continue
        place = next((one for one in free if key == one or key.startswith(f"{one}.")), None)
        if place is None:
            found.fixed[key] = old.get(key)
            continue
        # Where a section comes or goes, all of it is what has changed.
        place = key if key in old and key in new else place
        found.keys[place], found.was[place] = _at(after.plain, place), _at(before.plain, place)
    if found.keys and not found.fixed:
        after.job.check(after.config, run.path.parent)
    return found


def words_of(keys: Mapping[str, Any]) -> list[str]:
    """Return values as words of a command line."""
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


def choice_of(run: Run) -> Choice | None:
    """Return what was chosen and no attempt has taken up yet; None when nothing was."""
    try:
        return Choice(**read_json(run.path / FILE))
    except FileNotFoundError:
        return None


def choose(run: Run, choice: Choice) -> Choice:
    """Let a run do something otherwise from its next attempt on, besides what was chosen before and not taken up.

    Args:
        run: A run that nobody works on.
        choice: What; whether it can be was looked at before.

    Returns:
        All that its next attempt will take up.

    Raises:
        UserError: If somebody works on the run.
    """
    with run.states.locked() as now:
        if now.observed(time.time()) in OWNED:
            raise UserError(
                "what a run does can change in such a way only between two attempts",
                where=run.id,
                hint=f"clew stop {run.id}, then resume it so",
            )
        choice = replace(_together(choice_of(run), choice), after=now.attempt)
        write_json(run.path / FILE, asdict(choice))
        _write(run, choice)
    return choice


def _together(earlier: Choice | None, choice: Choice) -> Choice:
    if earlier is None:
        return choice
    back = earlier if choice.back is None else choice
    return replace(
        choice,
        keys={**earlier.keys, **choice.keys},
        was={**choice.was, **earlier.was},
        settings={**earlier.settings, **choice.settings},
        back=back.back,
        contained=back.contained,
        target=choice.target or earlier.target,
    )


def take_up(run: Run, attempt: int) -> None:
    """Do what was chosen for this attempt, before anything else in it looks at the run.

    Args:
        run: The run.
        attempt: Number of the attempt, which the calling process has claimed.

    Raises:
        Fenced: When another attempt has taken the run over.
    """
    choice = choice_of(run)
    if choice is None:
        return
    if _has_gone_on(run, choice, attempt):
        Logger("clew.worker", run=run.id, attempt=attempt).warning("what was chosen for an earlier attempt is dropped")
    else:
        _write(run, choice)
        journal = JournalWriter(run.path / "journal", attempt)
        try:
            if choice.back is not None:
                _go_back(run, attempt, choice, journal)
            if choice.keys or choice.settings or choice.target:
                journal.write("changed", keys=choice.keys, was=choice.was, set=choice.settings, target=choice.target)
        finally:
            journal.close()
        if choice.settings:
            command = Command("set", choice.settings, choice.command, ISSUER, choice.asked, at=choice.set_at)
            run.inbox.post(command)
    (run.path / FILE).unlink(missing_ok=True)
    sync_directory(run.path)


def _has_gone_on(run: Run, choice: Choice, attempt: int) -> bool:
    """Whether an attempt has made steps since, without taking it up: of a script that was started by hand."""
    begun: Mapping[int, Beginning] = beginnings(journal_files(run.path / "journal"))
    return any(one.step is not None for number, one in begun.items() if choice.after < number < attempt)


def _go_back(run: Run, attempt: int, choice: Choice, journal: JournalWriter) -> None:
    """Let what lies after a checkpoint count no longer: the steps, the checkpoints, and what was asked for."""
    assert choice.back is not None
    settled = {event.get("id") for event in run.events("command")}
    for command in run.inbox.peek():
        if command.id in settled:  # of a process that died before it could take it away; it would be done once more
            run.inbox.remove(command)
    place = set_aside(run, choice.back, attempt)
    journal.write("went_back", to=choice.back, contained=choice.contained, aside=place)


def _write(run: Run, choice: Choice) -> None:
    """Put the new values into the config, after the places that said them; a second time changes nothing."""
    if not choice.keys:
        return
    before, after = load_job(run.config_path), load_job(run.config_path, words_of(choice.keys))
    if before.plain == after.plain:
        return
    where = f"clew resume, after attempt {choice.after}"
    write_json(run.path / "origins.json", dict(_origins(run, before, after, where)))
    write_atomically(run.config_path, to_yaml(after.plain))


def _origins(run: Run, before: LoadedJob, after: LoadedJob, where: str) -> Iterator[tuple[str, Any]]:
    """The origins with those of what has changed."""
    known, old, new = run_origins(run), _flat(before.plain), _flat(after.plain)
    for key, entry in known.items():
        if key in new or key not in old:  # what a section says that is there no longer, nobody asks any more
            yield key, entry if key not in new or old.get(key) == new[key] else _over(entry, new[key], where)
    for key in new.keys() - known.keys() - old.keys():
        yield key, _over(None, new[key], where)


def _over(entry: Mapping[str, Any] | None, value: Any, where: str) -> dict[str, Any]:
    said = {"value": value, "layer": LAYER, "where": where}
    if entry is None:
        return {**said, "shadowed": []}
    if said.items() <= entry.items():
        return dict(entry)
    lower = {name: entry[name] for name in ("value", "layer", "where")}
    return {**entry, **said, "shadowed": [lower, *entry["shadowed"]]}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: leaf.value for key, leaf in leaves(section_of(values, Origin("", "")))}


def _at(values: Any, key: str) -> Any:
    """The value at a dotted key; there must be one."""
    for name in key.split("."):
        values = values[int(name) if isinstance(values, list) else name]
    return values
