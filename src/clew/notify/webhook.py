"""A webhook: POST requests from a thread of its own, so that nobody ever waits for the other side."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from clew.errors import UserError
from clew.notify.config import WebhookConfig, check_url

SIGNATURE = "X-Clew-Signature"
MAX_WAIT_SECONDS = 60.0
_PASSING = frozenset({408, 425, 429})
"""Answers in the 400s that another request may not get; those in the 500s pass anyway."""

Report = Callable[[Mapping[str, Any]], None]


def sign(body: bytes, secret: str) -> str:
    """Return the signature of a request: HMAC-SHA256 (RFC 2104) of its body, in hexadecimal after ``sha256=``."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class Webhook:
    """Delivers events in their order, one after the other.

    Args:
        config: Where to and how often.
        report: Is told in the thread what became of each event: ``{id, event, delivered, tries, reason}``.

    Raises:
        UserError: If an environment variable that the config names is not set, or holds no address.
    """

    def __init__(self, config: WebhookConfig, report: Report) -> None:
        self._config = config
        self._report = report
        self._url = config.url or _variable(config.url_env, "url_env")
        try:
            check_url(self._url)
        except ValueError as error:
            raise UserError(str(error), where=f"notify.webhook.url_env ({config.url_env})") from None
        self._secret = _variable(config.secret_env, "secret_env") if config.secret_env else ""
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._queue: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._deadline: float | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, record: Mapping[str, Any]) -> None:
        """Take an event; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver_all, name="clew-webhook", daemon=True)
            self._thread.start()
        self._queue.put(record)

    def close(self, seconds: float) -> None:
        """Wait at most so long for what is under way, and let the rest go."""
        if self._thread is None:
            return
        self._deadline = time.monotonic() + seconds
        self._closing.set()
        self._queue.put(None)
        self._thread.join(seconds)

    def _deliver_all(self) -> None:
        while (record := self._queue.get()) is not None:
            reason, tries = self._deliver(record)
            self._report({**_named(record), "delivered": not reason, "tries": tries, "reason": reason})

    def _deliver(self, record: Mapping[str, Any]) -> tuple[str, int]:
        """Return why an event was not delivered (empty when it was), and the number of requests."""
        body = json.dumps(record, ensure_ascii=False).encode()
        for tries in range(1, self._config.attempts + 1):
            reason, passes = self._post(record, body)
            if not reason or not passes or tries == self._config.attempts:
                return reason, tries
            if not self._pause(min(self._config.wait_seconds * 2 ** (tries - 1), MAX_WAIT_SECONDS)):
                return f"{reason}; the pipeline was over before another try", tries
        raise AssertionError("there is at least one attempt")

    def _pause(self, seconds: float) -> bool:
        """Wait before another request; False when there is no time for it any more."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._deadline is not None:
                if end > self._deadline:
                    return False
                time.sleep(left)
            else:
                self._closing.wait(left)
        return True

    def _post(self, record: Mapping[str, Any], body: bytes) -> tuple[str, bool]:
        """Send one request; return why it failed (empty when it did not), and whether that can pass."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "clew",
            "X-Clew-Event": str(record["event"]),
            "X-Clew-Delivery": str(record["id"]),
        }
        if self._secret:
            headers[SIGNATURE] = sign(body, self._secret)
        # check_url has seen to it that this is http or https.
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310
        try:
            self._opener.open(request, timeout=self._config.timeout_seconds).close()
        except urllib.error.HTTPError as error:
            error.close()
            return f"HTTP {error.code}", error.code >= 500 or error.code in _PASSING
        except urllib.error.URLError as error:
            return _words(error.reason), True
        except (OSError, http.client.HTTPException) as error:
            return _words(error), True
        except ValueError as error:  # such as a line break in the address
            return _words(error), False
        return "", False


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A signed message goes where the config says and nowhere else."""

    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        """Follow nothing: the answer in the 300s then counts as a failure."""
        return


def _variable(name: str, key: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise UserError(
            f"the environment variable {name!r} is not set", where=f"notify.webhook.{key}", hint=f"export {name}=..."
        )
    return value


def _named(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": record["id"], "of": record["event"]}


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__ if isinstance(error, Exception) else str(error)
