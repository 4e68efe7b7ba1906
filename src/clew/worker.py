"""The worker: the process in which a run happens. ``python -m clew.worker RUN_DIRECTORY ATTEMPT [DESCRIPTOR]``.

It claims its attempt, loads the config, runs the job, and writes what came of it. A worker whose attempt was replaced
before it could claim it leaves without touching anything.
"""

from __future__ import annotations

import sys
from pathlib import Path

from clew.followers.starting import start as start_followers
from clew.jobs import data_fingerprints, load_run_config, resolve_job
from clew.logs.piping import Printed
from clew.logs.settings import LogSettings
from clew.logs.setup import configure_worker
from clew.logs.streams import outlast_readers
from clew.runs import Fenced, IllegalMove, Run
from clew.session.attempt import REPLACED, Attempt


def main(arguments: list[str]) -> int:
    """Work on one attempt at one run and return the exit code."""
    outlast_readers()
    configure_worker(LogSettings.choose())
    folder, attempt = Path(arguments[0]), int(arguments[1])
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
    mine = Attempt(run, attempt, data_fingerprints, printed)
    try:
        mine.claim()
    except (Fenced, IllegalMove) as error:
        mine.log.error(error)
        return REPLACED
    with mine:
        mine.announce()
        job = resolve_job(run.info.job)
        config = load_run_config(run)
        mine.log.debug("job loaded", config_hash=run.info.config_hash)
        with mine.session(config, start_followers) as session:
            mine.outcome = job.run(session)
    return mine.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
