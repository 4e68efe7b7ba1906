"""Jobs: one file each. A new one is a new file here and one line in :data:`BUILTIN` (or an entry point elsewhere)."""

from __future__ import annotations

from clew.config import Registry
from clew.jobs.base import Job, JobConfig, RuntimeConfig, job
from clew.jobs.loading import LoadedJob, create_job_run, data_fingerprints, load_job, load_run_config, resolve_job
from clew.jobs.registry import BUILTIN, job_registry

__all__ = [
    "BUILTIN",
    "Job",
    "JobConfig",
    "LoadedJob",
    "Registry",
    "RuntimeConfig",
    "create_job_run",
    "data_fingerprints",
    "job",
    "job_registry",
    "load_job",
    "load_run_config",
    "resolve_job",
]
