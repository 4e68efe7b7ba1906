"""What a verb is: what it does at a boundary, and what it makes of the run's standing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clew.errors import UserError, did_you_mean
from clew.runs import State
from clew.session.commands import Rule, Standing
from clew.session.settings import Setting


class Boundary(Protocol):
    """A live run between two steps, as a verb sees it."""

    @property
    def step(self) -> int:
        """The number of finished steps."""

    @property
    def standing(self) -> Standing:
        """What the commands before have led to."""

    @property
    def can_save(self) -> bool:
        """Whether the job keeps a state from which it could go on."""

    def settings(self) -> Sequence[Setting]:
        """Return what the trainer lets be set; nothing where it has no such thing."""

    def save(self, tag: str = "") -> None:
        """Make the state of this step safe, and keep it for good under a tag if there is one.

        Raises:
            UserError: If it could not be saved, or there is no state to save.
        """

    def require_checkpoint(self) -> None:
        """Check that there is a state to come back to; raises UserError if there is none."""

    def horizon(self, total: int) -> None:
        """Say that the run goes as far as this step."""

    def end(self, state: State, reason: str) -> None:
        """Let the run end here, once the command is settled."""


@dataclass(frozen=True)
class Verb:
    """Something that can be asked of a live run.

    Attributes:
        name: The word.
        do: Carries it out: ``do(boundary, args)``; whatever it raises is the reason of a rejection, and then it must
            have changed nothing.
        takes: The arguments that there are; None when it looks after their names itself.
        rule: What the state machine knows of it.
    """

    name: str
    do: Callable[[Boundary, Mapping[str, Any]], None]
    takes: frozenset[str] | None = frozenset()
    rule: Rule = field(default_factory=Rule)

    def carry_out(self, boundary: Boundary, args: Mapping[str, Any]) -> None:
        """Do it.

        Args:
            boundary: Where the run stands.
            args: The command's arguments.

        Raises:
            UserError: If an argument is nonsense, or it cannot be done.
        """
        for name in args:
            if self.takes is not None and name not in self.takes:
                hint = did_you_mean(name, self.takes) if self.takes else "it takes none"
                raise UserError(f"{self.name} has no argument {name!r}; {hint}")
        self.do(boundary, args)


def whole(args: Mapping[str, Any], name: str, low: int) -> int:
    """Return an argument that is a whole number.

    Args:
        args: The arguments.
        name: Which.
        low: The smallest that fits.

    Raises:
        UserError: If it is missing, none, or smaller.
    """
    value = args.get(name)
    if type(value) is not int or value < low:
        raise UserError(f"{name} must be a whole number from {low}, not {value!r}")
    return value
