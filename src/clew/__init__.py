"""Clew: one workbench for language-model runs.

The public names are loaded when they are first used, so that ``import clew`` and ``clew --help`` cost next to nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False  # what `typing` calls it; importing that module would double the time that this one takes
if TYPE_CHECKING:
    from clew.api import Pipeline, attach, fork, replay, resume, run, verify
    from clew.config import NOT_HASHED, InputPath, Plugin, config
    from clew.errors import ClewError, ConfigError, DataError, RunFailed, UserError
    from clew.jobs import JobConfig, RuntimeConfig, job
    from clew.live.fit import Trainer
    from clew.live.huggingface import callback
    from clew.live.lightning import attach_lightning
    from clew.live.plain import session
    from clew.runs import JobResult, Run, State, Workspace
    from clew.session import CheckpointConfig, LiveConfig, Outcome, Session, Setting, Surface
    from clew.session.live import LiveRun, When
    from clew.tasks import Example, GroupReward, Reward, Task

__version__ = "0.1.0"

_HOMES = {
    "clew.api": ("Pipeline", "attach", "fork", "replay", "resume", "run", "verify"),
    "clew.config": ("NOT_HASHED", "InputPath", "Plugin", "config"),
    "clew.errors": ("ClewError", "ConfigError", "DataError", "RunFailed", "UserError"),
    "clew.jobs": ("JobConfig", "RuntimeConfig", "job"),
    "clew.live.huggingface": ("callback",),
    "clew.live.fit": ("Trainer",),
    "clew.live.lightning": ("attach_lightning",),
    "clew.live.plain": ("session",),
    "clew.runs": ("JobResult", "Run", "State", "Workspace"),
    "clew.session": ("CheckpointConfig", "LiveConfig", "Outcome", "Session", "Setting", "Surface"),
    "clew.session.live": ("LiveRun", "When"),
    "clew.tasks": ("Example", "GroupReward", "Reward", "Task"),
}

__all__ = [
    "NOT_HASHED",
    "CheckpointConfig",
    "ClewError",
    "ConfigError",
    "DataError",
    "Example",
    "GroupReward",
    "InputPath",
    "JobConfig",
    "JobResult",
    "LiveConfig",
    "LiveRun",
    "Outcome",
    "Pipeline",
    "Plugin",
    "Reward",
    "Run",
    "RunFailed",
    "RuntimeConfig",
    "Session",
    "Setting",
    "State",
    "Surface",
    "Task",
    "Trainer",
    "UserError",
    "When",
    "Workspace",
    "__version__",
    "attach",
    "attach_lightning",
    "callback",
    "config",
    "fork",
    "job",
    "replay",
    "resume",
    "run",
    "session",
    "verify",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for (PEP 562)."""
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(home), name)
    raise AttributeError(f"module 'clew' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``clew.config`` the decorator, and ``clew.session`` the context manager.

    Packages there have the same names, and whoever first imports one would have Python put it in the other's place.
    ``from clew.config import ...`` does not look here and finds the package.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in ("config", "session") and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
