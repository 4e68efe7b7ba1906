"""Sending a run to a location."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clew.errors import UserError
from clew.remote.base import Base
from clew.remote.bundle import Bundle, bundle, part_of
from clew.remote.config import PART_NAMES
from clew.remote.errors import TRIES, Conflict, patiently
from clew.remote.location import Location, open_location
from clew.remote.manifest import Entry, Manifest
from clew.runs import Remote, Run
from clew.runs.pushed import save_remote


@dataclass(frozen=True)
class Pushed:
    """What came of a push."""

    remote: Remote
    manifest: Manifest
    sent: int
    """Bytes of the files that the location did not have; what the Hub itself finds to be known counts here."""
    base: Base | None
    """What the adapter stands on; None without one."""


class LaterState(UserError):
    """What is there is further than what was gathered here."""


def push(
    run: Run,
    url: str,
    what: Sequence[str] = PART_NAMES,
    *,
    revision: str = "",
    public: bool = False,
    base: str = "",
    replace: bool = False,
    everything: bool = False,
) -> Pushed:
    """Send a run, or parts of it; what is there already by content is not sent again.

    Args:
        run: Which run; it may be alive.
        url: Where to; ``{run}`` in it becomes the run's name.
        what: Some of ``artifacts``, ``checkpoints`` and ``run``; other parts stay as they are there.
        revision: The branch of a repository.
        public: Whether everybody may see a repository that is made.
        base: What an adapter is to name as its base.
        replace: Put it there even if another run, or a later state of this one, is there.
        everything: Send also what the location says that it has.

    Raises:
        UserError: If there is nothing to send, or something else is there.
        RemoteError: If it cannot be done; the location is as it was.
    """
    location = open_location(url.replace("{run}", run.id), revision=revision, public=public)
    with bundle(run, what, base=base) as made:
        for number in range(TRIES):
            try:
                return patiently(lambda: _push(run, location, made, what, replace=replace, everything=everything))
            except Conflict:  # somebody was quicker: look at what is there now
                if number == TRIES - 1:
                    raise
    raise AssertionError("the last try returns or raises")


def _push(
    run: Run, location: Location, made: Bundle, what: Sequence[str], *, replace: bool, everything: bool
) -> Pushed:
    before = location.head()
    there = before.manifest if before else None
    if there is not None and not replace:
        _check(made.manifest.about, there.about, location.url)
    manifest = _merged(made.manifest, there, what)
    if before is not None and there == manifest and not everything:
        head, sent = before, 0
    else:
        head = location.commit(manifest, made.sources, before, everything=everything)
        sent = _difference(made.manifest, None if everything else there)
    remote = Remote(location.url, location.repo, head.revision)
    save_remote(run.path, remote)
    return Pushed(remote, manifest, sent, made.base)


def _check(ours: Mapping[str, Any], theirs: Mapping[str, Any], url: str) -> None:
    """Refuse to put a run over another one, or over a later state of itself."""
    hint = "choose another URL, or put this one in its place with --replace"
    if theirs.get("uid") != ours["uid"]:
        raise UserError(f"another run is there already: {theirs.get('run')}", where=url, hint=hint)
    if (theirs["attempt"], theirs["step"]) > (ours["attempt"], ours["step"]):
        raise LaterState(
            f"a later state of {theirs['run']} is there: attempt {theirs['attempt']}, step {theirs['step']}"
            f" (here: attempt {ours['attempt']}, step {ours['step']})",
            where=url,
            hint=f"it may have gone on elsewhere; {hint}",
        )


def _merged(ours: Manifest, theirs: Manifest | None, what: Sequence[str]) -> Manifest:
    """Parts that are not sent stay, if they are of the same run; checkpoints also where no good one is here any more.

    That may be all that is left of them.
    """
    if theirs is None or theirs.about.get("uid") != ours.about["uid"]:
        return ours
    sent = {*what} if any(part_of(path) == "checkpoints" for path in ours.files) else {*what} - {"checkpoints"}
    kept = {path: entry for path, entry in theirs.files.items() if part_of(path) not in sent}
    return Manifest({**kept, **ours.files}, ours.about)


def _difference(ours: Manifest, theirs: Manifest | None) -> int:
    known = {entry.sha256 for entry in theirs.files.values()} if theirs else set()
    new: dict[str, Entry] = {entry.sha256: entry for entry in ours.files.values() if entry.sha256 not in known}
    return sum(entry.bytes for entry in new.values())
