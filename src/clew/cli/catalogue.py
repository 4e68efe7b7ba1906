"""``clew jobs`` and ``clew tasks``: what there is, a line each."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from clew.cli.text import one_line
from clew.errors import ClewError

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.config import Registry


def configure(parser: Parser, verb: str) -> None:
    """These verbs take no arguments."""


def main(arguments: Namespace) -> int:
    """Print names and summaries."""
    registry = _registry(arguments.verb)
    names = registry.names()
    width = max(len(name) for name in names)
    for name in names:
        print(f"{name:<{width}}  {_summary(registry, name)}")
    own = "module:function" if arguments.verb == "jobs" else "module:Class"
    path = own.replace("module", "path/file.py")
    print(f"\nYour own are named {own} or {path} in a config.")
    return 0


def _registry(verb: str) -> Registry:
    if verb == "jobs":
        from clew.jobs import job_registry

        return job_registry()
    from clew.tasks import registry

    return registry()


def _summary(registry: Registry, name: str) -> str:
    """One that cannot be imported is listed as well, with the reason."""
    try:
        found: Any = registry.resolve(name)
    except ClewError as error:
        return f"(cannot be used here: {one_line(error.what)})"
    if isinstance(found, type):
        return (found.__doc__ or "").strip().partition("\n")[0]
    return str(found.summary)
