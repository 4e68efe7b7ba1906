"""The session of every rank but the first: it does what the first one says, and writes nothing of its own."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from clew.errors import UserError
from clew.runs import Run, State
from clew.session.joint import capable_of_snapshots
from clew.session.ranks import Channel, Ranks
from clew.session.session import Session
from clew.session.settings import write
from clew.session.surface import (
    Checkable,
    CheckpointConfig,
    Digestible,
    Evaluable,
    LiveConfig,
    Resettable,
    RunStopped,
    Scorable,
    Selectable,
    Surface,
    capable,
    settings_of,
)

ConfigT = TypeVar("ConfigT")


class Helping(Session[ConfigT]):
    """One attempt at a run of several ranks, in any but the first.

    Args:
        run: The run's directory.
        config: The job's hydrated config.
        attempt: Number of this attempt, which the first rank has claimed.
        ranks: All of them.
        tell: ``tell(signal)`` passes a termination signal on to the first rank.
    """

    def __init__(self, run: Run, config: ConfigT, attempt: int, *, ranks: Ranks, tell: Callable[[str], None]) -> None:
        super().__init__(run, config, attempt)
        self.ranks = ranks
        self._tell = tell
        self._told = False
        self._channel = Channel(ranks.store, "main", ranks, self._pass_on)
        self._beside = Beside(ranks)
        self._surface: Surface | None = None
        self._meeting = 0

    def _take_up(self, run: Run, attempt: int) -> None:
        """Nothing of a run is this process's own."""
        self.run = run
        self.attempt = attempt
        self.artifacts = {}

    def __enter__(self) -> Helping[ConfigT]:
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or issubclass(kind, RunStopped):
                # The first rank may still wait for this one's part of a checkpoint.
                while self._channel.hear()["do"] != "end":
                    pass
        finally:
            self._beside.close()
            self._signals.__exit__(kind, error, trace)

    # What a job says, which the first rank's says as well.

    def log(self, step: int, /, metrics: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Leave it to the first rank."""

    def event(self, kind: str, **fields: Any) -> None:
        """Leave it to the first rank."""

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the run's events of a kind, as far as they are written."""
        return list(self.run.events(kind))

    def horizon(self, total: int, unit: str = "step") -> None:
        """Leave it to the first rank."""

    @contextmanager
    def artifact(self, name: str) -> Iterator[Path]:
        """Give a path for what nobody keeps: the first rank's is published."""
        with tempfile.TemporaryDirectory(prefix="clew-") as folder:
            yield Path(folder) / name

    # What the first rank decides.

    def attach(self, surface: Surface, policy: CheckpointConfig | None = None, live: LiveConfig | None = None) -> int:
        """Hand the trainer over to the first rank's session; return the finished steps that it has restored."""
        self._surface = surface
        self._live = live or self._live
        return self._serve()

    def checkpoint(self, step: int, *, metric: float | None = None) -> None:
        """Write this rank's part, if the first one saves."""
        self._serve()

    def settled(self) -> Run:
        """Return the run."""
        return self.run

    def rescue(self, step: int, error: Exception) -> None:
        """Meet the others at this step, or fail with them."""
        if self._live.on_nan == "stop":
            raise error
        self._meeting = step

    def due(self, step: int) -> bool:
        """Say whether all ranks meet at this step."""
        self._pass_on()
        return step >= self._meeting

    def boundary(self, step: int, *, metric: float | None = None) -> None:
        """Do what the first rank says, if all meet at this step.

        Raises:
            RunStopped: When the run is to end here.
        """
        if self.due(step):
            self._serve()

    def _serve(self) -> int:
        """Do what is said until the training may go on, and return the step at which it stands."""
        while True:
            word = self._channel.hear()
            if word["do"] == "on":  # after a meeting, or a save that the job asked for
                self._meeting = word["meeting"]
                return int(word["step"])
            if word["do"] == "stop":
                raise RunStopped(State(word["state"]), word["reason"], word["step"])
            try:
                self._do(**word)
            except Exception as error:
                self._channel.answer(error)
            else:
                self._channel.answer()

    def _do(self, do: str, **given: Any) -> None:
        surface = self._surface
        assert surface is not None
        if do == "save":
            surface.save(Path(given["directory"]))
        elif do == "load":
            surface.load(Path(given["directory"]))
        elif do == "snapshot":
            self._beside.keep(given["number"], capable_of_snapshots(surface).snapshot())
        elif do == "set":
            write(settings_of(surface), {given["name"]: given["value"]})
        elif do == "evaluate":
            capable(surface, Evaluable).evaluate()
        elif do == "digests":
            capable(surface, Digestible).digests()
        elif do == "health":
            capable(surface, Checkable).health()
        elif do == "select":
            from clew.inspection.stored import load  # needs numpy

            capable(surface, Selectable).select(load(self.run.path, given["stored"]).selection)
        elif do == "score":
            import numpy as np

            ids = np.array(given["ids"], dtype=np.int64)
            capable(surface, Scorable).scorer(given["split"]).score(ids)
        elif do == "reset":
            folder = None if given["checkpoint"] is None else Path(given["checkpoint"])
            capable(surface, Resettable).reset(folder, optimizer=given["optimizer"])
        else:
            raise UserError(f"this rank does not know {do!r}")

    def _pass_on(self) -> None:
        if self._signals.received and not self._told:
            self._told = True
            self._tell(self._signals.received)


class Beside:
    """Writes this rank's part of snapshots while the training goes on.

    Args:
        ranks: Which process this is; the thread of the first rank that does the same is at the other end.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._channel = Channel(ranks.clone(), "beside", ranks, self._look_up)
        self._kept: dict[int, Callable[[Path], None]] = {}
        self._thread = threading.Thread(target=self._write, name="clew-beside", daemon=True)
        self._closed = threading.Event()

    def keep(self, number: int, snapshot: Callable[[Path], None]) -> None:
        """Keep a snapshot until the first rank says where to write it, or writes a later one."""
        self._kept[number] = snapshot
        if not self._thread.is_alive():
            self._thread.start()

    def close(self) -> None:
        """Write nothing more."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _write(self) -> None:
        with suppress(_Closed):
            while True:
                word = self._channel.hear()
                write = self._kept.pop(word["number"])
                for number in [number for number in self._kept if number < word["number"]]:
                    del self._kept[number]  # given up
                try:
                    write(Path(word["directory"]))
                except Exception as error:
                    self._channel.answer(error)
                else:
                    self._channel.answer()
                del write

    def _look_up(self) -> None:
        if self._closed.is_set():
            raise _Closed


class _Closed(Exception):
    """Nothing more is to be written."""
