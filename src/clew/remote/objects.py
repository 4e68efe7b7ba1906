"""A location at any fsspec URL: objects that are named by their content, and numbered manifests that are written last.

Nothing that a manifest names is ever overwritten, so the state before stays whole until the next one is. The newest two
manifests are kept; an object goes only when the manifest that goes was the last to name it, so what another process is
about to name stays.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clew.errors import UserError, require
from clew.remote.errors import Conflict, RemoteError
from clew.remote.location import Head
from clew.remote.manifest import Manifest

KEPT = 2
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2"})
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class ObjectLocation:
    """A folder of some file system that fsspec knows."""

    url: str
    files: Any
    """An ``fsspec.AbstractFileSystem``."""
    root: str
    repo: str | None = None

    @classmethod
    def of(cls, url: str) -> ObjectLocation:
        """Return the location of a URL.

        Raises:
            UserError: If fsspec knows no such protocol, or lacks the library for it.
        """
        fsspec = require("fsspec", extra="remote")
        try:
            files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            hint = "pip install s3fs brings s3://, gcsfs gs://, adlfs az://"
            raise UserError(f"fsspec cannot open this URL: {error}", where=url, hint=hint) from error
        return cls(url, files, root.rstrip("/"))

    def head(self) -> Head | None:
        """Return the newest manifest that is whole."""
        return next(self._heads(), None)

    def commit(
        self, manifest: Manifest, sources: Mapping[str, Path], before: Head | None, *, everything: bool = False
    ) -> Head:
        """Write the objects that are missing, then the next manifest."""
        newest = self.head()
        if newest != before:
            raise Conflict("somebody else has pushed there meanwhile", where=self.url)
        present = {} if everything else self._sizes()
        with _explained(self.url):
            self._make("objects")
            for path, source in sources.items():
                entry = manifest.files[path]
                # A kill while a file is written may leave the first part of it under its name.
                if present.get(entry.sha256) != entry.bytes:
                    self.files.put_file(str(source), self._object(entry.sha256))
                    present[entry.sha256] = entry.bytes
            number = max(self._numbers(), default=0) + 1
            self._create(self._numbered(number), manifest.to_text().encode())
        self._prune()
        return Head(str(number), manifest)

    def fetch(self, head: Head, path: str, target: Path) -> None:
        """Copy the object of a path."""
        assert head.manifest is not None, "only manifests name what is here"
        with _explained(self.url):
            self.files.get_file(self._object(head.manifest.files[path].sha256), str(target))

    def listing(self, head: Head) -> dict[str, str]:
        """Return the paths of a state and their digests."""
        return {path: entry.digest for path, entry in head.manifest.files.items()} if head.manifest else {}

    def _heads(self) -> Iterator[Head]:
        """Yield whole states, the newest first; a manifest that was cut off while it was written is none."""
        for number in sorted(self._numbers(), reverse=True):
            with _explained(self.url):
                try:
                    text = self.files.cat_file(self._numbered(number)).decode()
                except FileNotFoundError:
                    continue  # it was pruned while we looked
            if text.endswith("\n}\n"):  # only the last brace stands at the start of a line
                yield Head(str(number), Manifest.from_text(text, self.url))

    def _numbers(self) -> list[int]:
        names = [Path(name).name.removesuffix(".json") for name in self._ls("manifests")]
        return [int(name) for name in names if name.isdigit()]

    def _sizes(self) -> dict[str, int]:
        return {Path(name).name: size for name, size in self._ls("objects").items()}

    def _ls(self, folder: str) -> dict[str, int]:
        with _explained(self.url):
            try:
                found = self.files.ls(f"{self.root}/{folder}", detail=True, refresh=True)
            except FileNotFoundError:
                return {}
        return {item["name"]: item["size"] for item in found}

    def _make(self, folder: str) -> None:
        """Make a folder, but not where there are none: a bucket would be made for every slip of the pen."""
        if not self._protocols & _BUCKETS:
            self.files.makedirs(f"{self.root}/{folder}", exist_ok=True)

    @property
    def _protocols(self) -> set[str]:
        said = self.files.protocol
        return {said} if isinstance(said, str) else set(said)

    def _create(self, path: str, content: bytes) -> None:
        """Write a file that must not exist yet, as atomically as the file system can."""
        self._make("manifests")
        try:
            if "file" in self._protocols:  # fsspec looks first and writes then; the kernel does both at once
                with Path(path).open("xb") as stream:
                    stream.write(content)
            else:
                self.files.pipe_file(path, content, mode="create")
        except FileExistsError:
            raise Conflict("somebody else has pushed there meanwhile", where=self.url) from None

    def _prune(self) -> None:
        """Remove old manifests, and what only they name."""
        heads = [(head.revision, head.manifest) for head in self._heads()]
        named = {entry.sha256 for _, manifest in heads[:KEPT] if manifest for entry in manifest.files.values()}
        oldest = int(heads[KEPT - 1][0]) if len(heads) >= KEPT else 0
        gone = {entry.sha256 for _, manifest in heads[KEPT:] if manifest for entry in manifest.files.values()}
        with _explained(self.url):
            for sha256 in gone - named:
                self._remove(self._object(sha256))
            for number in self._numbers():
                if number < oldest:
                    self._remove(self._numbered(number))

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # another process prunes, too
            self.files.rm_file(path)

    def _object(self, sha256: str) -> str:
        return f"{self.root}/objects/{sha256}"

    def _numbered(self, number: int) -> str:
        return f"{self.root}/manifests/{number:08d}.json"


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what a file system raises into one sentence; a full disk here is left to whoever knows what was written."""
    try:
        yield
    except (RemoteError, OSError) as error:
        if isinstance(error, RemoteError) or error.errno in NO_SPACE:
            raise
        raise _explain(error, url) from error
    except Exception as error:  # botocore and its kind have hierarchies of their own
        raise _explain(error, url) from error


def _explain(error: Exception, url: str) -> RemoteError:
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        hint = "credentials come from the environment, as the library of this protocol wants them"
        return RemoteError(f"the location may not be used: {said}", where=url, hint=hint)
    if isinstance(error, FileNotFoundError):
        return RemoteError(f"it is not there: {said}", where=url)
    passing = isinstance(error, TimeoutError | ConnectionError) or "Connect" in type(error).__name__
    return RemoteError(f"the location cannot be used: {said}", where=url, passing=passing)
