"""A stand-in for the Hub: the part of its HTTP interface that pushes and pulls use, in memory, on loopback.

No Hub can be had where the tests run, so this speaks what the real client asks for. Written from the client's source,
huggingface_hub 2.4.0: ``hf_api.py`` (create_repo, create_branch, model_info, list_repo_tree, create_commit,
preupload_lfs_files, _validate_yaml), ``_commit_api.py`` (preupload, payload of a commit), ``lfs.py`` (batch, basic
upload, verify), ``file_download.py`` (HEAD and GET of ``resolve``, its headers and the redirect to large files),
``utils/_http.py`` (error headers) and ``utils/_pagination.py``. Left out: Xet (the client is told HF_HUB_DISABLE_XET),
uploads of large files in parts, pull requests, datasets and spaces, rate limits.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITE, READ = "hf_write", "hf_read"
PAGE = 40
LARGE_BYTES = 100_000
LARGE_SUFFIXES = (".safetensors", ".bin", ".gguf")


@dataclass(frozen=True)
class Blob:
    """One file of a commit."""

    content: bytes
    large: bool

    @property
    def git_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Repo:
    """A repository: trees by commit, commits by branch."""

    private: bool = False
    trees: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, tree: dict[str, Blob], message: str) -> str:
        oid = hashlib.sha1(f"{len(self.trees)}{message}{sorted(tree)}".encode()).hexdigest()
        self.trees[oid] = tree
        self.branches[branch] = oid
        self.messages.append(message)
        return oid

    @property
    def files(self) -> dict[str, Blob]:
        """What is on main."""
        return self.trees[self.branches["main"]]


class Answer(Exception):
    """Ends the handling of a request."""

    def __init__(self, status: int, body: Any = None, *, code: str = "", message: str = "", **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if code:
            self.headers["X-Error-Code"] = code
        if message:
            self.headers["X-Error-Message"] = message


class Dropped(Exception):
    """Ends a connection without an answer, as a machine that dies does."""


class Hub:
    """The state of the server, and what a test wants to go wrong."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.uploaded: list[str] = []
        """Large files whose content came over the wire."""
        self.before: Callable[[str, str], None] = lambda method, path: None
        """Called with each request, before anything else; it may raise an Answer or Dropped, or wait."""
        self.lock = threading.Lock()
        self.endpoint = self.elsewhere = ""
        """Its address, and the one for large files, which the client must not show its token."""

    def fail(self, pattern: str, *answers: Exception) -> None:
        """Let the next requests whose method and path match end like this, one after the other."""
        waiting = list(answers)

        def before(method: str, path: str) -> None:
            if waiting and re.search(pattern, f"{method} {path}"):
                raise waiting.pop(0)

        self.before = before

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, f"{method} {path}") is not None for method, path in self.requests)


ROUTES: list[tuple[str, str, str]] = [
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<name>[^/]+)", "branch"),
    ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+?)(/revision/(?P<revision>[^/]+))?", "info"),
    ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)", "tree"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/large/(?P<oid>[0-9a-f]{64})", "upload"),
    ("GET", r"/large/(?P<oid>[0-9a-f]{64})", "download"),
    ("POST", r"/verify", "verify"),
    ("(GET|HEAD)", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    hub: Hub

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        try:
            self.hub.requests.append((self.command, url.path))
            body = self.read_body()
            self.hub.before(self.command, url.path)
            with self.hub.lock:
                self.route(url.path, parse_qs(url.query), body)
        except Answer as answer:
            self.answer(answer)
        except Dropped:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        for method, pattern, name in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and re.fullmatch(method, self.command):
                known = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                getattr(self, name)(query=query, body=body, **known)
        raise Answer(404)

    def answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None: ...

    # Who asks, and for what.

    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def known(self, name: str, *, write: bool = False) -> Repo:
        repo, token = self.hub.repos.get(name), self.token()
        if token and token not in (WRITE, READ):
            raise Answer(401, message="Invalid credentials in Authorization header")
        if repo is None or (repo.private and not token):
            raise Answer(404 if token else 401, code="RepoNotFound", message="Repository not found")
        if write and token != WRITE:
            raise Answer(403 if token else 401, message="You don't have the rights to do this")
        return repo

    def at(self, repo: Repo, revision: str) -> str:
        oid = repo.branches.get(revision, revision)
        if oid not in repo.trees:
            raise Answer(404, code="RevisionNotFound", message=f"Invalid rev id: {revision}")
        return oid

    # Repositories.

    def create(self, body: bytes, **_: Any) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if self.token() != WRITE:
            raise Answer(403 if self.token() else 401, message="You don't have the rights to create a model")
        if name in self.hub.repos:
            raise Answer(409, {"url": f"{self.hub.endpoint}/{name}"}, message="You already created this model repo")
        repo = self.hub.repos[name] = Repo(private=wanted.get("visibility") == "private")
        repo.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", large=False)}, "initial commit")
        raise Answer(200, {"url": f"{self.hub.endpoint}/{name}", "id": name})

    def branch(self, repo: str, name: str, **_: Any) -> None:
        found = self.known(repo, write=True)
        if name in found.branches:
            raise Answer(409, message="Reference already exists")
        found.branches[name] = found.branches["main"]
        raise Answer(201)

    def info(self, repo: str, revision: str = "main", **_: Any) -> None:
        found = self.known(repo)
        raise Answer(200, {"id": repo, "sha": self.at(found, revision), "private": found.private})

    def tree(self, repo: str, revision: str, query: dict[str, list[str]], **_: Any) -> None:
        found = self.known(repo)
        files = sorted(found.trees[self.at(found, revision)].items())
        start = int(query.get("cursor", ["0"])[0])
        link = {}
        if start + PAGE < len(files):
            url = f"{self.hub.endpoint}/api/models/{repo}/tree/{revision}?recursive=True&cursor={start + PAGE}"
            link = {"Link": f'<{url}>; rel="next"'}
        raise Answer(200, [_tree_item(path, blob) for path, blob in files[start : start + PAGE]], **link)

    # Uploads.

    def validate(self, body: bytes, **_: Any) -> None:
        text = json.loads(body)["content"]
        warnings = [] if text.startswith("---\n") else [{"message": "empty or missing yaml metadata in repo card"}]
        raise Answer(200, {"errors": [], "warnings": warnings})

    def preupload(self, repo: str, revision: str, body: bytes, **_: Any) -> None:
        found = self.known(repo, write=True)
        tree = found.trees[self.at(found, revision)]
        raise Answer(200, {"files": [_preupload_item(file, tree) for file in json.loads(body)["files"]]})

    def batch(self, repo: str, body: bytes, **_: Any) -> None:
        self.known(repo, write=True)
        raise Answer(
            200, {"transfer": "basic", "objects": [self.batch_item(one) for one in json.loads(body)["objects"]]}
        )

    def batch_item(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.hub.large:
            return wanted
        upload = {"href": f"{self.hub.endpoint}/large/{wanted['oid']}"}
        return {**wanted, "actions": {"upload": upload, "verify": {"href": f"{self.hub.endpoint}/verify"}}}

    def upload(self, oid: str, body: bytes, **_: Any) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Answer(400, message="the content is not what it was said to be")
        self.hub.large[oid] = body
        self.hub.uploaded.append(oid)
        raise Answer(200)

    def verify(self, body: bytes, **_: Any) -> None:
        raise Answer(200 if json.loads(body)["oid"] in self.hub.large else 404)

    def commit(self, repo: str, revision: str, body: bytes, **_: Any) -> None:
        found = self.known(repo, write=True)
        if revision not in found.branches:
            raise Answer(404, code="RevisionNotFound")
        lines = [json.loads(line) for line in body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, found.branches[revision]):
            raise Answer(412, message="A commit has happened since. Please refresh and try again.")
        tree = dict(found.trees[found.branches[revision]])
        for line in lines:
            self.apply(line["key"], line["value"], tree)
        oid = found.commit(revision, tree, header["summary"])
        raise Answer(200, {"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{oid}", "commitOid": oid})

    def apply(self, key: str, value: dict[str, Any], tree: dict[str, Blob]) -> None:
        if key == "file":
            tree[value["path"]] = Blob(base64.b64decode(value["content"]), large=False)
        elif key == "lfsFile":
            if value["oid"] not in self.hub.large:
                raise Answer(400, message="LFS pointer pointed to a file that does not exist")
            tree[value["path"]] = Blob(self.hub.large[value["oid"]], large=True)
        elif key == "deletedFile":
            if value["path"] not in tree:
                raise Answer(404, code="EntryNotFound", message="A file with this name doesn't exist")
            del tree[value["path"]]

    # Downloads.

    def resolve(self, repo: str, revision: str, path: str, **_: Any) -> None:
        found = self.known(repo)
        oid = self.at(found, revision)
        blob = found.trees[oid].get(path)
        if blob is None:
            raise Answer(404, code="EntryNotFound", message="Entry not found", X_Repo_Commit=oid)
        size = str(len(blob.content))
        if blob.large:
            headers = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": size, "X-Repo-Commit": oid}
            raise Answer(302, b"", Location=f"{self.hub.elsewhere}/large/{blob.sha256}", **headers)
        raise Answer(200, blob.content, ETag=f'"{blob.git_id}"', X_Repo_Commit=oid, Content_Length=size)

    def download(self, oid: str, **_: Any) -> None:
        raise Answer(200, self.hub.large[oid])


def _tree_item(path: str, blob: Blob) -> dict[str, Any]:
    item = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.git_id}
    return {**item, "lfs": {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}} if blob.large else item


def _preupload_item(file: dict[str, Any], tree: dict[str, Blob]) -> dict[str, Any]:
    large = file["path"].endswith(LARGE_SUFFIXES) or file["size"] > LARGE_BYTES
    there = tree.get(file["path"])
    oid = None if there is None else there.sha256 if there.large else there.git_id
    return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """Serve an empty Hub until the body ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    server.block_on_close = False
    hub.endpoint, hub.elsewhere = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(hub: Hub) -> dict[str, str]:
    """What lets the client of another process talk to it."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": WRITE,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
