"""On how many processes, and on which mesh, a run goes on: what is said of it when the run is resumed.

The layout counts for no result, so a run may change it between any two attempts, as anything else that does not alter
the past (:mod:`clew.jobs.choices`). Every attempt says in the journal on what it ran.
"""

from __future__ import annotations

from typing import Any

from clew.errors import UserError
from clew.jobs.choices import LAYER, Choice, changes, words_of
from clew.jobs.choices import choose as choose_all
from clew.jobs.loading import run_origins
from clew.runs import Run

_KEYS = ("runtime.ranks", "mesh")


def layout_of(run: Run) -> dict[str, Any]:
    """Return the config keys of the layout that were chosen anew, with their values; empty when nothing was."""
    try:
        origins = run_origins(run)
    except UserError:  # it is said where the origins are needed
        return {}
    chosen = {key: entry["value"] for key, entry in origins.items() if entry["layer"] == LAYER}
    return {key: value for key, value in chosen.items() if key.startswith(_KEYS)}


def layout_words(ranks: int | None = None, mesh: str = "") -> list[str]:
    """Return what a layout is in words of a command line.

    Args:
        ranks: How many processes; None leaves it.
        mesh: A preset; empty leaves it. The sizes of the mesh are then those of the preset.
    """
    chosen: dict[str, Any] = {} if ranks is None else {"runtime.ranks": ranks}
    if mesh:
        chosen |= {"mesh.preset": mesh, "mesh.data": None, "mesh.fsdp": None, "mesh.tensor": None}
    return words_of(chosen)


def choose(run: Run, *, ranks: int | None = None, mesh: str = "") -> None:
    """Let a run go on in another layout from its next attempt on.

    Args:
        run: A run that nobody works on.
        ranks: How many processes; None leaves it.
        mesh: A preset; empty leaves it.

    Raises:
        UserError: If somebody works on the run, or the run cannot be laid out so.
    """
    found = changes(run, layout_words(ranks, mesh))
    choose_all(run, Choice(keys=found.keys, was=found.was))
