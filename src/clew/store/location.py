"""Where a store is, and how that is said without its password."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from clew.errors import UserError
from clew.runs import Workspace

VARIABLE = "CLEW_STORE"
_SCHEMES = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_HINT = "known: sqlite:///FILE, postgresql://USER@HOST/DATABASE"


@dataclass(frozen=True)
class Location:
    """A database that may or may not be there."""

    url: URL

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.url.get_backend_name()

    @property
    def path(self) -> Path:
        """The file of a SQLite store."""
        return Path(self.url.database or "")

    @property
    def shown(self) -> str:
        """How it is named to people: a path, or a URL without password and options."""
        if self.dialect == "sqlite":
            return str(self.path)
        return self.url.set(drivername="postgresql", query={})._replace(password=None).render_as_string()

    def __repr__(self) -> str:
        return f"Location({self.shown!r})"

    def redact(self, text: str) -> str:
        """Return a text of the driver without the password."""
        options = self.url.query.get("password", "")
        secrets = [str(self.url.password or ""), *([options] if isinstance(options, str) else options)]
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text


def locate(workspace: Workspace, url: str | None = None) -> Location:
    """Say which database holds the index of a workspace.

    Args:
        workspace: The workspace; its folder holds the default.
        url: What was asked for; None takes ``$CLEW_STORE``.

    Raises:
        UserError: If it is no URL, or of a kind that is not known. The text never repeats the URL.
    """
    text = url or os.environ.get(VARIABLE, "")
    if not text:
        return Location(URL.create("sqlite", database=str(workspace.root / ".clew" / "store.sqlite")))
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise UserError("the store is not given as a URL", where=_said(url), hint=_HINT)
    if scheme not in _SCHEMES:
        raise UserError(f"a store cannot be of the kind {scheme!r}", where=_said(url), hint=_HINT)
    try:
        parsed = make_url(text).set(drivername=_SCHEMES[scheme])
    except (ArgumentError, ValueError):
        # The parser's own complaint may repeat a part of the password.
        raise UserError("the URL of the store cannot be read", where=_said(url), hint=_HINT) from None
    if scheme != "sqlite":
        return Location(parsed)
    if parsed.database in (None, "", ":memory:"):
        raise UserError("a store needs a file", where=_said(url), hint=_HINT)
    return Location(URL.create("sqlite", database=str(Path(str(parsed.database)).absolute())))


def _said(url: str | None) -> str:
    return "--store" if url else f"${VARIABLE}"
