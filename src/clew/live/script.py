"""The session of a script: the one that surrounds it, or one that it opens itself.

``python train.py`` makes a run of its own, and this process does its work. ``clew resume``, a fork or a target start
the same script in a worker, which has a session already: then that is the session, and nothing is opened.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clew.errors import RunFailed, UserError
from clew.session import CheckpointConfig, Session
from clew.session.surface import LiveConfig


@dataclass(frozen=True)
class Origin:
    """What it takes to start a script again.

    Attributes:
        script: Its file; None where somebody types, as in a notebook.
        module: Its name, where it was started with ``python -m``.
        argv: Its arguments.
        folder: Where it was started.
    """

    script: Path | None
    module: str = ""
    argv: Sequence[str] = ()
    folder: str = ""

    @classmethod
    def of_process(cls) -> Origin:
        """Return what this process was started with."""
        main = vars(sys.modules["__main__"])
        if not main.get("__file__"):
            return cls(None, folder=str(Path.cwd()))
        spec = main.get("__spec__")
        module = "" if spec is None else str(spec.name).removesuffix(".__main__")
        return cls(Path(main["__file__"]).absolute(), module, tuple(sys.argv[1:]), str(Path.cwd()))


@dataclass(frozen=True)
class Request:
    """What a script says of the run that it wants.

    Attributes:
        name: The run's name; empty means one made from the time.
        params: The script's own numbers and words; another value of one of them is another run.
        seed: Of the sample order.
        notes: Free text.
        track: Trackers, as in a config.
        push: Where to send the run, as in a config.
        checkpoint: When to save.
        live: What the run notes about itself.
        workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.
        origin: What to start again.
    """

    name: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    notes: str = ""
    track: Sequence[Mapping[str, Any]] = ()
    push: Mapping[str, Any] | None = None
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    live: LiveConfig = field(default_factory=LiveConfig)
    workspace: Path | str | None = None
    origin: Origin = field(default_factory=lambda: Origin.of_process())


class _Surrounding:
    """The session in which this script's code runs, and whether the script has it already."""

    def __init__(self, session: Session[Any], *, joined: bool) -> None:
        self.session = session
        self.joined = joined


_SURROUNDING: ContextVar[_Surrounding | None] = ContextVar("clew_session", default=None)


@contextmanager
def surrounded(session: Session[Any]) -> Iterator[None]:
    """Let the session that a script opens in the body be this one."""
    token = _SURROUNDING.set(_Surrounding(session, joined=False))
    try:
        yield
    finally:
        _SURROUNDING.reset(token)


@contextmanager
def open_session(request: Request | None = None, /, **said: Any) -> Iterator[Session[Any]]:
    """Give the session of this script.

    In a process that nobody has started for a run, this makes the run, or finds it again by its name and goes on with
    it; when the body is left it writes how that ended. A run that is stopped then leaves the script with the exit code
    that its worker would have (3 when it was asked to, 4 on a signal), and a notebook just goes on after the body.

    Args:
        request: What the run is to be.
        said: The same, as keywords: the fields of :class:`Request`; a number for ``checkpoint`` saves after so many
            steps.

    Yields:
        The session. Its ``config`` is that of the job ``script``, or of the job that surrounds the script.

    Raises:
        UserError: If the script has had a session already, or another run has that name, or it is at work elsewhere.
    """
    if isinstance(every := said.get("checkpoint"), int):
        said["checkpoint"] = CheckpointConfig(every=every)
    asked = request or Request(**said)
    around = _SURROUNDING.get()
    if around is not None:
        if around.joined:
            raise UserError(
                "this script has opened a session already, and a run is one session",
                where=around.session.run.id,
                hint="a callback, attach_lightning and Trainer open theirs; put other parts into scripts of their own",
            )
        around.joined = True
        yield around.session
        return
    from clew.standalone import standalone

    with standalone(asked) as session:
        token = _SURROUNDING.set(_Surrounding(session, joined=True))
        try:
            yield session
        finally:
            if asked.origin.script is None:  # a cell of a notebook may be run again; a script that is resumed may not
                _SURROUNDING.reset(token)


def newest_metrics(session: Session[Any]) -> dict[str, float]:
    """Return the last value of every metric that a session's run has logged."""
    found: dict[str, float] = {}
    for event in session.events("metric"):
        found.update(event["values"])
    return found


def failed_exit(leaving: SystemExit) -> RunFailed | None:
    """Return what ``sys.exit(...)`` means for a run; None where it means that all is well."""
    if leaving.code is None or leaving.code == 0:
        return None
    said = f"exit code {leaving.code}" if isinstance(leaving.code, int) else str(leaving.code)
    return RunFailed(f"the script ended with {said}")
