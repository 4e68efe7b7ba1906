"""Models at URLs: fetched once into the workspace, verified, and kept by their content.

What a reference without a commit has led to is noted, and stays so in this workspace until it is fetched anew: a run
that is resumed must not find another model below it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from clew.errors import UserError
from clew.remote.errors import RemoteError, patiently
from clew.remote.location import Head, Location, fetch_checked, open_location
from clew.runs.files import read_json, sync_directory, sync_tree, write_json

FOLDER = "models"
SAFE = frozenset({".json", ".safetensors", ".txt", ".model", ".jinja", ".tiktoken", ".md"})
"""How files end that load without running or unpickling anything."""
TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True)
class FetchedModel:
    """What a URL has led to."""

    reference: str
    """The URL with its commit, where there are commits."""
    folder: str
    """The name of the folder below ``models/``."""

    def path(self, workspace: Path) -> Path:
        """Return the folder."""
        return workspace / FOLDER / self.folder


def known_model(url: str, workspace: Path) -> FetchedModel | None:
    """Return what a URL has led to before in this workspace; None when it has not been fetched."""
    try:
        found = FetchedModel(**read_json(_pin(url, workspace)))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.path(workspace).is_dir() else None


def fetch_model(url: str, workspace: Path, *, anew: bool = False) -> FetchedModel:
    """Fetch the model or the adapter that is at a URL, unless it is here.

    Args:
        url: A location, as :func:`clew.remote.open_location` takes it, or a ``.gguf`` file in one.
        workspace: The workspace's folder.
        anew: Look what is there now, even if it was fetched before.

    Raises:
        UserError: If there is no model.
        RemoteError: If it cannot be fetched, or something does not match its hash.
    """
    if not anew and (known := known_model(url, workspace)):
        return known
    place, file = url.rpartition("/")[::2] if url.endswith(".gguf") else (url, "")
    location = open_location(place)
    try:
        head = patiently(location.head)
        if head is None:
            raise UserError("there is nothing there, or nothing that may be seen", where=url)
        wanted = _wanted(location.listing(head), file)
        if not {"config.json", "adapter_config.json", file} & set(wanted):
            raise UserError("no model and no adapter is there", where=url)
        found = FetchedModel(_pinned(location, head) + (f"/{file}" if file else ""), _name(url, wanted))
        if not found.path(workspace).is_dir():
            _fetch(location, head, wanted, found.path(workspace))
    except RemoteError as error:
        raise UserError(f"this model has not been fetched yet: {error.what}", where=url, hint=error.hint) from error
    for reference in {url, found.reference}:
        _pin(reference, workspace).parent.mkdir(exist_ok=True)
        write_json(_pin(reference, workspace), asdict(found))
    print(f"clew: {url} is {found.reference}, in {found.path(workspace)}", file=sys.stderr, flush=True)
    return found


def _wanted(listing: Mapping[str, str], file: str) -> dict[str, str]:
    """One file, or those of the model itself rather than of the run or of other programs."""
    if file:
        return {path: digest for path, digest in listing.items() if path == file}
    found = {}
    for path, digest in listing.items():
        folder = str(PurePosixPath(path).parent)
        if folder in (".", TEMPLATES) and PurePosixPath(path).suffix in SAFE:
            found[path] = digest
    return found


def _fetch(location: Location, head: Head, wanted: Mapping[str, str], target: Path) -> None:
    """Fetch into a hidden folder, which gets its name when everything is there."""
    staging = target.with_name(f".new-{target.name}-{os.getpid()}")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for path, digest in wanted.items():
            patiently(lambda path=path, digest=digest: fetch_checked(location, head, path, digest, staging / path))  # type: ignore[misc]
        sync_tree(staging)
        if not target.is_dir():
            staging.rename(target)
        sync_directory(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _pinned(location: Location, head: Head) -> str:
    if location.repo is None:
        return location.url
    repo = f"hf://{location.repo}"
    folder = re.sub(r"^(@[^/]+)?/?", "", location.url.removeprefix(repo)).rstrip("/")
    return f"{repo}@{head.revision}" + (f"/{folder}" if folder else "")


def _name(url: str, wanted: Mapping[str, str]) -> str:
    """Words of the URL for people, and a hash of what the files are."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", url.partition("://")[2].partition("@")[0]).strip("-.")[-60:].lstrip("-.")
    text = "\n".join(f"{path}\0{wanted[path]}" for path in sorted(wanted))
    return f"{words or 'model'}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _pin(url: str, workspace: Path) -> Path:
    return workspace / FOLDER / "pins" / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.json"
