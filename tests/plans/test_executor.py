import os
import signal
import subprocess
import sys

import pytest

from clew.plans import Executor, find_plan, load_pipeline, open_plan
from clew.runs import State, Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent
from support import TINY, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]


class Recorder(Silent):
    """Remembers what was started and what was kept."""

    def __init__(self):
        self.log = []
        self.most = 0
        self._active = 0

    def started(self, label, run):
        self.log.append(("started", label))
        self._active += 1
        self.most = max(self.most, self._active)

    def reused(self, label, run):
        self.log.append(("reused", label))

    def ended(self, label, run, state):
        self._active -= 1


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "ws")


def stage(**config):
    return {"job": TINY, **config}


def execute(workspace, stages, **top):
    recorder = Recorder()
    executor = Executor(open_plan(workspace, "p"), workspace, LocalTarget(), recorder)
    state = executor.execute(load_pipeline({"stages": stages, **top}))
    return state, recorder, executor.results


CHAIN = {
    "a": stage(until=3),
    "b": stage(until=3, source="${a.artifacts.walk.txt}", start="${a.metrics.value}"),
    "c": stage(until=2, after="b"),
}


def test_outputs_are_wired_into_later_stages(workspace):
    state, recorder, results = execute(workspace, CHAIN)
    assert state is State.COMPLETED
    assert [label for _, label in recorder.log] == ["a", "b", "c"]
    first, second = results["a"].run.result.metrics["value"], results["b"].run.result.metrics["value"]
    text = (results["a"].run.artifacts / "walk.txt").read_text()
    assert second == pytest.approx(2 * first + len(text))


def test_finished_stages_are_not_run_again(workspace):
    execute(workspace, CHAIN)
    state, recorder, _ = execute(workspace, CHAIN)
    assert state is State.COMPLETED
    assert recorder.log == [("reused", "a"), ("reused", "b"), ("reused", "c")]


def test_a_changed_stage_takes_along_what_depends_on_its_outputs_and_nothing_else(workspace):
    execute(workspace, CHAIN)
    _, recorder, results = execute(workspace, {**CHAIN, "a": stage(until=4)})
    assert recorder.log == [("started", "a"), ("started", "b"), ("reused", "c")]
    assert results["a"].run.id == "p.a.2"


def test_going_back_to_an_earlier_config_finds_its_run(workspace):
    execute(workspace, CHAIN)
    execute(workspace, {**CHAIN, "a": stage(until=4)})
    _, recorder, results = execute(workspace, CHAIN)
    assert {kind for kind, _ in recorder.log} == {"reused"}
    assert results["a"].run.id == "p.a"


def test_a_stage_whose_output_was_deleted_is_run_again(workspace):
    _, _, results = execute(workspace, CHAIN)
    (results["a"].run.artifacts / "walk.txt").unlink()
    _, recorder, _ = execute(workspace, CHAIN)
    assert recorder.log == [("started", "a"), ("reused", "b"), ("reused", "c")]


def test_what_does_not_change_results_starts_nothing(workspace):
    execute(workspace, CHAIN)
    _, recorder, _ = execute(workspace, {**CHAIN, "a": stage(until=3, notes="for the record")})
    assert {kind for kind, _ in recorder.log} == {"reused"}


def test_independent_stages_run_side_by_side_up_to_the_limit(workspace):
    stages = {name: stage(until=10, pause=0.05, seed=number) for number, name in enumerate("abcd")}
    state, recorder, _ = execute(workspace, stages, max_parallel=2)
    assert state is State.COMPLETED
    assert recorder.most == 2


def test_a_failed_stage_ends_the_pipeline_and_what_needs_it_is_not_started(workspace):
    stages = {"a": stage(fail_at=2), "b": stage(after="a")}
    state, recorder, results = execute(workspace, stages)
    assert state is State.FAILED
    assert recorder.log == [("started", "a")]
    assert results["a"].run.result.failure.reason == "the job went wrong"
    assert "b" not in results


def test_a_mended_stage_lets_the_pipeline_go_on(workspace):
    execute(workspace, {"z": stage(until=2), "a": stage(fail_at=2, after="z"), "b": stage(after="a")})
    state, recorder, _ = execute(workspace, {"z": stage(until=2), "a": stage(after="z"), "b": stage(after="a")})
    assert state is State.COMPLETED
    assert recorder.log == [("reused", "z"), ("started", "a"), ("started", "b")]


def test_a_stop_that_came_too_late_does_not_stop_the_next_attempt(workspace):
    execute(workspace, {"a": stage(fail_at=2)})
    find_plan(workspace, "p").inbox.send("stop")
    state, recorder, _ = execute(workspace, {"a": stage(until=3)})
    assert (state, recorder.log) == (State.COMPLETED, [("started", "a")])


def test_a_reference_to_an_output_that_was_not_made_fails_that_stage_with_a_hint(workspace):
    state, _, results = execute(workspace, {"a": stage(until=2), "b": stage(source="${a.artifacts.wlak.txt}")})
    assert state is State.FAILED
    assert "the stage has no 'artifacts.wlak.txt'" in str(results["b"].error)
    assert "did you mean 'walk.txt'?" in str(results["b"].error)


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


def orchestrate(workspace, tmp_path, pause):
    text = f"stages:\n  a:\n    job: {TINY}\n    until: 40\n    pause: {pause}\n"
    (tmp_path / "p.yaml").write_text(text + f"  b:\n    job: {TINY}\n    start: ${{a.metrics.value}}\n")
    command = [sys.executable, "-c", ORCHESTRATOR, str(workspace.root), str(tmp_path / "p.yaml")]
    process = subprocess.Popen(command)
    first = workspace.runs / "p.a"
    wait_until(lambda: any(find_plan(workspace, "p") and (first / "journal").glob("*")) if first.exists() else False)
    return process


def resume(workspace):
    plan = find_plan(workspace, "p")
    recorder = Recorder()
    executor = Executor(plan, workspace, LocalTarget(), recorder)
    return executor.execute(plan.pipeline), recorder, executor.results


def test_after_a_killed_orchestrator_the_live_worker_is_adopted(workspace, tmp_path):
    process = orchestrate(workspace, tmp_path, pause=0.05)
    process.kill()
    process.wait(timeout=30)
    state, _, results = resume(workspace)
    assert state is State.COMPLETED
    assert results["a"].run.result.attempts == 1


def test_after_a_killed_orchestrator_and_worker_the_stage_goes_on(workspace, tmp_path):
    process = orchestrate(workspace, tmp_path, pause=0.02)
    from clew.runs import Run

    run = Run(workspace.runs / "p.a")
    wait_until(lambda: any(run.events("checkpoint")))
    process.kill()
    process.wait(timeout=30)
    os.kill(run.states.read().owner.pid, signal.SIGKILL)
    state, _, results = resume(workspace)
    assert state is State.COMPLETED
    assert results["a"].run.result.attempts == 2
    assert [event["step"] for event in run.events("metric")] == list(range(1, 41))


def test_two_orchestrators_of_one_plan_are_refused(workspace, tmp_path):
    process = orchestrate(workspace, tmp_path, pause=0.05)
    from clew.runs import IllegalMove

    with pytest.raises(IllegalMove, match="p: a run that is running cannot become queued"):
        resume(workspace)
    assert process.wait(timeout=60) == 0


def test_stop_stops_the_stage_that_runs_and_resume_finishes(workspace, tmp_path):
    process = orchestrate(workspace, tmp_path, pause=0.05)
    find_plan(workspace, "p").inbox.send("stop")
    process.wait(timeout=60)
    assert find_plan(workspace, "p").state is State.STOPPED
    assert resume(workspace)[0] is State.COMPLETED
