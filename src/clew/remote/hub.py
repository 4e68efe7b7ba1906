"""A location in a repository of the Hugging Face Hub: every push is one commit.

``HfApi.upload_folder`` is not used: since version 2 it makes several commits, so that a reader could see a part.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from clew.errors import UserError, require
from clew.remote.errors import Conflict, RemoteError
from clew.remote.location import Head
from clew.remote.manifest import Manifest, matches

MANIFEST = "clew/manifest.json"
_SECONDS = 30.0
_URL = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>[^?#]+?))?/?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_TOKEN_HINT = "set HF_TOKEN to a token that may do this, or run: hf auth login"  # noqa: S105 - no secret


@dataclass(frozen=True)
class HubLocation:
    """A repository, or a folder of one."""

    url: str
    repo: str
    revision: str
    """A branch, a tag or a commit."""
    folder: str
    """Ends with ``/`` unless it is empty."""
    public: bool = False

    @classmethod
    def of(cls, url: str, *, revision: str = "", public: bool = False) -> HubLocation:
        """Return the location of a URL, as :func:`clew.remote.open_location` describes it."""
        match = _URL.fullmatch(url)
        if match is None or match["repo"].split("/")[0] in ("datasets", "spaces", "buckets"):
            raise UserError(
                "this is not a model repository of the Hub", where=url, hint="write hf://OWNER/REPO[@REVISION][/PATH]"
            )
        said = unquote(match["revision"] or "")
        if revision and said and revision != said:
            raise UserError(f"the URL says {said} and --revision says {revision}", where=url)
        folder = f"{match['path']}/" if match["path"] else ""
        return cls(url, match["repo"], revision or said or "main", folder, public)

    def head(self) -> Head | None:
        """Return the newest commit of the branch with its manifest."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        with _explained(self.url):
            try:
                commit = str(self._api.model_info(self.repo, revision=self.revision, timeout=_SECONDS).sha)
            except (RepositoryNotFoundError, RevisionNotFoundError):
                return None
        return Head(commit, self._manifest(commit))

    def commit(
        self, manifest: Manifest, sources: Mapping[str, Path], before: Head | None, *, everything: bool = False
    ) -> Head:
        """Make one commit on top of ``before``, with what differs."""
        if _COMMIT.fullmatch(self.revision):
            raise UserError("a commit cannot be changed", where=self.url, hint="name a branch instead, such as main")
        if before is None:
            before = self._create()
        present = self.listing(before)
        operations = [
            *self._additions(manifest, sources, {} if everything else present),
            *self._deletions(manifest, before, present),
        ]
        said = manifest.about
        message = f"clew: run {said.get('run')}, attempt {said.get('attempt')}, step {said.get('step')}"
        with _explained(self.url), warnings.catch_warnings():
            # A table among the artifacts is meant to be there.
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            done = self._api.create_commit(
                self.repo, operations, commit_message=message, revision=self.revision, parent_commit=before.revision
            )
        return Head(str(done.oid), manifest)

    def fetch(self, head: Head, path: str, target: Path) -> None:
        """Download one path of a commit."""
        with _explained(self.url), tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as folder:
            found = self._api.hf_hub_download(
                self.repo, self.folder + path, revision=head.revision, local_dir=folder, etag_timeout=_SECONDS
            )
            Path(str(found)).replace(target)

    def listing(self, head: Head) -> dict[str, str]:
        """Return the paths below the folder and their digests: SHA-256 of large files, git's blob ids of others."""
        with _explained(self.url):
            found = self._api.list_repo_tree(self.repo, recursive=True, revision=head.revision)
            files = [item for item in found if hasattr(item, "blob_id") and item.path.startswith(self.folder)]
        return {
            item.path.removeprefix(self.folder): f"sha256:{item.lfs.sha256}" if item.lfs else f"git:{item.blob_id}"
            for item in files
        }

    @property
    def _api(self) -> Any:
        """The client; HF_ENDPOINT counts also where the library was imported before it was set."""
        hub = require("huggingface_hub", extra="remote")
        return hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="clew")

    def _manifest(self, commit: str) -> Manifest | None:
        with tempfile.TemporaryDirectory(prefix="clew-") as folder:
            target = Path(folder) / "manifest.json"
            try:
                self.fetch(Head(commit, None), MANIFEST, target)
            except _Missing:
                return None
            return Manifest.from_text(target.read_text(encoding="utf-8"), self.url)

    def _create(self) -> Head:
        with _explained(self.url):
            self._api.create_repo(self.repo, private=not self.public, exist_ok=True)
            if self.revision != "main":
                self._api.create_branch(self.repo, branch=self.revision, exist_ok=True)
        made = self.head()
        if made is None:
            raise RemoteError("the repository was made, but cannot be read", where=self.url, hint=_TOKEN_HINT)
        if made.manifest is not None:
            raise Conflict("somebody else has pushed there meanwhile", where=self.url)
        return made

    def _additions(self, manifest: Manifest, sources: Mapping[str, Path], present: Mapping[str, str]) -> Iterator[Any]:
        from huggingface_hub import CommitOperationAdd

        for path, source in sources.items():
            if path not in present or not matches(source, present[path]):
                yield CommitOperationAdd(self.folder + path, source)
        yield CommitOperationAdd(self.folder + MANIFEST, manifest.to_text().encode())

    def _deletions(self, manifest: Manifest, before: Head, present: Mapping[str, str]) -> Iterator[Any]:
        """Only what Clew has put there is ever deleted."""
        from huggingface_hub import CommitOperationDelete

        known = before.manifest.files if before.manifest else {}
        for path in sorted(set(known) & set(present) - set(manifest.files)):
            yield CommitOperationDelete(self.folder + path, is_folder=False)


class _Missing(RemoteError):
    """The repository has no such file."""


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what the client raises into one sentence."""
    require("huggingface_hub", extra="remote")
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        yield
    except RemoteError:
        raise
    except Exception as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise _Missing("a file is not there", where=url) from error
        told = _explain(error, url)
        if told is None:
            raise
        # The client itself asks six times for a file.
        told.passing = told.passing and not isinstance(error, LocalEntryNotFoundError)
        raise told from error


def _explain(error: BaseException, url: str) -> RemoteError | None:
    """Find the cause of a failure in its chain, since the client wraps what its threads raise."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return RemoteError("the Hub is not asked in offline mode", where=url, hint="unset HF_HUB_OFFLINE")
    if isinstance(error, HfHubHTTPError):
        return _of_status(error.response.status_code, getattr(error, "server_message", None) or "", url)
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2"):
        hint = "look at the network, and at HF_ENDPOINT if it is set"
        return RemoteError(f"the Hub cannot be reached: {error}", where=url, hint=hint, passing=True)
    return _explain(error.__cause__, url) if error.__cause__ is not None else None


def _of_status(status: int, said: str, url: str) -> RemoteError:
    detail = f": {said}" if said else ""
    if status in (409, 412):
        return Conflict("somebody else has pushed there meanwhile", where=url)
    if status == 401:
        return RemoteError(f"the Hub does not know who asks (401){detail}", where=url, hint=_TOKEN_HINT)
    if status == 403:
        return RemoteError(f"the token may not do this (403){detail}", where=url, hint=_TOKEN_HINT)
    if status == 404:
        return RemoteError("there is no such repository, or the token may not see it", where=url, hint=_TOKEN_HINT)
    return RemoteError(f"the Hub answers with {status}{detail}", where=url, passing=status in _PASSING)
