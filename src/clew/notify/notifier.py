"""Hands events on to the journal of a plan, to a file and to a webhook; none of them can fail or delay a run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from clew.logs.logger import Logger
from clew.logs.redaction import Redactor
from clew.logs.secrets import named_in
from clew.notify.config import NotifyConfig
from clew.notify.webhook import Webhook
from clew.runs.files import path_inside
from clew.runs.ids import ulid
from clew.runs.journal import spell_non_finite


class Sink(Protocol):
    """Takes events."""

    def put(self, record: Mapping[str, Any]) -> None:
        """Take an event; returns at once, and may raise OSError."""

    def close(self, seconds: float) -> None:
        """Finish what is under way, within a time."""


class LinesFile:
    """A file with a JSON object a line; safe with several threads, and with several processes where appends are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def put(self, record: Mapping[str, Any]) -> None:
        """Append a line; what a crash has torn before gets a line of its own."""
        line = json.dumps(record, ensure_ascii=False) + "\n"
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b", buffering=0) as stream:
                end = stream.seek(0, 2)
                stream.seek(max(0, end - 1))
                torn = end > 0 and stream.read(1) != b"\n"
                stream.write((b"\n" if torn else b"") + line.encode())

    def close(self, seconds: float) -> None:
        """Nothing is under way."""


class Only:
    """Passes some kinds of events on.

    Args:
        events: The kinds.
        sink: Where to.
    """

    def __init__(self, events: Collection[str], sink: Sink) -> None:
        self._events = frozenset(events)
        self._sink = sink

    def put(self, record: Mapping[str, Any]) -> None:
        """Take an event."""
        if record["event"] in self._events:
            self._sink.put(record)

    def close(self, seconds: float) -> None:
        """Close what is behind."""
        self._sink.close(seconds)


class Notifier:
    """Tells all sinks.

    Args:
        sinks: Who is told.
        linger_seconds: How long :meth:`close` may take.
        complain: Gets a line of text, once, when a sink cannot be written; None means the log.
        redactor: Takes secrets out of what is told; None means one that knows those of the environment.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        linger_seconds: float = 3.0,
        complain: Callable[[str], None] | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._sinks = sinks
        self._linger = linger_seconds
        self._complain = complain or Logger("clew.notify").warning
        self._complained = False
        self._redactor = redactor or Redactor.of()

    def tell(self, event: str, **facts: Any) -> None:
        """Tell everybody, without secrets; a sink that cannot take it is passed over."""
        facts = self._redactor.tree(spell_non_finite(facts))
        record = {"t": round(time.time(), 3), "id": ulid(), "event": event, **facts}
        for sink in self._sinks:
            try:
                sink.put(record)
            except OSError as error:
                self._warn(error)

    def close(self) -> None:
        """Let what is under way end, for a bounded time."""
        deadline = time.monotonic() + self._linger
        for sink in self._sinks:
            sink.close(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Notifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _warn(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self._complain(f"an event could not be told: {error.strerror} ({error.filename})")


def open_notifier(config: NotifyConfig, *, root: Path, journal: Path | None = None) -> Notifier:
    """Make the notifier that a config asks for.

    Args:
        config: Who is told what.
        root: The workspace.
        journal: A file that gets all events, and what became of those that a webhook was told.

    Raises:
        UserError: If an environment variable that the config names is not set, or the file lies outside.
    """
    notes = LinesFile(journal) if journal is not None else None
    sinks: list[Sink] = [notes] if notes else []
    if config.file:
        sinks.append(Only(config.events, LinesFile(path_inside(root, config.file))))
    if config.webhook is not None:
        sinks.append(Only(config.events, Webhook(config.webhook, _reporter(notes))))
    redactor = Redactor.of(names=named_in(asdict(config)))
    return Notifier(sinks, linger_seconds=config.linger_seconds, redactor=redactor)


def _reporter(notes: LinesFile | None) -> Callable[[Mapping[str, Any]], None]:
    def report(outcome: Mapping[str, Any]) -> None:
        if notes is None:
            return
        try:
            notes.put({"t": round(time.time(), 3), "event": "delivery", **outcome})
        except OSError:
            return  # whoever cannot write the journal has said so already

    return report
