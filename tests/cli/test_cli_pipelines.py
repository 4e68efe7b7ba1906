from __future__ import annotations

import signal
from pathlib import Path

import pytest
from command_line import Cli, Spawn, has_counted, read_until

from clew.plans import Plan
from clew.runs import State
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

HOLD = ("stages.first.hold_at=7",)


def test_a_pipeline_completes_with_a_table_and_a_report(clew: Cli, project: Path) -> None:
    done = clew("run", "numbers.yaml")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"first: started, attempt 1 ({project / 'runs/numbers.first'})"
    assert lines[-4].split() == ["stage", "job", "state", "time", "metrics"]
    assert lines[-3].split()[0:3] == ["first", "my_job.py:count", "completed"]
    assert lines[-2].endswith("loss 0.2")
    assert lines[-1] == f"report: {project / 'plans/numbers/report.html'}"
    assert (project / "plans/numbers/report.html").is_file()


def test_a_pipeline_is_run_again_only_where_it_changed(clew: Cli) -> None:
    clew("run", "numbers.yaml")
    again = clew("run", "numbers.yaml", "stages.second.to=6")
    assert "first: done already, numbers.first is kept" in again.out
    assert "second: completed at step 6" in again.out


def test_the_name_of_a_pipeline_can_be_given(clew: Cli, project: Path) -> None:
    assert clew("run", "numbers.yaml", "--name", "mine").code == 0
    assert (project / "runs/mine.first").is_dir()


def test_a_failing_stage_fails_the_pipeline(clew: Cli) -> None:
    failed = clew("run", "numbers.yaml", "stages.first.fail_at=7")
    assert failed.code == 1
    assert failed.err == (
        "clew: numbers failed: stage first (numbers.first): ValueError: boom; go on with: clew resume numbers\n"
    )
    table = failed.out.splitlines()
    assert next(line for line in table if line.startswith("second ")).endswith("not started")


def test_a_stage_that_cannot_start_fails_the_pipeline(clew: Cli, project: Path) -> None:
    (project / "late.yaml").write_text(
        "stages:\n  a: {job: my_job.py:count}\n  b: {job: my_job.py:checked, to: -1, source: '${a.run}'}\n"
    )
    failed = clew("run", "late.yaml")
    why = "stage b: to is below zero count up, not down"
    way = "mend that, then clew resume late (if only another config helps: change the file, and clew run it again)"
    assert (failed.code, failed.err) == (1, f"clew: late failed: {why}; {way}\n")
    assert clew("show", "late").out.endswith(f"\nreason       {why}\nnext         {way}\n")


def test_why_a_pipeline_has_failed_is_what_its_last_attempt_says(clew: Cli, project: Path) -> None:
    boom, again = "{job: my_job.py:count, fail_at: 2}", "clew resume late"
    refuses = "{job: my_job.py:checked, to: -1, source: '${a.run}'}"
    mend = f"mend that, then {again} (if only another config helps: change the file, and clew run it again)"
    for first, second, why, way in [
        ("{job: my_job.py:count}", boom, "stage b (late.b): ValueError: boom", again),
        ("{job: my_job.py:count}", refuses, "stage b: to is below zero count up, not down", mend),
        (boom, refuses, "stage a (late.a.2): ValueError: boom", again),
    ]:
        (project / "late.yaml").write_text(f"stages:\n  a: {first}\n  b: {second}\n")
        assert clew("run", "late.yaml").code == 1
        assert clew("show", "late").out.endswith(f"\nreason       {why}\nnext         {way}\n")


def test_a_mistake_in_a_late_stage_shows_before_the_first_runs(clew: Cli, project: Path) -> None:
    refused = clew("run", "numbers.yaml", "stages.second.too=1")
    assert refused.code == 2
    assert "unknown key 'too'" in refused.err
    assert not (project / "runs").exists()


def test_a_dry_run_of_a_pipeline_starts_nothing(clew: Cli, project: Path) -> None:
    done = clew("run", "numbers.yaml", "--dry-run")
    assert done.code == 0
    assert "# pipeline numbers, 2 stages, 1 at a time" in done.out
    assert not (project / "plans").exists()


def test_runs_and_pipelines_share_one_set_of_names(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "mine")
    refused = clew("run", "numbers.yaml", "--name", "mine")
    assert (refused.code, refused.err) == (
        2,
        f"clew: {project}/runs/mine: a run named 'mine' exists already\n  choose another --name\n",
    )
    clew("run", "numbers.yaml")
    refused = clew("run", "count.yaml", "--name", "numbers")
    assert (refused.code, refused.err) == (
        2,
        f"clew: {project}/plans/numbers: a pipeline named 'numbers' exists already\n  choose another --name\n",
    )


def test_a_workspace_that_cannot_be_written(clew: Cli, project: Path) -> None:
    refused = clew("--workspace", "count.yaml", "run", "numbers.yaml")
    assert refused.code == 2
    assert "the workspace cannot be written: Not a directory" in refused.err


@pytest.mark.parametrize("on_failure", ["abort", "continue"])
def test_when_every_stage_fails_the_exit_code_says_so(on_failure: str, clew: Cli, project: Path) -> None:
    stage = "{job: my_job.py:count, fail_at: 2}"
    (project / "bad.yaml").write_text(f"on_failure: {on_failure}\nstages:\n  a: {stage}\n  b: {stage}\n")
    failed = clew("run", "bad.yaml")
    assert failed.code == 1
    assert "clew resume bad" in failed.err
    assert clew("resume", "bad").code == 1


def test_resuming_a_completed_pipeline_says_so(clew: Cli) -> None:
    clew("run", "numbers.yaml")
    again = clew("resume", "numbers")
    assert (again.code, again.out) == (0, "numbers has completed already; clew show numbers shows what came of it\n")


@pytest.mark.parametrize("how", ["stop", "ctrl-c"])
def test_a_stopped_pipeline_goes_on_in_the_middle_of_its_stage(
    how: str, spawn: Spawn, clew: Cli, project: Path
) -> None:
    process = spawn("run", "numbers.yaml", *HOLD)
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "numbers.first", 7))
    if how == "stop":
        asked = clew("stop", "numbers").out
        assert asked.startswith("numbers: asked to stop; what runs (first) saves at its next step and ends, no other")
    else:
        process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert ("clew: stopping" in out) == (how == "ctrl-c")
    wanted = "stage first (numbers.first): stop was asked for at step 7; go on with: clew resume numbers\n"
    assert out.endswith(f"clew: numbers stopped: {wanted}")

    (project / "gate").touch()
    resumed = clew("resume", "numbers")
    assert resumed.code == 0
    assert "first: goes on from step 7" in resumed.out


def test_a_detached_pipeline_goes_on_by_itself(spawn: Spawn, clew: Cli, project: Path) -> None:
    process = spawn("run", "numbers.yaml", "--detach", *HOLD)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("numbers: started (its words go to ")
    plan = Plan(project / "plans/numbers")
    wait_until(lambda: has_counted(project, "numbers.first", 7))
    assert plan.state is State.RUNNING

    (project / "gate").touch()
    followed = clew("resume", "numbers")
    assert followed.code == 0
    assert followed.out.startswith("numbers is running already; following it\n")
    wait_until(lambda: (project / "plans/numbers/report.html").is_file())
    assert "second: completed at step 5" in (project / "plans/numbers/orchestrator.log").read_text()


def test_a_pipeline_whose_orchestrator_was_killed_goes_on(spawn: Spawn, clew: Cli, project: Path) -> None:
    process = spawn("run", "numbers.yaml", *HOLD)
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "numbers.first", 7))
    process.kill()
    process.communicate(timeout=60)
    assert clew("ls").out.count("interrupted") == 1  # the pipeline; its stage has outlived it
    (project / "gate").touch()
    resumed = clew("resume", "numbers")
    assert resumed.code == 0
    assert "second: completed at step 5" in resumed.out


def test_stop_reaches_a_stage_that_has_outlived_its_orchestrator(spawn: Spawn, clew: Cli, project: Path) -> None:
    process = spawn("run", "numbers.yaml", *HOLD)
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "numbers.first", 7))
    process.kill()
    process.communicate(timeout=60)
    assert clew("stop", "numbers").code == 0
    wait_until(lambda: "stopped" in clew("show", "numbers.first").out)
    refused = clew("stop", "numbers")
    assert (refused.code, refused.err.splitlines()[0]) == (
        2,
        "clew: numbers: there is nothing to stop: it is over: interrupted",
    )


def test_a_pipeline_that_was_prepared_but_never_started(clew: Cli, project: Path) -> None:
    clew("run", "numbers.yaml")
    (project / "plans/numbers/tree.json").unlink()
    state = project / "plans/numbers/state.json"
    state.write_text(state.read_text().replace('"completed"', '"created"'))
    refused = clew("resume", "numbers")
    assert (refused.code, refused.err) == (
        2,
        "clew: numbers: this pipeline was never started\n  start it with clew run FILE\n",
    )


def test_a_pipeline_has_no_log_and_no_checkpoints_of_its_own(clew: Cli) -> None:
    clew("run", "numbers.yaml")
    hint = "\n  name the run of a stage: numbers.first, numbers.second\n"
    assert clew("logs", "numbers").err == "clew: numbers: a pipeline has no log of its own" + hint
    assert clew("checkpoint", "numbers").err == "clew: numbers: a pipeline has no checkpoints of its own" + hint
