"""Submitting the same run twice: whether what is asked for under a name is the run that has this name already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clew.config import diff, plain, unhashed_keys
from clew.config.problems import show
from clew.config.source import read_file
from clew.config.tree import join
from clew.errors import UserError
from clew.jobs.loading import LoadedJob, data_fingerprints
from clew.runs import Run, State

_SHOWN = 10
"""How many differences are named."""


def check_same_run(run: Run, loaded: LoadedJob) -> None:
    """Make sure that a run is the one that is asked for: the same config as far as it counts, the same code.

    Raises:
        UserError: If it is another one, with the values that differ.
    """
    info = run.info
    if (info.config_hash, info.code_hash) == (loaded.config_hash, loaded.code_hash):
        return
    same_config = info.config_hash == loaded.config_hash
    what = "made by other code" if same_config else f"with another config{listed(_differences(run, loaded))}"
    over = run.state is State.COMPLETED
    go_on = f"look at it: clew show {run.id}" if over else f"go on with it as it is: clew resume {run.id}"
    raise UserError(
        f"a run named {run.id!r} exists already, {what}",
        where=str(run.path),
        hint=f"choose another name, or {go_on}",
    )


def listed(differences: list[str]) -> str:
    """Say what differs, a line each; not more lines than a person reads."""
    rest = len(differences) - _SHOWN
    lines = [*differences[:_SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
    return "".join(f"\n    {line}" for line in lines)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key to ``key: old → new``, for the values in which two plain configs differ."""
    return {key: f"{key}: {show(old)} → {show(new)}" for key, (old, new) in diff(before, after).items()}


def _differences(run: Run, loaded: LoadedJob) -> list[str]:
    """Values that count and differ; a path counts by what it holds."""
    values = changed(plain(read_file(run.config_path)), loaded.plain)
    ignored = {*unhashed_keys(loaded.config), "job" if _name(run.info.job) == _name(loaded.reference) else ""}
    old, new = dict(_flat(data_fingerprints(run))), dict(_flat(loaded.input_digests))
    read = old.keys() & new.keys()
    edited = {key for key in read if old[key] != new[key]}
    moved = {key for key in values if any(_is_below(name, {key}) for name in read - edited)}
    counting = [text for key, text in values.items() if key not in moved and not _is_below(key, ignored)]
    edited = {key for key in edited if not _is_below(key, set(values) - moved)}
    return [*counting, *(f"{key}: what is in it has changed" for key in sorted(edited))]


def _name(reference: str) -> str:
    return reference.rpartition(":")[2]


def _is_below(key: str, prefixes: set[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _flat(digests: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A key that names several files has one digest for each."""
    for key, value in digests.items():
        if isinstance(value, list):
            yield from ((join(key, str(index)), item) for index, item in enumerate(value))
        else:
            yield key, value
