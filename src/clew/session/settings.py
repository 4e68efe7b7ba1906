"""What of a trainer can be changed while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clew.errors import UserError, did_you_mean

STEPS = "steps"
"""The name of the setting that says how far a run goes."""

Value = float | str


@dataclass(frozen=True)
class Setting:
    """A number, or a word, that takes effect with the next step.

    Attributes:
        name: What it is called in ``clew set``.
        read: Returns the value in force; None where it is switched off.
        write: Puts another one in force; it is given only what fits, an int where it is whole.
        low: The smallest value.
        high: The largest value.
        open: Whether ``low`` itself is too small.
        whole: Whether it is a whole number.
        choices: The words that there are, for a setting that is no number.
        key: The dotted key of the config that it stands over; empty where there is none. A fork that says another value
            there takes that one, whatever was set in its parent.
    """

    name: str
    read: Callable[[], Value | None]
    write: Callable[[Any], None]
    low: float = -math.inf
    high: float = math.inf
    open: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()
    key: str = ""

    def parse(self, given: Any) -> Value:
        """Return a value for it.

        Args:
            given: A number, a text that is one, or ``*FACTOR`` for a multiple of the value in force; or one of the
                choices.

        Raises:
            UserError: If it is none, or out of bounds.
        """
        if self.choices:
            return self._choice(given)
        value = self._number(given)
        if not math.isfinite(value) or (self.whole and value != int(value)):
            raise UserError(f"{self.name} is a {'whole ' if self.whole else ''}number, not {given!r}")
        if not self.low <= value <= self.high or (self.open and value == self.low):
            raise UserError(f"{self.name} must be {self.bounds}, not {given!r}")
        return int(value) if self.whole else value

    @property
    def bounds(self) -> str:
        """Say between what it lies."""
        low = f"{'above' if self.open else 'at least'} {self.low:g}" if self.low > -math.inf else ""
        high = f"at most {self.high:g}" if self.high < math.inf else ""
        return " and ".join(filter(None, (low, high)))

    def _choice(self, given: Any) -> str:
        if given not in self.choices:
            raise UserError(f"{self.name} must be {' or '.join(self.choices)}, not {given!r}")
        return str(given)

    def _number(self, given: Any) -> float:
        """The number that is meant; NaN where there is none."""
        is_factor = isinstance(given, str) and given.startswith("*")
        try:
            value = math.nan if isinstance(given, bool) else float(given[1:] if is_factor else given)
        except (TypeError, ValueError, OverflowError):
            return math.nan
        if not is_factor:
            return value
        present = self.read()
        if not isinstance(present, int | float):
            raise UserError(f"{self.name} is switched off, so there is nothing to multiply")
        return value * present


def chosen(settings: Iterable[Setting], given: Mapping[str, Any]) -> dict[str, Value]:
    """Return values for the settings that are named.

    Args:
        settings: What there is.
        given: Names to values.

    Raises:
        UserError: If there is no such setting, with the nearest; or a value does not fit. Nothing is written then.
    """
    known = {setting.name: setting for setting in settings}
    if not known:
        raise UserError("this job has nothing that can be set while it runs")
    if not given:
        raise UserError(f"nothing to set; there is {', '.join(known)}")
    for name in given:
        if name not in known:
            raise UserError(f"there is no setting {name!r}; {did_you_mean(name, known)}")
    return {name: known[name].parse(value) for name, value in given.items()}


def write(settings: Iterable[Setting], values: Mapping[str, Value]) -> None:
    """Put values in force that were checked before; those of settings that there are no longer are left out."""
    for setting in settings:
        if setting.name in values:
            value = values[setting.name]
            setting.write(int(value) if setting.whole else value)
