"""The workspace's ``clew.yaml``: what may stand in it."""

from __future__ import annotations

from pathlib import Path

from clew.config.problems import Problems
from clew.config.source import read_file
from clew.config.tree import Section
from clew.errors import did_you_mean
from clew.jobs.registry import job_registry

KEYS = ("environment", "notify")


def check_environment(path: Path | None) -> None:
    """Refuse keys and jobs that nobody knows: what they say would be dropped in silence.

    Args:
        path: The file; None, or one that is not there, is in order.

    Raises:
        ConfigError: With all problems and their places.
    """
    if path is None or not path.is_file():
        return
    tree, problems, jobs = read_file(path, "environment"), Problems(), job_registry().names()
    for key, node in tree.items.items():
        if key not in KEYS:
            problems.add(f"unknown key {key!r}", node.origin.where, did_you_mean(key, KEYS))
    section = tree.items.get("environment")
    for name, node in section.items.items() if isinstance(section, Section) else ():
        if ":" not in name and name not in jobs:
            problems.add(f"unknown job {name!r} in 'environment'", node.origin.where, did_you_mean(name, jobs))
    problems.raise_if_any("the workspace's file")
