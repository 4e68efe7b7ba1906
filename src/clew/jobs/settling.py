"""What a config leaves open is settled when its run is asked for: config, hash and every attempt mean the same."""

from __future__ import annotations

from pathlib import Path

from clew.config import Origin, load, merge
from clew.config.load import section_of
from clew.jobs.loading import RESERVED, LoadedJob, registries

_ORIGIN = Origin("settled", "when it was asked for")


def settled(loaded: LoadedJob, runs: Path) -> LoadedJob:
    """Return a job whose config says what :meth:`clew.JobConfig.settled` finds.

    Args:
        loaded: The job, as its config was written.
        runs: The folder of runs.

    Raises:
        UserError: If it cannot be settled.
    """
    found = loaded.config.settled(runs)
    if not found:
        return loaded
    tree = merge(loaded.loaded.tree, section_of(found, _ORIGIN))
    settled = load(tree, root=loaded.job.config, registries=registries(), reserved=RESERVED)
    return LoadedJob(loaded.reference, loaded.job, settled)
