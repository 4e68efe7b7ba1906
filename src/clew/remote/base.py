"""What an adapter stands on, by a name that means something elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from clew.errors import UserError
from clew.remote.location import is_url
from clew.runs import Run
from clew.runs.files import write_json

CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Base:
    """The base of an adapter."""

    name: str
    """A hub id, a URL, or the path of a folder on the machine where it was trained."""
    revision: str | None = None
    """Of a hub id: the commit."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the name can be found from another machine: a path cannot."""
        return is_url(self.name) or not Path(self.name).is_absolute()


def base_of(run: Run, said: str = "") -> Base | None:
    """Return the base of the adapter that a run has published; None if it has published none.

    Args:
        run: Which run.
        said: What to name instead of what the adapter names.

    Raises:
        UserError: If the adapter's config cannot be read.
    """
    path = run.artifacts / "adapter" / CONFIG
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        name, revision = str(value["base_model_name_or_path"]), value.get("revision")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"adapter_config.json cannot be used: {error}", where=run.id) from None
    return _of_hub(said, None) if said else _of_hub(name, revision)


def with_base(path: Path, base: Base) -> None:
    """Let an ``adapter_config.json`` name its base so that it can be found; the file may be a link to the original."""
    value = json.loads(path.read_text(encoding="utf-8"))
    wanted = {**value, "base_model_name_or_path": base.name, "revision": base.revision}
    if wanted != value:
        path.unlink()
        write_json(path, wanted)


def _of_hub(name: str, revision: str | None) -> Base:
    """``hf://OWNER/REPO@REVISION`` is said as everybody says it who loads adapters: an id, and a revision beside it."""
    place = name.removeprefix("hf://")
    if place == name or place.count("/") != 1:
        return Base(name, revision)
    repo, _, pinned = place.partition("@")
    return Base(repo, pinned or revision)
