"""``clew push`` and ``clew pull``: a run to another place, and from there."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from clew.cli.finding import find_run, workspace_of
from clew.cli.text import size
from clew.errors import UserError, did_you_mean
from clew.runs import RESUMABLE, Run, State

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.remote.base import Base

_URL = "hf://OWNER/REPO[@REVISION][/PATH], s3://BUCKET/PATH, file:///PATH or another URL of fsspec"


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments of a verb."""
    if verb == "pull":
        parser.add_argument("url", metavar="URL", help=_URL)
        parser.add_argument("--name", default="", metavar="NAME", help="the run's name here (default: the one it had)")
        parser.add_argument("--revision", default="", metavar="REV", help="a branch, tag or commit of a repository")
        parser.add_argument("--model", action="store_true", help="fetch the model at the URL, as it is there now")
        return
    parser.add_argument("name", metavar="RUN", help="which run")
    parser.add_argument("url", metavar="URL", help=_URL)
    parser.add_argument("--what", metavar="PARTS", help="some of artifacts,checkpoints,run (default: all)")
    parser.add_argument("--public", action="store_true", help="let everybody see a repository that is made for it")
    parser.add_argument("--revision", default="", metavar="BRANCH", help="the branch of a repository (default: main)")
    parser.add_argument("--base", default="", metavar="MODEL", help="what a pushed adapter names as its base")
    parser.add_argument("--replace", action="store_true", help="put it in the place of whatever is there")
    parser.add_argument("--everything", action="store_true", help="send also what is there already")


def main(arguments: Namespace) -> int:
    """Push or pull, and print what came of it."""
    return _pull(arguments) if arguments.verb == "pull" else _push(arguments)


def _push(arguments: Namespace) -> int:
    from clew.remote.push import push

    run = find_run(workspace_of(arguments), arguments.name, purpose="is pushed run by run")
    done = push(
        run,
        arguments.url,
        _parts(arguments.what),
        revision=arguments.revision,
        public=arguments.public,
        base=arguments.base,
        replace=arguments.replace,
        everything=arguments.everything,
    )
    place = done.remote.url + (f" at {done.remote.revision}" if done.remote.revision else "")
    print(f"{run.id}: pushed to {place} ({size(done.sent)} of {size(done.manifest.bytes)} were new)")
    _warn_of_base(done.base)
    return 0


def _parts(text: str | None) -> list[str]:
    from clew.remote import PART_NAMES

    if text is None:
        return list(PART_NAMES)
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part not in PART_NAMES:
            raise UserError(f"there is no part {part!r}", where="--what", hint=did_you_mean(part, PART_NAMES))
    return parts


def _warn_of_base(base: Base | None) -> None:
    if base is not None and not base.is_elsewhere:
        print(
            f"clew: the base of this adapter is a folder of this machine, {base.name}\n"
            "  others can load it with a base that they can find: push again with --base OWNER/NAME",
            file=sys.stderr,
        )


def _pull(arguments: Namespace) -> int:
    workspace = workspace_of(arguments)
    if arguments.model:
        from clew.remote.models import fetch_model

        found = fetch_model(arguments.url, workspace.root, anew=True)
        print(f"{found.reference}\n{found.path(workspace.root)}")
        return 0
    from clew.remote.pull import pull

    done = pull(arguments.url, workspace, name=arguments.name, revision=arguments.revision)
    run = done.run
    print(f"{run.id}: pulled into {run.path} ({size(done.bytes)}; {run.state}, attempt {run.states.read().attempt})")
    for line in done.missing:
        print(f"clew: {line}", file=sys.stderr)
    _say_next(run)
    return 0


def _say_next(run: Run) -> None:
    if run.state in RESUMABLE or run.state is State.CREATED:
        print(f"clew resume {run.id} goes on here; it should not go on where it came from as well")
