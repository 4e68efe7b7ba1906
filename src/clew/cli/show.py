"""``clew show``: all about one run or pipeline."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clew.checkpoints import CheckpointStore
from clew.cli.advice import LONGEST, way_on, why_it_ended
from clew.cli.finding import find, workspace_of
from clew.cli.latest import Latest, latest
from clew.cli.text import age, clock, number, one_line, size
from clew.runs import ACTIVE, RESUMABLE, Failure, JobResult, Run, RunInfo, RunState, State, Workspace
from clew.runs.following import read_records, trouble_of
from clew.runs.pushed import read_remote
from clew.runs.states import LEASE_SECONDS, OWNED

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.plans import Plan

_LOG_LINES = 10


def configure(parser: Parser, verb: str) -> None:
    """Add the argument."""
    parser.add_argument("name", metavar="RUN|PIPELINE", help="see clew ls")


def main(arguments: Namespace) -> int:
    """Print all about it."""
    workspace = workspace_of(arguments)
    found = find(workspace, arguments.name)
    if isinstance(found, Run):
        for name, value in _facts(found):
            print(f"{name:<12} {value}".rstrip())
    else:
        _show_plan(found, workspace)
    return 0


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """Names and values; an empty name goes on with what the last one is about."""
    info, stored, state = run.info, run.states.read(), run.state
    result, now = run.result, latest(run)
    yield "run", run.id
    yield "job", info.job
    yield from _lineage(info, stored)
    if info.plan:
        yield "pipeline", f"{info.plan}, stage {info.stage}"
    yield "state", _state(state, stored)
    yield "created", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(info.created))}"
    yield "folder", str(run.path)
    yield "config", f"{run.config_path} (hash {info.config_hash[:12]}, code {info.code_hash[:12]})"
    yield from _progress(now, result)
    yield from _outputs(run, result)
    yield from _trackers(run)
    yield from _pushes(run, result)
    if result is not None:
        yield from _circumstances(result)
    if result is not None and result.failure is not None and result.attempts == stored.attempt and state in RESUMABLE:
        yield "reason", result.failure.cause
        for line in result.failure.log_tail[-_LOG_LINES:]:
            yield "", f"| {line}"
    elif state is State.PAUSED and now.paused:
        yield "reason", now.paused
    elif stored.reason and state not in ACTIVE:
        yield "reason", stored.reason
    last = result if result is not None and result.attempts == stored.attempt else None
    if next_step := _next(run, state, last.failure if last is not None else None):
        yield "next", next_step


def _lineage(info: RunInfo, stored: RunState) -> Iterator[tuple[str, str]]:
    """Where the run comes from, and as what its process went on."""
    if info.parent is not None:
        changes = ", ".join(f"{key}={value}" for key, value in info.changes.items())
        yield "forked from", f"{info.parent} at step {info.fork_step}{f' with {changes}' if changes else ''}"
    if info.replay_of is not None:
        yield "replay of", info.replay_of
    if stored.successor:
        yield "goes on as", stored.successor


def _state(state: State, stored: RunState) -> str:
    passed = age(time.time() - _changed(state, stored))
    since = f" for {passed}" if state in ACTIVE else f", {passed} ago"
    owner = f", process {stored.owner.pid} on {stored.owner.host}" if stored.owner and state in ACTIVE else ""
    return f"{state}{since}, attempt {stored.attempt}{owner}"


def _changed(state: State, stored: RunState) -> float:
    """Since when it is so: of one whose owner is gone since its lease was renewed the last time, which it often is."""
    if stored.lease_until is None or stored.state not in OWNED or state in OWNED:
        return stored.changed
    return max(stored.changed, stored.lease_until - LEASE_SECONDS)


def _progress(now: Latest, result: JobResult | None) -> Iterator[tuple[str, str]]:
    for outcome in now.refused:
        yield "its fork", outcome
    if now.steps:
        yield now.unit, now.steps
    if now.metrics:
        intervals = result.intervals if result is not None and now.metrics_step is None else {}
        shown = ", ".join(_metric(name, value, intervals.get(name)) for name, value in now.metrics.items())
        yield "metrics", shown + (f" ({now.unit} {now.metrics_step})" if now.metrics_step else "")
    if result is not None and result.seconds:
        yield "time", f"{clock(result.seconds)} in {result.attempts} attempt{'s' if result.attempts > 1 else ''}"


def _metric(name: str, value: float, interval: Mapping[str, Any] | None) -> str:
    """A figure, with its 95 % interval where it has one."""
    text = f"{name} {number(value)}"
    return f"{text} ({number(interval['low'])} to {number(interval['high'])})" if interval else text


def _circumstances(result: JobResult) -> Iterator[tuple[str, str]]:
    """What is known of some runs only."""
    data = result.environment.get("data") or {}
    label = "data"
    for key, digest in data.items():
        yield label, f"{key} {digest[:12]}"
        label = ""
    if result.instance is not None:
        yield "machine", result.instance + (", which was taken away" if result.preempted else "")
    elif result.preempted:
        yield "machine", "was taken away"
    if result.energy is not None:
        kind = "estimated by" if result.energy.estimated else "metered by"
        yield "energy", f"{result.energy.joules:,.0f} J, {kind} {result.energy.meter}"


def _trackers(run: Run) -> Iterator[tuple[str, str]]:
    label = "tracked by"
    for record in read_records(run.path, "tracker"):
        trouble = trouble_of(run.path, record)
        yield label, " ".join(filter(None, (f"{record.name}:", record.place, trouble and f"({trouble})")))
        label = ""


def _pushes(run: Run, result: JobResult | None) -> Iterator[tuple[str, str]]:
    """Where the run is besides, and why what its config asks for has not been done."""
    label = "pushed to"
    remote = read_remote(run.path) or (result.remote if result is not None else None)
    if remote is not None:
        yield label, remote.url + (f" at {remote.revision}" if remote.revision else "")
        label = ""
    for trouble in filter(None, (trouble_of(run.path, record) for record in read_records(run.path, "push"))):
        yield label, f"({trouble})"


def _outputs(run: Run, result: JobResult | None) -> Iterator[tuple[str, str]]:
    label = "checkpoints"
    for checkpoint in CheckpointStore(run.checkpoints).all():
        yield label, str(checkpoint.path)
        label = ""
    label = "artifacts"
    for artifact in result.artifacts.values() if result is not None else ():
        yield label, f"{run.path / artifact.path} ({size(artifact.bytes)})"
        label = ""


def _next(run: Run, state: State, why: Failure | None) -> str:
    if state in RESUMABLE or state is State.CREATED:
        return way_on(run.id, why)
    if state is State.PAUSED:
        return f"clew resume {run.id} lets it go on, clew stop {run.id} ends it"
    if state in ACTIVE:
        return f"clew resume {run.id} follows it, clew stop {run.id} ends it"
    return ""


def _show_plan(plan: Plan, workspace: Workspace) -> None:
    from clew.cli.detach import log_path
    from clew.cli.outcome import print_stages
    from clew.plans import CHOICES, latest_runs

    state = plan.state
    print(f"pipeline     {plan.id}")
    print(f"state        {_state(state, plan.states.read())}")
    print(f"config       {plan.path / 'pipeline.yaml'}")
    if log_path(plan).is_file():
        print(f"log          {log_path(plan)}")
    if (plan.path / "report.html").is_file():
        print(f"report       {plan.path / 'report.html'}")
    if (plan.path / "tree.json").is_file():
        print()
        print_stages(plan, latest_runs(plan, workspace))
    for stage, reason in plan.skipped().items():
        print(f"\nskipped      {stage}: {reason}")
    for question in plan.questions().values():
        print(f"\nasks         {question.stage}: {question.reason}")
        print(f"answer       clew answer {plan.id} {question.stage} {'|'.join(CHOICES)}")
    if state in RESUMABLE:
        why = why_it_ended(plan, workspace)
        print(f"\nreason       {one_line(why.reason, LONGEST)}" if why else "")
        print(f"next         {way_on(plan.id, why, is_plan=True)}")
