"""The worker: the process in which a run happens. ``python -m clew.worker RUN_DIRECTORY ATTEMPT [DESCRIPTOR]``.

It claims its attempt, loads the config, runs the job, and writes what came of it. A worker whose attempt was replaced
before it could claim it leaves without touching anything. Of a run of several ranks this is the first, which starts the
others: ``python -m clew.worker RUN_DIRECTORY ATTEMPT --rank RANK SIZE PORT DESCRIPTOR``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from clew.followers.starting import start as start_followers
from clew.jobs import data_fingerprints, load_run_config, resolve_job
from clew.jobs.base import Job, JobConfig, ranks_of
from clew.jobs.choices import take_up
from clew.jobs.layout import layout_of
from clew.logs.logger import Logger
from clew.logs.piping import Printed
from clew.logs.settings import LogSettings
from clew.logs.setup import configure_worker
from clew.logs.streams import outlast_readers
from clew.remote.mirror import bring_back
from clew.runs import Fenced, IllegalMove, JournalWriter, Run, State
from clew.session.attempt import EXIT_CODES, REPLACED, Attempt, reason_of
from clew.session.surface import RunStopped


def main(arguments: list[str]) -> int:
    """Work on one attempt at one run and return the exit code."""
    outlast_readers()
    configure_worker(LogSettings.choose())
    folder, attempt = Path(arguments[0]), int(arguments[1])
    if "--rank" in arguments:
        rank, size, port, descriptor = (int(word) for word in arguments[3:7])
        code = help_with(Run(folder), attempt, rank, size, port, descriptor)
        if code == EXIT_CODES[State.FAILED]:
            # The others are to know at once: to end in good order may mean to wait for them.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code
    return work(Run(folder), attempt, Printed(int(arguments[2]) if len(arguments) > 2 else None))


def work(run: Run, attempt: int, printed: Printed | None = None) -> int:
    """Claim ``attempt`` of ``run``, carry the job out, and record the outcome.

    Args:
        run: The run.
        attempt: The attempt at it that this process was started for.
        printed: Knows when all that was printed is in the log; None when there is no filter before it.

    Returns:
        0 when the run completed, 1 when it failed, 3 when it was stopped, 4 when it was interrupted, 5 when the
        attempt was not this worker's to claim.
    """
    mine = Attempt(run, attempt, data_fingerprints, printed, copies=bring_back)
    try:
        mine.claim()
    except (Fenced, IllegalMove) as error:
        mine.log.error(error)
        return REPLACED
    with mine:
        mine.announce()
        take_up(run, attempt)
        job = resolve_job(run.info.job)
        config = load_run_config(run)
        mine.log.debug("job loaded", config_hash=run.info.config_hash)
        if ranks_of(config) > 1:
            _lead(mine, run, attempt, job, config)
        else:
            with mine.session(config, start_followers) as session:
                if layout := layout_of(run):
                    session.event("layout", ranks=1, chosen=layout)
                mine.outcome = job.run(session)
    return mine.exit_code


def _lead(mine: Attempt, run: Run, attempt: int, job: Job[Any], config: JobConfig) -> None:
    """Start the other ranks, and do the first one's part."""
    from clew.session.crew import Crew
    from clew.session.leading import Leading
    from clew.session.ranks import join, listener

    size, listening = ranks_of(config), listener()
    port = listening.getsockname()[1]
    with Crew(run, attempt, size, partial(_give_up, mine)) as crew:
        crew.start(port)
        mine.opened = partial(Leading, ranks=join(0, size, port, listening), crew=crew)
        with mine.session(config, start_followers) as session:
            session.event("layout", ranks=size, chosen=layout_of(run))
            try:
                mine.outcome = job.run(session)
            except Exception as error:
                if (cause := crew.blame(error)) is error:
                    raise
                raise cause from error


def _give_up(mine: Attempt, error: Exception) -> None:
    """End this process, which waits for a rank that is gone."""
    mine.__exit__(type(error), error, None)
    os._exit(mine.exit_code)


def help_with(run: Run, attempt: int, rank: int, size: int, port: int, descriptor: int) -> int:
    """Do the part of one rank but the first; see :func:`work` for the exit code.

    Args:
        run: The run.
        attempt: The attempt that the first rank has claimed.
        rank: Which one this is.
        size: How many there are.
        port: Where the first one serves the store.
        descriptor: Of the line to the first one.
    """
    from clew.session.crew import Lifeline
    from clew.session.helping import Helping
    from clew.session.ranks import join

    line = Lifeline(descriptor)
    line.hold()
    if run.states.read().attempt != attempt:
        return REPLACED
    code = EXIT_CODES[State.FAILED]
    with _noted(run, attempt, rank):
        job = resolve_job(run.info.job)
        config = load_run_config(run)
        ranks = join(rank, size, port)
        try:
            with Helping(run, config, attempt, ranks=ranks, tell=line.tell) as session:
                job.run(session)
        except RunStopped as stop:
            code = EXIT_CODES[stop.state]
        else:
            code = EXIT_CODES[State.COMPLETED]
    return code


@contextmanager
def _noted(run: Run, attempt: int, rank: int) -> Iterator[None]:
    """Put into the rank's own journal that it is there, and what went wrong; an error ends here."""
    journal = JournalWriter(run.path / "journal", attempt, rank)
    journal.write("rank", number=rank, pid=os.getpid())
    journal.flush()
    try:
        yield
    except Exception as error:
        journal.write("failure", error=type(error).__name__, reason=reason_of(error))
        journal.flush(sync=True)
        Logger("clew.worker", run=run.id, attempt=attempt, rank=rank).error("this rank failed", error=error)
    finally:
        journal.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
