"""What is said to a fork, or of a run that is resumed, ``key=value``: keys of the config, or numbers of the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clew.config import leaves, load_tree
from clew.errors import UserError, did_you_mean
from clew.runs import Run

MULTIPLES = {"lr_mul": "lr", "wd_mul": "weight_decay"}


@dataclass(frozen=True)
class Changes:
    """What a child does otherwise than its parent.

    Attributes:
        overrides: ``key=value`` with whole keys of the config.
        settings: Names of settings that no key of the config stands for, and multiples of those in force.
    """

    overrides: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)


def understood(run: Run, words: Sequence[str]) -> Changes:
    """Find out what is meant by each word.

    A key may be shortened to its last part where only one key ends so: ``lr`` for ``training.lr``. ``lr_mul`` and
    ``wd_mul`` multiply what is in force in the parent.

    Args:
        run: The parent.
        words: ``key=value``.

    Raises:
        UserError: If a word is none, or means nothing here.
    """
    keys = [key for key, _ in leaves(load_tree(run.config_path)) if key not in ("job", "name")]
    settings = known_settings(run)
    changes = Changes()
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise UserError(f"{word!r} is not key=value", hint="write for instance lr=1e-4")
        if name in MULTIPLES:
            _check_multiple(run, name, settings)
            changes.settings[MULTIPLES[name]] = f"*{value}"
        elif key := _key(name, keys, settings):
            changes.overrides.append(f"{key}={value}")
        elif name in settings:
            changes.settings[name] = value
        else:
            hint = did_you_mean(name, [*keys, *settings, *MULTIPLES])
            raise UserError(f"there is nothing {name!r} to change in {run.id}", hint=hint)
    return changes


def _check_multiple(run: Run, name: str, settings: Mapping[str, str]) -> None:
    """A trainer that has told what can be set must have what is to be multiplied."""
    if settings and (wanted := MULTIPLES[name]) not in settings:
        hint = f"there is {', '.join(settings)}"
        raise UserError(f"{run.id} has no {wanted} that {name} could multiply", hint=hint)


def _key(name: str, keys: Sequence[str], settings: dict[str, str]) -> str:
    """The config key that a name stands for; empty where there is none."""
    if name in keys or any(key.startswith(f"{name}.") for key in keys):
        return name
    if settings.get(name):
        return settings[name]
    ending = [key for key in keys if key.endswith(f".{name}")]
    if len(ending) > 1:
        raise UserError(f"{name!r} may be {' or '.join(ending)}", hint="write the whole key")
    return ending[0] if ending else ""


def known_settings(run: Run) -> dict[str, str]:
    """Return the settings that a run's trainer has told of, with the config keys that they stand over.

    Of a child that has not begun its parent's are taken.
    """
    found: dict[str, Any] = {}
    for event in run.events("settings"):
        found = event.get("keys", {})
    parent = run.path.parent / (run.info.parent or "")
    if not found and run.info.parent and (parent / "run.json").is_file():
        return known_settings(Run(parent))
    return {str(name): str(key) for name, key in found.items()}
