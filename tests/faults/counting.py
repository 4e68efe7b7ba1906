"""The jobs that are killed, as they are; besides, each attempt counts its finished steps in memory that outlives it.

A journal cannot tell how far a killed process had come: what it had not written yet is gone with it. A page that is
shared with a file stays where it is, and costs a step nothing.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import TypeVar

import clew
from clew.jobs import grpo as grpo_job
from clew.jobs import pretrain as pretrain_job
from clew.jobs import sft as sft_job
from clew.jobs.grpo import GrpoConfig
from clew.jobs.pretrain import PretrainConfig
from clew.jobs.sft import SftConfig
from clew.runs import Run
from clew.session import Outcome, Session

ConfigT = TypeVar("ConfigT")
_NUMBER = struct.Struct("<q")


@clew.job(check=pretrain_job.pretrain.check, ranks=True)
def pretrain(session: Session[PretrainConfig]) -> Outcome:
    """Train a decoder from scratch."""
    return pretrain_job.pretrain.run(counting(session))


@clew.job(check=sft_job.sft.check)
def sft(session: Session[SftConfig]) -> Outcome:
    """Fine-tune a model."""
    return sft_job.sft.run(counting(session))


@clew.job(check=grpo_job.grpo.check)
def grpo(session: Session[GrpoConfig]) -> Outcome:
    """Improve a model on rewards."""
    return grpo_job.grpo.run(counting(session))


def counting(session: Session[ConfigT]) -> Session[ConfigT]:
    """Let a session note each finished step before it does anything about it; of several ranks, the first one's."""
    if not session.ranks.leads:
        return session
    path = _path(session.run, session.attempt)
    path.parent.mkdir(exist_ok=True)
    with path.open("w+b") as file:
        file.truncate(mmap.PAGESIZE)
        page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
    due, boundary = session.due, session.boundary

    def noted_due(step: int) -> bool:
        _NUMBER.pack_into(page, 0, step)
        return due(step)

    def noted_boundary(step: int, *, metric: float | None = None) -> None:
        _NUMBER.pack_into(page, 0, step)
        boundary(step, metric=metric)

    session.due = noted_due  # type: ignore[method-assign]
    session.boundary = noted_boundary  # type: ignore[method-assign]
    return session


def finished(run: Run, attempt: int) -> int:
    """Return the number of the last step that an attempt has finished; 0 while it has finished none."""
    path = _path(run, attempt)
    content = path.read_bytes()[: _NUMBER.size] if path.exists() else b""
    return int(_NUMBER.unpack(content)[0]) if len(content) == _NUMBER.size else 0


def _path(run: Run, attempt: int) -> Path:
    return run.path.parents[1] / "counted" / f"{run.id}-{attempt}"
