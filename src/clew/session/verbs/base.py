"""What a verb is: what it does at a boundary, and what it makes of the run's standing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from clew.checkpoints import Checkpoint
from clew.errors import UserError, did_you_mean
from clew.runs import State
from clew.session.commands import Rule, Standing
from clew.session.settings import Setting

T = TypeVar("T")


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

    def save_later(self, then: Callable[[Checkpoint], T]) -> Future[T]:
        """Make the state of this step safe while the training goes on, as far as the trainer can do that.

        Args:
            then: Called with the checkpoint once it is durable, in another thread.

        Raises:
            UserError: If there is no state to save.
        """

    def require_switch(self) -> None:
        """Check that this process can go on as another run; raises UserError if it cannot."""

    def switch(self, child: str) -> None:
        """Let this process go on as another run, once the command is settled."""

    @property
    def restored(self) -> int:
        """The finished steps of the state that this attempt began with."""

    @property
    def surface(self) -> object:
        """What trains; None where the job has attached nothing. :func:`clew.session.surface.capable` asks it."""

    @property
    def folder(self) -> Path:
        """The run's directory."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record metrics of this step."""

    def event(self, kind: str, **fields: Any) -> None:
        """Record anything else that belongs to this step."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Say how far something long is, such as ``samples``; seldom enough for a journal."""

    def is_wanted_elsewhere(self) -> bool:
        """Whether the run is to end: a signal, a stop or an abort has come. Something long gives up then."""

    def source(self, reference: str) -> Path:
        """Return a checkpoint's folder, and keep its content with the run, for whoever repeats it.

        Args:
            reference: A step, a tag, ``best`` or ``last`` of this run, or ``RUN@`` one of them of another.

        Raises:
            UserError: If there is none, or it does not verify.
        """


Result = Mapping[str, Any] | None
"""What a verb has to say about what it did."""


@dataclass(frozen=True)
class Verb:
    """Something that can be asked of a live run.

    Attributes:
        name: The word.
        do: Carries it out: ``do(boundary, args)``; whatever it raises is the reason of a rejection, and then it must
            have changed nothing. What it returns stands in the journal as the command's ``result``, as JSON. For what
            takes long, and changes nothing that trains, it returns a future of that: the training goes on meanwhile.
        takes: The arguments that there are; None when it looks after their names itself.
        rule: What the state machine knows of it.
        again: Does it once more, ``again(boundary, args, result)``, on a state that was restored from before it; None
            where nothing is to be done, because it changed nothing that trains.
    """

    name: str
    do: Callable[[Boundary, Mapping[str, Any]], Result | Future[Result]]
    takes: frozenset[str] | None = frozenset()
    rule: Rule = field(default_factory=Rule)
    again: Callable[[Boundary, Mapping[str, Any], Mapping[str, Any]], object] | None = None

    def carry_out(self, boundary: Boundary, args: Mapping[str, Any]) -> Result | Future[Result]:
        """Do it.

        Args:
            boundary: Where the run stands.
            args: The command's arguments.

        Returns:
            What the journal is to say of it besides; None for nothing.

        Raises:
            UserError: If an argument is nonsense, or it cannot be done.
        """
        for name in args:
            if self.takes is not None and name not in self.takes:
                hint = did_you_mean(name, self.takes) if self.takes else "it takes none"
                raise UserError(f"{self.name} has no argument {name!r}; {hint}")
        return self.do(boundary, args)


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
