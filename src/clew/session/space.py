"""A disk that is full when a checkpoint is due: the run waits, with its state in memory, until there is space."""

from __future__ import annotations

from clew.logs.logger import Logger
from clew.runs import Command, JournalWriter, Run
from clew.runs.disk import Reserve, is_full
from clew.session.commands import DISK
from clew.session.saving import Saver


class Space:
    """Lets a run pause whose state could not be saved for want of space, and saves it once it is let go on.

    The pause is a command like any other, so everybody sees it, and ``clew resume`` ends it. What is needed to write
    all that down on a full disk is the space that a live run keeps.

    Args:
        run: The run.
        journal: Where it is told.
    """

    ISSUER = DISK

    def __init__(self, run: Run, journal: JournalWriter) -> None:
        self._run = run
        self._journal = journal
        self._log = Logger("clew.session", run=run.id)
        self._lacking: tuple[int, float | None, Exception] | None = None

    @property
    def is_lacking(self) -> bool:
        """Whether a state waits for space."""
        return self._lacking is not None

    def lacks(self, step: int, metric: float | None, error: Exception) -> None:
        """Say that a state could not be saved, and ask for the pause, which the next boundary carries out.

        Args:
            step: The number of finished steps.
            metric: How good that state is, if it was measured.
            error: What the disk said.
        """
        self._lacking = (step, metric, error)
        Reserve(self._run.path).give_up()
        self._log.error(f"the disk is full: the run pauses until it is resumed, with its state in memory ({error})")
        self._journal.write("disk_full", at=step, reason=str(error))
        # Not with `at`: of a run that is aborted here nothing is to be left that pauses it when it is resumed.
        self._run.inbox.post(Command("pause", {"save": False}, issuer=self.ISSUER))

    def check(self) -> None:
        """Check that no state waits for space, where there is no boundary any more at which the run could pause.

        Raises:
            Exception: What the disk said.
        """
        if self._lacking is not None:
            raise self._lacking[2]

    def try_again(self, saver: Saver, step: int, *, paused: bool) -> None:
        """Save the state of a boundary at which the run had to wait; to be called when it may go on.

        Args:
            saver: Saves it.
            step: The boundary's number of finished steps.
            paused: Whether the run did pause; one that has no checkpoint to come back to does not.

        Raises:
            Exception: What the disk said, if the run did not pause; or what else went wrong.
        """
        assert self._lacking is not None
        (then, metric, error), self._lacking = self._lacking, None
        rating = metric if then == step else None
        if not paused:
            raise error
        Reserve(self._run.path).take()
        try:
            saver.save(step, rating)
        except Exception as again:
            if not is_full(again):
                raise
            self.lacks(step, rating, again)
