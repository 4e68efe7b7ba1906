"""With which config a run made which of its steps, where it was resumed with other values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clew.runs import Run
from clew.runs.journal import journal_files, read_events, step_limits


@dataclass(frozen=True)
class Stretch:
    """Steps that a run made with one config.

    Attributes:
        begin: The number of steps that were finished before.
        keys: Dotted keys of the config with the values that were said since the run was made.
    """

    begin: int
    keys: Mapping[str, Any] = field(default_factory=dict)


def stretches(run: Run, *, until: int | None = None) -> list[Stretch]:
    """Return the stretches of a run, as its steps count now: those of steps that were done again are gone.

    Args:
        run: The run.
        until: As they counted when this attempt was the last one; None means now.
    """
    folder = run.path / "journal"
    limits = step_limits([one for one in journal_files(folder) if until is None or one[1] <= until])
    said: dict[int, dict[str, Any]] = {}
    begins: dict[int, int] = {}
    for event in read_events(folder, frozenset({"changed", "restore"}), until=until):
        if event["kind"] == "changed":
            said[event["attempt"]] = _over(said.get(event["attempt"], {}), event["keys"])
        elif event["rank"] == 0:
            begins[event["attempt"]] = event["step"]
    found: list[Stretch] = []
    keys: dict[str, Any] = {}
    for attempt in sorted(limits):
        keys = _over(keys, said.get(attempt, {}))
        begin = begins.get(attempt)
        if begin is not None and begin < limits[attempt] and not (found and found[-1].keys == keys):
            found.append(Stretch(begin, keys))
    return found


def _over(keys: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others over them; what stood below a key that is said anew is gone with it."""
    stay = {key: value for key, value in keys.items() if not any(f"{key}.".startswith(f"{one}.") for one in said)}
    return {**stay, **said}


def first_values(run: Run, *, until: int | None = None) -> dict[str, Any]:
    """Return what a run's config said at first, for the keys that were said anew since."""
    found: dict[str, Any] = {}
    for event in read_events(run.path / "journal", frozenset({"changed"}), until=until):
        found = {**event["was"], **found}
    return found
