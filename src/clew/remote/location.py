"""A location: one tree of files somewhere else, which is replaced as a whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clew.errors import UserError
from clew.remote.errors import DamagedCopy
from clew.remote.manifest import Manifest, matches

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[a-z]+)*://.+")


@dataclass(frozen=True)
class Head:
    """The newest whole state of a location."""

    revision: str
    """What names this state: the commit of a repository, or the number of the manifest."""
    manifest: Manifest | None
    """None where somebody else than Clew put the files."""


class Location(Protocol):
    """Where a tree is kept."""

    @property
    def url(self) -> str:
        """As it was given."""

    @property
    def repo(self) -> str | None:
        """The repository, where it is one."""

    def head(self) -> Head | None:
        """Return the newest whole state; None where there is nothing, or nothing that we may see.

        Raises:
            RemoteError: If it cannot be asked.
        """

    def commit(
        self, manifest: Manifest, sources: Mapping[str, Path], before: Head | None, *, everything: bool = False
    ) -> Head:
        """Replace the tree. Nobody ever sees a part of it: the manifest, or the commit, comes last.

        Args:
            manifest: The new state.
            sources: Where the content of each path is; one that is missing is in ``before`` and stays.
            before: The state that is replaced.
            everything: Send also what the location says that it has.

        Raises:
            Conflict: If ``before`` is no longer the newest state.
            RemoteError: If it cannot be done.
        """

    def fetch(self, head: Head, path: str, target: Path) -> None:
        """Write the content of one path of a state to a file, unverified.

        Raises:
            RemoteError: If it is not there, or cannot be read.
        """

    def listing(self, head: Head) -> dict[str, str]:
        """Return the paths of a state, and the digest of each as :func:`clew.remote.manifest.matches` reads it."""


def is_url(text: str) -> bool:
    """Say whether a text names a location rather than a path or a name."""
    return _URL.fullmatch(text) is not None


def open_location(url: str, *, revision: str = "", public: bool = False) -> Location:
    """Return the location of a URL; nothing is asked of it yet.

    Args:
        url: ``hf://OWNER/REPO[@REVISION][/PATH]``, or what fsspec understands, such as ``s3://BUCKET/PATH``.
        revision: The branch of a repository; empty takes the URL's own, or ``main``.
        public: Whether everybody may see a repository that is made now.

    Raises:
        UserError: If it is no such URL, or its library is missing.
    """
    if not is_url(url):
        hint = "write hf://OWNER/REPO, s3://BUCKET/PATH, file:///PATH or another URL that fsspec understands"
        raise UserError("this is not the URL of a location", where=url, hint=hint)
    if url.startswith("hf://"):
        from clew.remote.hub import HubLocation

        return HubLocation.of(url, revision=revision, public=public)
    if revision or public:
        raise UserError("--revision and --public are for repositories", where=url)
    from clew.remote.objects import ObjectLocation

    return ObjectLocation.of(url)


def fetch_checked(location: Location, head: Head, path: str, digest: str, target: Path) -> None:
    """Write one path of a state to a file, and check that its content is what it is said to be.

    Raises:
        DamagedCopy: If it is not; then there is no file.
        RemoteError: If it cannot be fetched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    location.fetch(head, path, target)
    if not matches(target, digest):
        target.unlink()
        raise DamagedCopy(
            f"{path} does not match its hash",
            where=location.url,
            hint="send it again from where it was made: clew push RUN URL --everything",
        )
