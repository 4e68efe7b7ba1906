"""A server that takes what W&B's own client (wandb 0.31) sends for a run: it was made by looking at its requests.

It keeps one run: the rows of its history at the offsets at which they come, and its summary.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PROJECT = {"id": "p", "name": "clew", "entity": {"id": "e", "name": "me"}}


class WandBServer(ThreadingHTTPServer):
    """The server and what it has been told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.run = ""
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed leave without a word."""

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "RunResumeStatus" in query:
            return {"model": {**_PROJECT, "bucket": self._bucket() if self.run else None}}
        if "upsertBucket" in query:
            self.run = variables["name"]
            bucket = {"id": "r", "name": self.run, "project": _PROJECT, "historyLineCount": len(self.rows)}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        return {}

    def take(self, files: dict[str, Any]) -> None:
        if history := files.get("wandb-history.jsonl"):
            self.rows[history["offset"] :] = map(json.loads, history["content"])
        if summary := files.get("wandb-summary.json"):
            self.summary = json.loads(summary["content"][-1])

    def _bucket(self) -> dict[str, Any]:
        tail = json.dumps([json.dumps(row) for row in self.rows[-1:]])
        counts = {"logLineCount": 0, "historyLineCount": len(self.rows), "eventsLineCount": 0}
        texts = {"summaryMetrics": json.dumps(self.summary), "historyTail": tail, "eventsTail": "[]", "config": "{}"}
        return {"id": "r", "name": self.run, "tags": [], "wandbConfig": '{"t": {}}', **counts, **texts}


class _Handler(BaseHTTPRequestHandler):
    server: WandBServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self._reply({})

    def do_POST(self) -> None:
        said = json.loads(self._body())
        if self.path == "/graphql":
            self._reply({"data": self.server.answer(said["query"], said.get("variables") or {})})
        else:
            self.server.take(said.get("files") or {})
            self._reply({"limits": {}})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _reply(self, value: dict[str, Any]) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextmanager
def wandb_server() -> Iterator[WandBServer]:
    """Serve while the body runs."""
    with WandBServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
