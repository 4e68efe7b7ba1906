"""``clew track``: hand a run on to trackers by hand, when nobody did it beside the run, or not to its end."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from clew.cli.finding import find_run, workspace_of
from clew.config import Origin, dump, load, section_of
from clew.errors import UserError
from clew.followers import FollowingConfig, followers_of, tracker_registry
from clew.followers.starting import following_of, registries, spawn
from clew.runs import Run
from clew.runs.following import Record, read_record, record_path

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="RUN", help="see clew ls; a live run is followed until it ends, or Ctrl-C")
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="TRACKER",
        help=f"only to this one, also if its config does not name it ({', '.join(tracker_registry().names())}); "
        "may be given several times",
    )
    parser.add_argument("--again", action="store_true", help="forget what was handed on, and hand on everything anew")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="options of the tracker; with one --to"
    )


def main(arguments: Namespace) -> int:
    """Hand on what is missing; 1 when a tracker did not get everything."""
    run = find_run(workspace_of(arguments), arguments.name, purpose="is tracked stage by stage")
    attempt = run.states.read().attempt
    if attempt == 0:
        raise UserError("it has not been started", where=run.id)
    settings, names = _wanted(run, arguments.to, arguments.overrides)
    if arguments.again:
        for name in names:
            record_path(run.path, name).unlink(missing_ok=True)
    processes = [spawn(run, attempt, settings, name) for name in names]
    codes = [process.wait() for process in processes]
    records = [read_record(record_path(run.path, name)) for name in names]
    for name, record in zip(names, records, strict=True):
        print(f"{name}: {describe(record)}")
    return int(any(codes) or any(record is None or record.status != "done" for record in records))


def describe(record: Record | None) -> str:
    """Say in a line how far a follower has come."""
    if record is None:
        return "nothing was handed on"
    state = f"{record.status}, {record.events} events" + (f": {record.error}" if record.error else "")
    return f"{record.place} ({state})" if record.place else state


def _wanted(run: Run, to: list[str], overrides: list[str]) -> tuple[FollowingConfig, list[str]]:
    """Return everybody who may follow the run, and the names of those who are to do it now."""
    if overrides and len(to) != 1:
        raise UserError("options are for one tracker", where="track", hint="name it with --to")
    settings = following_of(run)
    known = [name for name, config in followers_of(settings).items() if config.kind == "tracker"]
    if not to and not known:
        hint = f"name one with --to: {', '.join(tracker_registry().names())}"
        raise UserError("its config names no tracker", where=run.id, hint=hint)
    track = dump(settings, registries())["track"]
    new = [name for name in dict.fromkeys(to) if name not in known]
    place = known.index(to[0]) if to and to[0] in known else len(known)
    made = load(
        section_of({"track": [*track, *({"type": name} for name in new)]}, Origin("command line", "--to", Path.cwd())),
        root=FollowingConfig,
        registries=registries(),
        overrides=[f"track.{place}.{override}" for override in overrides],
    ).value
    names = [name for name, config in followers_of(made).items() if config.kind == "tracker"]
    added = dict(zip(new, names[len(known) :], strict=True))
    return made, [added.get(name, name) for name in dict.fromkeys(to)] or names
