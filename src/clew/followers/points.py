"""What trackers take from a run: numbers by step, the config as flat parameters, and the sums at the end."""

from __future__ import annotations

import os
from collections import Counter
from importlib.util import find_spec
from typing import Any

from clew.config import leaves, load_tree, plain
from clew.runs import Event, JobResult, Run

TEXTS = ("rollout", "generation")
"""Kinds of events that hold texts: trackers are told how many there are, and the texts stay in the journal."""


def values_of(event: Event) -> dict[str, float]:
    """Return names and values of an event with metrics; nothing for others, and for ranks that repeat the first."""
    if event["kind"] != "metric" or event["rank"] != 0:
        return {}
    return {name: float(value) for name, value in event["values"].items()}


def went_back(event: Event) -> bool:
    """Say whether an event begins another attempt, which does the steps above its ``step`` again."""
    return bool(event["kind"] == "restore" and event["attempt"] > 1)


def final_values(run: Run, result: JobResult) -> dict[str, float]:
    """Return a run's final metrics as ``final/<name>``, and the numbers of its texts as ``count/<kind>``."""
    counts = Counter(str(event["kind"]) for event in run.events(*TEXTS))
    final = {f"final/{name}": value for name, value in result.metrics.items()}
    return final | {f"count/{kind}": float(number) for kind, number in counts.items()}


def parameters(run: Run) -> dict[str, Any]:
    """Return the run's config, flat: dotted key to value."""
    return {key: leaf.value for key, leaf in leaves(load_tree(run.config_path))}


def config_of(run: Run) -> dict[str, Any]:
    """Return the run's config as it stands in its file."""
    value: dict[str, Any] = plain(load_tree(run.config_path))
    return value


def not_installed(module: str) -> str:
    """Say in a line that a library is missing; empty when it is there."""
    return "" if find_spec(module) else f"the library {module!r} is not installed: pip install 'clew[track]'"


def from_environment(name: str) -> str | None:
    """Return an environment variable; None when it is unset or empty."""
    return os.environ.get(name) or None
