"""The orchestrator is killed with SIGKILL while a stage waits, between two tries, and between two stages."""

import json
import subprocess
import sys

import pytest
from plan_support import FLAKY

from clew.plans import Executor, find_plan, load_pipeline
from clew.runs import State, Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

ORCHESTRATOR = """
import sys
from pathlib import Path
from clew.plans import Executor, load_pipeline, open_plan
from clew.runs import Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent
workspace = Workspace(sys.argv[1])
Executor(open_plan(workspace, "p"), workspace, LocalTarget(), Silent()).execute(load_pipeline(Path(sys.argv[2])))
"""


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "ws")


def killed_when(workspace, text, condition):
    """Carry a pipeline out in a process, and kill that as soon as the plan meets a condition."""
    path = workspace.root.parent / "p.yaml"
    path.write_text(text)
    process = subprocess.Popen([sys.executable, "-c", ORCHESTRATOR, str(workspace.root), str(path)])
    try:
        wait_until(lambda: (plan := find_plan(workspace, "p")) is not None and condition(plan))
    finally:
        process.kill()
        process.wait(timeout=30)
    assert find_plan(workspace, "p").state is State.INTERRUPTED
    return find_plan(workspace, "p")


def told(plan):
    return [json.loads(line)["event"] for line in plan.events.read_text().splitlines()] if plan.events.exists() else []


def resume(workspace):
    plan = find_plan(workspace, "p")
    executor = Executor(plan, workspace, LocalTarget(), Silent())
    return executor.execute(plan.pipeline), executor.results


def test_killed_while_it_waits_for_an_answer(workspace):
    text = f"on_failure: wait\nstages:\n  a: {{job: '{FLAKY}', error: ValueError, good_attempt: 2}}\n"
    plan = killed_when(workspace, text, lambda plan: plan.state is State.PAUSED)
    question = plan.questions()["a"]
    plan.inbox.send("answer", stage="a", question=question.id, choice="resume")
    state, results = resume(workspace)
    assert state is State.COMPLETED
    assert results["a"].run.result.metrics["attempt"] == 2
    assert told(plan) == ["failure", "waiting", "waiting", "answer", "completion"]


def test_killed_while_it_waits_for_another_try(workspace):
    text = f"retry: {{wait_seconds: 600}}\nstages:\n  a: {{job: '{FLAKY}', error: OSError, good_attempt: 2}}\n"
    killed_when(workspace, text, lambda plan: "retry" in told(plan))
    state, results = resume(workspace)
    assert state is State.COMPLETED
    assert results["a"].run.result.attempts == 2


def test_killed_after_an_answer_was_carried_out_halfway(workspace):
    text = f"on_failure: wait\nstages:\n  a: {{job: '{FLAKY}', error: ValueError, gate: {workspace.root / 'gate'}}}\n"
    plan = killed_when(workspace, text, lambda plan: plan.state is State.PAUSED)
    # As "restart" leaves it when it dies between its two writes: older runs do not count, the question is still there.
    plan.renew(["a"])
    (workspace.root / "gate").touch()
    state, results = resume(workspace)
    assert (state, results["a"].run.id, plan.questions()) == (State.COMPLETED, "p.a.2", {})


def test_killed_between_two_stages(workspace, monkeypatch):
    text = f"stages:\n  a: {{job: '{FLAKY}'}}\n  b: {{job: '{FLAKY}', after: a, when: '${{a.metrics.score}} < 1'}}\n"
    path = workspace.root.parent / "p.yaml"
    path.write_text(text)
    # The process ends itself at the very moment at which it would start the second stage.
    halfway = ORCHESTRATOR.replace(
        "workspace = ",
        "import os, signal\nfrom clew.plans.executor import Executor as E\nplain = E._load\n"
        "E._load = lambda self, stage: os.kill(os.getpid(), signal.SIGKILL) if stage.name == 'b' "
        "else plain(self, stage)\nworkspace = ",
    )
    subprocess.run([sys.executable, "-c", halfway, str(workspace.root), str(path)], timeout=60)
    plan = find_plan(workspace, "p")
    assert (plan.state, set(plan.chosen_runs())) == (State.INTERRUPTED, {"a"})
    state, results = resume(workspace)
    assert (state, results["a"].run.result.attempts) == (State.COMPLETED, 1)
    assert results["b"].run.result.metrics["score"] == 0.5


def test_the_stored_pipeline_keeps_conditions_policies_and_who_is_told(workspace):
    text = (
        "notify: {file: told.jsonl}\nretry: {times: 1, wait_seconds: 0}\n"
        f"stages:\n  a: {{job: '{FLAKY}'}}\n"
        f"  b: {{job: '{FLAKY}', when: '${{a.metrics.score}} > 1', on_failure: continue}}\n"
    )
    (workspace.root.parent / "p.yaml").write_text(text)
    from clew.plans import open_plan

    plan = open_plan(workspace, "p")
    asked = load_pipeline(workspace.root.parent / "p.yaml")
    plan.write(asked)
    assert plan.pipeline.notify == asked.notify
    for name in ("a", "b"):
        stored, stage = plan.pipeline.stages[name], asked.stages[name]
        assert (stored.policy, stored.needs, stored.inputs) == (stage.policy, stage.needs, stage.inputs)
    assert plan.pipeline.stages["b"].when.text == "${a.metrics.score} > 1"
    assert plan.pipeline.stages["b"].when.where == asked.stages["b"].when.where
