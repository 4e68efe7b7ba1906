"""Where jobs are found by name."""

from __future__ import annotations

from clew.config import Registry

BUILTIN = {
    "pretrain": "clew.jobs.pretrain:pretrain",
    "sft": "clew.jobs.sft:sft",
    "grpo": "clew.jobs.grpo:grpo",
    "eval": "clew.jobs.eval:evaluate",
    "merge": "clew.jobs.merge:merge",
    "export": "clew.jobs.export:export",
    "script": "clew.jobs.script:script",
}


def job_registry() -> Registry:
    """Return the registry of jobs: what ships, and what other packages offer as ``clew.jobs``."""
    return Registry("job", BUILTIN, "clew.jobs")
