"""Inspect: look at every sample of a split with the weights of this step, and change nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.errors import UserError, require
from clew.runs.files import sync_directory, sync_tree
from clew.session.surface import Digestible, Scorable, capable
from clew.session.verbs.base import Boundary, Verb, whole

if TYPE_CHECKING:
    from clew.inspection.inspecting import Options

SPLIT = "train"


def _inspect(boundary: Boundary, args: Mapping[str, Any]) -> Mapping[str, Any]:
    require("pyarrow", extra="data")
    from clew.inspection.inspecting import inspect  # needs numpy
    from clew.inspection.published import folder_of

    split, options = _split(args), _options(args)
    scorer = capable(boundary.surface, Scorable).scorer(split)
    final = folder_of(boundary.folder, boundary.step, split)
    staging = final.with_name(f".making-{final.name}")
    summary = inspect(
        scorer,
        staging,
        options,
        identity={"step": boundary.step, "split": split, **_weights(boundary.surface)},
        before=final,
        progress=boundary.progress,
        cancelled=boundary.is_wanted_elsewhere,
    )
    _publish(staging, final)
    return {
        "path": final.relative_to(boundary.folder).as_posix(),
        "samples": summary["samples"],
        "loss": summary["loss"] and summary["loss"]["mean"],
        "clusters": len(summary["clusters"]),
    }


def _split(args: Mapping[str, Any]) -> str:
    split = args.get("split", SPLIT)
    if not isinstance(split, str) or not split.replace("-", "_").isidentifier():
        raise UserError(f"{split!r} is no split", hint=f"such as {SPLIT}")
    return split


def _options(args: Mapping[str, Any]) -> Options:
    from clew.inspection.inspecting import Options

    tokens = args.get("tokens", True)
    if not isinstance(tokens, bool):
        raise UserError(f"tokens must be true or false, not {tokens!r}")
    clusters = whole(args, "clusters", 0) if "clusters" in args else Options.clusters
    limit = whole(args, "limit", 1) if args.get("limit") is not None else None
    return Options(clusters, tokens, limit)


def _weights(surface: object) -> dict[str, str]:
    """A hash of the weights, which may be others than those of an earlier look at the same step."""
    with suppress(UserError):  # of several ranks, what stands for all of them says only then that they have none
        return {"weights": capable(surface, Digestible).digests()["weights"]}
    return {}


def _publish(staging: Path, final: Path) -> None:
    """Put a finished inspection in the place of an earlier one of the same step."""
    sync_tree(staging)
    if final.exists():
        old = final.with_name(f".trash-{final.name}-{os.getpid()}")
        final.rename(old)
        staging.rename(final)
        shutil.rmtree(old)
    else:
        staging.rename(final)
    sync_directory(final.parent)


INSPECT = Verb("inspect", _inspect, frozenset({"split", "clusters", "tokens", "limit"}))
