"""The card of a pushed run: the README.md that a repository shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clew.runs import JobResult, Run
from clew.runs.files import read_json

if TYPE_CHECKING:
    from clew.remote.base import Base


def write_card(path: Path, run: Run, about: Mapping[str, Any], base: Base | None) -> Path:
    """Write the card and return its path.

    Args:
        path: Where to.
        run: Which run.
        about: As in the manifest.
        base: What its adapter stands on.
    """
    head = yaml.safe_dump(_metadata(run, base), sort_keys=False)
    path.write_text(f"---\n{head}---\n\n" + "\n".join(_body(run, about, base)), encoding="utf-8")
    return path


def _metadata(run: Run, base: Base | None) -> dict[str, Any]:
    found: dict[str, Any] = {"license": "unknown", "tags": ["clew"]}
    if base is not None:
        found["library_name"] = "peft"
        if base.is_elsewhere and "://" not in base.name:
            found["base_model"] = base.name
    elif (run.artifacts / "model").is_dir():
        found["library_name"] = "transformers"
    return found


def _body(run: Run, about: Mapping[str, Any], base: Base | None) -> Iterator[str]:
    yield f"# {about['run']}\n"
    job = about["job"].rpartition(":")[2]
    yield f"Made with Clew: the job `{job}`, attempt {about['attempt']}, {about['state']}.\n"
    if base is not None:
        yield f"- Base model: {_base(base)}"
    yield f"- Config: hash `{about['config_hash']}`, in `clew/config.yaml` when the run was pushed as well"
    for key, digest in _data(run):
        yield f"- Data `{key}`: SHA-256 `{digest}`"
    yield "- License: not known; ask whoever made it, and look at the licenses of the base and the data\n"
    result = run.result
    if result is not None and result.metrics and result.status == about["state"]:
        yield from _metrics(result)


def _base(base: Base) -> str:
    if base.is_elsewhere:
        return f"`{base.name}`" + (f" at `{base.revision}`" if base.revision else "")
    return f"`{Path(base.name).name}`, a folder of the machine where this was trained; no public name was given"


def _data(run: Run) -> Iterator[tuple[str, str]]:
    """What the paths in the config held when the run was made."""
    try:
        origins = read_json(run.path / "origins.json")
    except (OSError, ValueError):
        return
    yield from ((key, entry["content"]) for key, entry in origins.items() if entry.get("content"))


def _metrics(result: JobResult) -> Iterator[str]:
    yield "| metric | value | 95 % interval |"
    yield "|---|---|---|"
    for name, value in result.metrics.items():
        interval = result.intervals.get(name)
        shown = f"{float(interval['low']):.6g} to {float(interval['high']):.6g}" if interval else ""
        yield f"| {name} | {value:.6g} | {shown} |"
    yield ""
