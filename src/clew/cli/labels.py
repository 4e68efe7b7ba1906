"""``clew check FILE --show-labels N``: what an SFT job trains on, before it trains on it."""

from __future__ import annotations

from clew import api
from clew.errors import UserError
from clew.jobs import LoadedJob, load_job
from clew.jobs.sft import SftConfig
from clew.plans.references import references
from clew.runs import Workspace


def show_labels(work: api.Work, count: int, workspace: Workspace) -> None:
    """Print the first training examples of a job, or of each such stage of a pipeline, with the trained tokens marked.

    Raises:
        UserError: If nothing there has labels, or its model or data cannot be read.
    """
    if count < 1:
        raise UserError(f"--show-labels needs a number of examples from 1, not {count}")
    if isinstance(work, LoadedJob):
        _show(_sft(work), count, workspace)
        return
    stages = [stage for stage in work.stages.values() if not any(references(stage.tree))]
    jobs = {stage.name: load_job(stage.tree) for stage in stages}
    shown = {name: job.config for name, job in jobs.items() if isinstance(job.config, SftConfig)}
    if not shown:
        raise UserError(
            "no stage has labels to show",
            where=work.name,
            hint="labels are of sft stages whose model exists already, not made by another stage",
        )
    for name, config in shown.items():
        print(f"\n{name}:")
        _show(config, count, workspace)


def _sft(work: LoadedJob) -> SftConfig:
    if not isinstance(work.config, SftConfig):
        raise UserError(f"the job {work.reference} has no labels to show", hint="labels are what sft trains on")
    return work.config


def _show(config: SftConfig, count: int, workspace: Workspace) -> None:
    from clew.models.loading import load_tokenizer
    from clew.models.source import resolve
    from clew.tasks.labels import CLOSE, OPEN, label, show

    tokenizer = load_tokenizer(resolve(config.model, workspace.runs))
    examples = config.task.examples("train")[:count]
    print(f"{OPEN}trained{CLOSE}, the rest is read only; ⏎ is a line break")
    for one in label(examples, tokenizer, config.chat, config.task):
        print(f"\n{show(one, tokenizer, config.training.max_length)}")
