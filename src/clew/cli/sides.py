"""The two sides of ``clew diff``: what is known of a run, a config file or a pipeline, under dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.cli.finding import find
from clew.config import leaves
from clew.config.tree import Section, join, without
from clew.jobs import LoadedJob, load_job
from clew.jobs.loading import place, run_origins
from clew.plans import Pipeline, latest_runs
from clew.plans.references import references, resolve_references, sample_value
from clew.runs import Run, Workspace
from clew.sources import read

if TYPE_CHECKING:
    from clew.plans import Plan

Value = tuple[Any, str]
"""A value, and the place that said it."""


@dataclass
class Side:
    """One of two things that are compared; a pipeline's keys begin with ``stages.NAME``."""

    name: str
    kind: str
    """``run``, ``config`` or ``pipeline``."""
    values: dict[str, Value] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    """Hash of the code; of a pipeline, for each stage."""
    data: dict[str, str] = field(default_factory=dict)
    """Digest of each input, by the key that names it."""
    results: dict[str, Any] = field(default_factory=dict)

    def add(self, other: Side, prefix: str) -> None:
        """Take what is known of a stage."""
        self.values |= {join(prefix, key): value for key, value in other.values.items()}
        self.code |= {join(prefix, key): value for key, value in other.code.items()}
        self.data |= {join(prefix, key): value for key, value in other.data.items()}
        self.results |= {join(prefix, key): value for key, value in other.results.items()}


def side_of(name: str, workspace: Workspace) -> Side:
    """Look up what a name stands for: a config file, or a run or pipeline of the workspace.

    Raises:
        ClewError: If there is nothing of that name, or its config has a problem.
    """
    if Path(name).is_file():
        work = read(name, workspace=workspace)
        return _job_side(name, work) if isinstance(work, LoadedJob) else _pipeline_side(name, work, {})
    found = find(workspace, name)
    return _run_side(found) if isinstance(found, Run) else _plan_side(found, workspace)


def _job_side(name: str, work: LoadedJob) -> Side:
    origins = work.loaded.origins
    values = {key: (item.value, place(item.origin.layer, item.origin.where)) for key, item in origins.items()}
    return Side(name, "config", _named(work.reference, name, values), {"": work.code_hash}, _flat(work.input_digests))


def _run_side(run: Run) -> Side:
    origins = run_origins(run)
    values = {key: (item["value"], place(item["layer"], item["where"])) for key, item in origins.items()}
    data = _flat({key: item["content"] for key, item in origins.items() if "content" in item})
    info = run.info
    named = _named(info.job, "run.json", values)
    return Side(run.id, "run", named, {"": info.code_hash}, data, _results_of(run))


def _named(job: str, where: str, values: dict[str, Value]) -> dict[str, Value]:
    """With the job; without the run's name, which differs always and is said above."""
    return {"job": (job, where), **{key: value for key, value in values.items() if key != "name"}}


def _results_of(run: Run) -> dict[str, Any]:
    result = run.result
    facts: dict[str, Any] = {"status": str(run.state)}
    if result is None:
        return facts
    facts |= {"seconds": result.seconds, "attempts": result.attempts}
    facts |= {f"metrics.{name}": value for name, value in result.metrics.items()}
    return facts | {f"artifacts.{name}": item.sha256 for name, item in result.artifacts.items()}


def _plan_side(plan: Plan, workspace: Workspace) -> Side:
    return _pipeline_side(plan.id, plan.pipeline, latest_runs(plan, workspace))


def _pipeline_side(name: str, pipeline: Pipeline, runs: Mapping[str, Run]) -> Side:
    """Configs as they were asked for: what stages take from each other lies elsewhere in every pipeline."""
    whole = Side(name, "pipeline", _spoken(without(pipeline.tree, ("stages", "pipeline")), ""))
    section = pipeline.tree.items["stages"]
    for stage in pipeline.stages.values():
        key = f"stages.{stage.name}"
        found = _job_side(name, load_job(resolve_references(stage.tree, sample_value)))
        for leaf_key, leaf in leaves(stage.tree):
            if any(references(Section({"": leaf}, leaf.origin))):
                found.values[leaf_key] = (leaf.value, leaf.origin.where)
        if stage.name in runs:
            run = _run_side(runs[stage.name])
            found.code, found.data, found.results = run.code, run.data or found.data, run.results
        node = section.items[stage.name] if isinstance(section, Section) else None
        if isinstance(node, Section):
            whole.values |= _spoken(without(node, tuple(stage.tree.items)), key)
        whole.add(found, key)
    return whole


def _spoken(node: Section, prefix: str) -> dict[str, Value]:
    """What a file says beside the configs of its stages."""
    return {join(prefix, key): (leaf.value, leaf.origin.where) for key, leaf in leaves(node)}


def _flat(digests: Mapping[str, Any]) -> dict[str, str]:
    """A key that names several files has one digest for each."""
    found: dict[str, str] = {}
    for key, value in digests.items():
        if isinstance(value, list):
            found |= {join(key, str(index)): item for index, item in enumerate(value)}
        else:
            found[key] = value
    return found
