"""Where a live run stands between two steps, as verbs see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clew.checkpoints import CheckpointStore
from clew.errors import UserError
from clew.runs import Fenced, State
from clew.session.commands import Standing
from clew.session.settings import Setting


class Place:
    """A :class:`clew.session.verbs.Boundary`.

    Args:
        step: The number of finished steps.
        standing: Returns what the commands so far have led to.
        settings: Returns what can be set.
        save: Saves the state of this step; None where the job keeps none.
        store: Where checkpoints are.
        horizon: Tells how far the run goes.
        end: Remembers how the run is to end here.
    """

    def __init__(
        self,
        step: int,
        *,
        standing: Callable[[], Standing],
        settings: Callable[[], Sequence[Setting]],
        save: Callable[[], None] | None,
        store: CheckpointStore,
        horizon: Callable[[int], None],
        end: Callable[[State, str], None],
    ) -> None:
        self.step = step
        self.settings = settings
        self.horizon = horizon
        self.end = end
        self._standing = standing
        self._save = save
        self._store = store

    @property
    def standing(self) -> Standing:
        """What the commands so far have led to."""
        return self._standing()

    @property
    def can_save(self) -> bool:
        """Whether the job keeps a state from which it could go on."""
        return self._save is not None

    def save(self, tag: str = "") -> None:
        """Make the state of this step safe; a save that fails costs nothing but itself."""
        if self._save is None:
            raise UserError("this job keeps no state to save")
        try:
            self._save()
            if tag:
                self._store.tag(tag, self.step)
        except Fenced:
            raise
        except Exception as error:
            raise UserError(f"the checkpoint could not be saved: {error}") from error

    def require_checkpoint(self) -> None:
        """Check that there is a state to come back to."""
        if self._store.newest_good()[0] is None:
            raise UserError("there is no checkpoint yet", hint="let it save one: pause without --latest")
