"""What can be told of a value before a worker has started: what it is, and what the config says of it.

The bounds of a number that no key of the config stands for are known to its trainer alone, which tells them when the
number is set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pydantic

from clew.config import Origin, field_at, plain
from clew.config.leaf import type_text, validate
from clew.config.problems import show
from clew.config.schema import FieldSpec
from clew.config.source import read_value
from clew.errors import ConfigError, UserError
from clew.jobs.loading import load_job
from clew.lineage.words import known_settings
from clew.runs import Run
from clew.session.settings import STEPS

_NUMBERS = {"lr": False, "weight_decay": False, "momentum": False, "batch_size": True, STEPS: True}
"""What is a number wherever there is such a setting, and whether it is a whole one."""


def check_value(run: Run, key: str, text: str) -> None:
    """Refuse at once what the config would refuse; what the trainer has to say of it shows when it is set.

    Args:
        run: A run that is gone on with.
        key: The key of its config that a setting stands over.
        text: The value, as it was said.

    Raises:
        UserError: If it is none of this key's.
    """
    spec = _field(run, key)
    try:
        value = plain(read_value(text, Origin("command line", "command line")))
    except ConfigError:
        value = text
    if value is None:
        raise UserError(
            f"{key} can be set to another value while a run goes on, but not to none",
            where=run.id,
            hint=f"clew fork {run.id} {key}=null makes a child that goes on so",
        )
    if misfit := _misfit(spec, value):
        raise ConfigError(f"{key!r} must be {misfit}, not {show(value)}", where=run.id)


def check_settings(run: Run, settings: Mapping[str, Any]) -> None:
    """Refuse at once what no trainer takes: words for numbers, and multiples that the config has no room for.

    Args:
        run: The run, or the parent.
        settings: Names of settings to what they are to be: a value, its text, or ``*FACTOR``.

    Raises:
        UserError: If one cannot be; with its name.
    """
    for name, value in settings.items():
        if isinstance(value, str) and value.startswith("*"):
            _check_factor(run, name, value[1:])
            continue
        whole = _NUMBERS.get(name.partition(".")[0])  # there may be one for each optimizer
        if whole is None or value is None:
            continue
        number = _number(value)
        if not math.isfinite(number) or (whole and number != int(number)):
            raise UserError(f"{name} is a {'whole ' if whole else ''}number, not {value!r}", where=run.id)


def _check_factor(run: Run, name: str, text: str) -> None:
    """Whatever is in force lies within the config's bounds, so a factor of the wrong sign leads out of them."""
    factor = _number(text)
    if not math.isfinite(factor):
        raise UserError(f"{name} is multiplied by a number, not by {text!r}", where=run.id)
    key = known_settings(run).get(name)
    spec = _field(run, key) if key and factor <= 0 else None
    if misfit := _misfit(spec, factor):
        raise UserError(f"{key} must be {misfit}, so {text} is no factor", where=run.id)


def _field(run: Run, key: str) -> FieldSpec | None:
    """The field of the config at a key; None inside of a mapping, whose items nothing is known of."""
    config = load_job(run.config_path).config
    spec = field_at(config, key)
    return None if spec == field_at(config, key.rpartition(".")[0]) else spec


def _misfit(spec: FieldSpec | None, value: Any) -> str:
    """What a value of the field must be and this one is not; empty where it fits, or nothing is known of the field."""
    if spec is not None:
        try:
            validate(spec.annotation, value)
        except pydantic.ValidationError:
            return str(type_text(spec.annotation))
    return ""


def _number(value: Any) -> float:
    """The number that is meant; NaN where there is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
