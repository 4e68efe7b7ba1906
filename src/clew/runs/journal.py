"""The journal: append-only events, one JSON line each, one file for each (attempt, rank), one writer for each file.

Lines are valid JSON everywhere: numbers that are not finite are written as the strings ``nan``, ``inf``, ``-inf``,
which ``float()`` reads back. A torn last line (a crash in mid-write) is skipped by readers.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clew.runs.files import sync_directory

Event = dict[str, Any]

FLUSH_SECONDS = 1.0
# Made once: json.dumps with options builds a new encoder for every line.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
# Half the time of json.loads, which guesses the encoding of bytes and looks for blanks with regular expressions.
_DECODER = json.JSONDecoder()


class JournalWriter:
    """Appends events to one file; thread-safe.

    What is written waits in memory for the next flush, which a thread of its own brings about once a second. So
    whoever writes waits neither for a disk nor, with metrics, for their encoding. What a full disk does not take stays
    in memory for the next flush, and the next write says so.

    Args:
        folder: The run's ``journal`` directory.
        attempt: Number of the attempt, from 1.
        rank: Rank of the process.
        clock: Gives Unix seconds.
    """

    def __init__(self, folder: Path, attempt: int, rank: int = 0, *, clock: Callable[[], float] = time.time) -> None:
        self.path = folder / f"{attempt}-{rank}.jsonl"
        self._clock = clock
        self._dumps = _quick_dumps()
        self._lock = threading.Lock()
        self._stream = self.path.open("ab", buffering=0)
        self._waiting: deque[bytes | tuple[float, int, dict[str, float]]] = deque()
        self._left = b""
        self._stuck = False
        self._is_named = False
        self._closed = threading.Event()
        self._flusher = threading.Thread(target=self._keep_flushing, name="clew-journal", daemon=True)
        self._flusher.start()

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event; it reaches the file within a second, or at :meth:`flush`.

        Raises:
            OSError: If the disk does not take what was written before.
        """
        if self._stuck:
            self.flush()
        self._waiting.append(encode({"t": round(self._clock(), 4), "kind": kind, **fields}).encode())

    def write_metrics(self, step: int, values: dict[str, float]) -> None:
        """Append a step's metrics, as :meth:`write` does but quicker: a training loop waits for it.

        Args:
            step: The number of finished steps.
            values: Not to be changed any more by the caller: it is encoded later.
        """
        if self._stuck:
            self.flush()
        self._waiting.append((self._clock(), step, values))

    def flush(self, *, sync: bool = False) -> None:
        """Hand everything to the operating system and, with ``sync``, to the disk.

        Raises:
            OSError: If it does not take everything; the rest is tried again at the next flush.
        """
        with self._lock:
            try:
                try:
                    self._take()
                finally:
                    self._hand_over(sync)
            except BaseException:
                self._stuck = True
                raise
            self._stuck = False

    def close(self) -> None:
        """Sync and close the file."""
        self._closed.set()
        self._flusher.join()
        try:
            self.flush(sync=True)
        finally:
            self._stream.close()

    def _take(self) -> None:
        """Encode what is waiting; others may go on adding to it meanwhile. What cannot be encoded stays in front."""
        lines: list[bytes] = []
        try:
            for _ in range(len(self._waiting)):
                item = self._waiting[0]
                lines.append(item if isinstance(item, bytes) else self._metrics(*item))
                self._waiting.popleft()
        finally:
            self._left += b"".join(lines)

    def _hand_over(self, sync: bool) -> None:
        while self._left:
            self._left = self._left[self._stream.write(self._left) :]
        if sync:
            os.fsync(self._stream.fileno())
            if not self._is_named:  # a file that was synced is lost all the same if its name is
                sync_directory(self.path.parent)
                self._is_named = True

    def _metrics(self, seconds: float, step: int, values: dict[str, float]) -> bytes:
        event = {"t": round(seconds, 4), "kind": "metric", "step": step, "values": values}
        # A sum that is finite has finite terms only; orjson would write null for others.
        if self._dumps is None or not math.isfinite(sum(values.values())):
            return encode(event).encode()
        try:
            return self._dumps(event) + b"\n"
        except TypeError:  # what only the standard library can write, such as huge integers
            return encode(event).encode()

    def _keep_flushing(self) -> None:
        """Onlookers see what happened also while nothing more happens, such as during a long validation."""
        while not self._closed.wait(FLUSH_SECONDS):
            # What goes wrong, such as a full disk, shows at the next write of the run itself, where it can be reported.
            with contextlib.suppress(Exception):
                self.flush()


def _quick_dumps() -> Callable[[Event], bytes] | None:
    """Return orjson's encoder, which takes a tenth of the standard library's time for floats; None without it."""
    try:
        import orjson
    except ImportError:
        return None
    return orjson.dumps


def encode(event: Event) -> str:
    """Return ``event`` as one line of JSON."""
    try:
        return _ENCODER.encode(event) + "\n"
    except ValueError:
        return _ENCODER.encode(spell_non_finite(event)) + "\n"


def spell_non_finite(value: Any) -> Any:
    """Replace numbers that JSON does not have by their names, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: spell_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [spell_non_finite(item) for item in value]
    return value


def decode(line: bytes) -> Event | None:
    """Return the event of one line; None for a torn or damaged one."""
    try:
        text = line.decode("utf-8", "surrogatepass").strip(" \t\r\n")
        event, end = _DECODER.raw_decode(text)
    except ValueError:
        return None
    return event if isinstance(event, dict) and end == len(text) else None


class JournalTail:
    """Reads the events that have been added since the last :meth:`poll`, in every file of a journal.

    Args:
        folder: The run's ``journal`` directory.
        offsets: Where to begin: the bytes of each file that were read before, from :attr:`offsets`.
    """

    def __init__(self, folder: Path, offsets: Mapping[str, int] | None = None) -> None:
        self._folder = folder
        self.offsets = dict(offsets or {})

    def poll(self, limit: float = math.inf) -> list[Event]:
        """Return new whole events, each with its ``attempt`` and ``rank``; with a limit at most so many of them."""
        events: list[Event] = []
        for path, attempt, rank in journal_files(self._folder):
            with path.open("rb") as stream:
                stream.seek(self.offsets.get(path.name, 0))
                for line in stream:
                    if len(events) >= limit or not line.endswith(b"\n"):
                        break
                    self.offsets[path.name] = self.offsets.get(path.name, 0) + len(line)
                    if (event := decode(line)) is not None:
                        events.append({**event, "attempt": attempt, "rank": rank})
        return events


def journal_files(folder: Path) -> list[tuple[Path, int, int]]:
    """Return ``(path, attempt, rank)`` for each journal file, in the order of attempts, then ranks."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):  # noqa: PTH208 - of ten thousand runs: a glob takes ten times as long
            attempt, _, rank = name.removesuffix(".jsonl").partition("-")
            if name.endswith(".jsonl") and attempt.isdigit() and rank.isdigit():
                found.append((folder / name, int(attempt), int(rank)))
    return sorted(found, key=lambda item: item[1:])


@dataclass(frozen=True)
class Beginning:
    """How an attempt began.

    Attributes:
        step: The step that it went on from; None when it ended before it knew.
        back: The step to which the run went back before; None when it just went on.
        contained: The commands of that very step which count still.
    """

    step: int | None = None
    back: int | None = None
    contained: frozenset[str] = frozenset()

    def undoes(self, event: Event) -> bool:
        """Whether an event of an earlier attempt is a command that counts no longer: the run went back to before it."""
        at = event.get("at")
        if self.back is None or event.get("kind") != "command" or not isinstance(at, int):
            return False
        return at > self.back or (at == self.back and event.get("id") not in self.contained)


def read_events(folder: Path, kinds: frozenset[str] | None = None, *, until: int | None = None) -> Iterator[Event]:
    """Yield a run's events as they count now.

    An attempt that restored the state of step *k* does the later steps again, so events of earlier attempts with a
    ``step`` above *k* are superseded and left out. Where the run went back to an earlier checkpoint on purpose,
    commands that came after it are left out as well.

    Args:
        folder: The run's ``journal`` directory.
        kinds: Only these kinds; None means all.
        until: As they counted when this attempt was the last one; None means now.
    """
    files = [one for one in journal_files(folder) if until is None or one[1] <= until]
    begun = beginnings(files)
    limits = _limits(files, begun)
    needles = _needles(kinds)
    for path, attempt, rank in files:
        limit = limits[attempt]
        backs = [one for number, one in begun.items() if number > attempt and one.back is not None]
        with path.open("rb") as stream:
            for line in stream:
                if needles and not any(needle in line for needle in needles):
                    continue
                event = decode(line)
                if event is None or (kinds is not None and event.get("kind") not in kinds):
                    continue
                step = event.get("step")
                if isinstance(step, int) and step > limit:
                    continue
                if backs and any(one.undoes(event) for one in backs):
                    continue
                event["attempt"] = attempt
                event["rank"] = rank
                yield event


def _needles(kinds: frozenset[str] | None) -> list[bytes]:
    """Return what lines of these kinds must hold: most others need not be decoded. Empty when nothing can be said."""
    spelled = [_ENCODER.encode(kind) for kind in kinds or ()]
    return [text.encode() for text in spelled] if all(text.isascii() for text in spelled) else []


def step_limits(files: list[tuple[Path, int, int]]) -> dict[int, float]:
    """For each attempt, the last step that no later attempt does again."""
    return _limits(files, beginnings(files))


def beginnings(files: list[tuple[Path, int, int]]) -> dict[int, Beginning]:
    """Return how each attempt began, as its first rank tells."""
    return {attempt: _beginning(path) for path, attempt, rank in files if rank == 0}


def _limits(files: list[tuple[Path, int, int]], begun: Mapping[int, Beginning]) -> dict[int, float]:
    limits: dict[int, float] = {}
    limit = math.inf
    for attempt in sorted({attempt for _, attempt, _ in files}, reverse=True):
        limits[attempt] = limit
        one = begun.get(attempt, Beginning())
        limit = min([limit, *(step for step in (one.step, one.back) if step is not None)])
    return limits


def _beginning(path: Path) -> Beginning:
    begun = Beginning()
    with path.open("rb") as stream:
        for line in stream:
            if not (b'"restore"' in line or b'"went_back"' in line) or (event := decode(line)) is None:
                continue
            kind, step, to = event.get("kind"), event.get("step"), event.get("to")
            if kind == "restore" and isinstance(step, int):
                return replace(begun, step=step)
            if kind == "went_back" and isinstance(to, int) and begun.back is None:
                inside = event.get("contained")
                begun = Beginning(back=to, contained=frozenset(map(str, inside if isinstance(inside, list) else ())))
    return begun
