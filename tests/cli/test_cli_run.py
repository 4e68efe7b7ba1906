from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from command_line import Cli, Spawn, has_counted, read_until

from clew.runs import Owner, Run, State
from clew.runs.files import read_json, write_json
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

HOLD = ("to=10", "hold_at=7")


def test_a_run_completes(clew: Cli, project: Path) -> None:
    done = clew("run", "count.yaml", "--name", "a")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"a: started, attempt 1 ({project / 'runs/a'})"
    assert lines[-3].startswith("a: completed at step 10 after 0:0")
    assert lines[-2:] == ["metrics: loss 0.1", f"number: {project / 'runs/a/artifacts/number'}"]


def test_overrides_and_options_may_be_mixed(clew: Cli, project: Path) -> None:
    assert clew("run", "count.yaml", "to=3", "--name", "a", "seed=4").code == 0
    assert "seed: 4" in (project / "runs/a/config.yaml").read_text()
    assert "counted 4" not in clew("logs", "a").out


def test_a_dry_run_starts_nothing(clew: Cli, project: Path) -> None:
    done = clew("run", "count.yaml", "--dry-run", "to=3")
    assert done.code == 0
    assert "to: 3" in done.out
    assert done.err == "dry run: everything checked, nothing started\n"
    assert not (project / "runs").exists()


def test_a_name_that_is_no_name(clew: Cli) -> None:
    refused = clew("run", "count.yaml", "--name", "../a")
    assert refused.code == 2
    assert refused.err.startswith("clew: --name: '../a' cannot be a name\n")


def test_a_workspace_that_cannot_be_written(clew: Cli, project: Path) -> None:
    refused = clew("--workspace", "count.yaml", "run", "count.yaml")
    assert (refused.code, refused.err) == (
        2,
        f"clew: {project}/count.yaml/runs: the workspace cannot be written: Not a directory\n"
        "  choose another one with --workspace DIR or CLEW_WORKSPACE\n",
    )


def test_a_run_that_fails(clew: Cli, project: Path) -> None:
    failed = clew("run", "count.yaml", "--name", "a", "fail_at=7")
    assert (failed.code, failed.err) == (1, "clew: a failed: ValueError: boom; go on with: clew resume a\n")
    assert "a: failed at step 7" in failed.out


READING = '''
"""A job that reads a file."""

from pathlib import Path

import clew


@clew.job
def read(session: clew.Session[clew.JobConfig]) -> clew.Outcome:
    """Read."""
    if not Path("data.txt").exists():
        raise clew.UserError("there is no data", where="data.txt", hint="make it")
    return clew.Outcome(metrics={"bytes": float(Path("data.txt").stat().st_size)})
'''
MEND = "mend that, then clew resume {} (if only another config helps: {})"


def test_a_run_that_can_only_fail_so_again_is_to_be_mended_before_it_is_resumed(clew: Cli, project: Path) -> None:
    (project / "read.py").write_text(READING)
    (project / "read.yaml").write_text("job: read.py:read\n")
    way = MEND.format("a", "clew fork a key=value, or clew run FILE key=value --name NAME")
    failed = clew("run", "read.yaml", "--name", "a")
    assert (failed.code, failed.err) == (1, f"clew: a failed: data.txt: there is no data (make it); {way}\n")
    assert Run(project / "runs/a").result.failure.lasting
    assert clew("show", "a").out.endswith(f"next         {way}\n")
    (project / "data.txt").write_text("four")
    assert clew("resume", "a").out.endswith("metrics: bytes 4\n")


def test_a_run_that_is_no_longer_finite_goes_on_otherwise_than_it_was(clew: Cli, project: Path) -> None:
    raised = 'raise clew.UserError("there is no data", where="data.txt", hint="make it")'
    (project / "read.py").write_text(READING.replace(raised, 'raise clew.errors.NotFinite("no number")'))
    (project / "read.yaml").write_text("job: read.py:read\n")
    way = "clew resume a lr_mul=0.5, say, or --at an earlier step (as it was, it would end so again)"
    assert clew("run", "read.yaml", "--name", "a").err == f"clew: a failed: no number; go on with: {way}\n"
    assert clew("show", "a").out.endswith(f"next         {way}\n")


def test_so_is_a_pipeline_with_such_a_run(clew: Cli, project: Path) -> None:
    (project / "read.py").write_text(READING)
    (project / "pipeline.yaml").write_text("pipeline: p\nstages:\n  a: {job: read.py:read}\n")
    failed = clew("run", "pipeline.yaml")
    way = MEND.format("p", "change the file, and clew run it again")
    why = "stage a (p.a): data.txt: there is no data (make it)"
    assert failed.err == f"clew: p failed: {why}; {way}\n"
    assert clew("show", "p").out.endswith(f"\nreason       {why}\nnext         {way}\n")
    (project / "data.txt").write_text("four")
    assert clew("resume", "p").code == 0
    assert "reason" not in clew("show", "p").out


def test_a_failed_run_is_resumed_from_its_checkpoint(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a", "fail_at=7")
    failed = clew("resume", "a")
    assert failed.code == 1
    assert "a: goes on from step 5" in failed.out


def test_resuming_a_completed_run_says_so(clew: Cli) -> None:
    clew("run", "count.yaml", "--name", "a")
    again = clew("resume", "a")
    assert (again.code, again.out) == (0, "a has completed already; clew show a shows what came of it\n")


def test_a_run_that_belongs_to_another_machine_is_left_alone(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a", "fail_at=2")
    path = project / "runs/a/state.json"
    owner = {"host": f"not-{socket.gethostname()}", "pid": 1, "started": 1}
    write_json(path, {**read_json(path), "state": "running", "owner": owner, "lease_until": time.time() - 1})
    refused = clew("resume", "a")
    assert (refused.code, refused.err.splitlines()[0]) == (
        2,
        "clew: a: it was started on another machine, and nothing answers from there",
    )


def test_a_run_that_is_being_started_is_not_started_twice(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a", "fail_at=2")
    Run(project / "runs/a").states.queue()
    refused = clew("resume", "a")
    assert (refused.code, refused.err.splitlines()[0]) == (2, "clew: a: another process has just started this run")


def test_stop_saves_and_resume_goes_on(spawn: Spawn, clew: Cli, project: Path) -> None:
    process = spawn("run", "count.yaml", "--name", "a", *HOLD)
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "a", 7))
    asked = clew("stop", "a")
    wanted = "a: asked to stop; it saves at its next step and ends; clew resume a goes on from there\n  command 01"
    assert (asked.code, asked.out[: len(wanted)]) == (0, wanted)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.endswith("clew: a stopped: stop was asked for at step 7; go on with: clew resume a\n")

    (project / "gate").touch()
    resumed = clew("resume", "a")
    assert resumed.code == 0
    assert "a: goes on from step 7" in resumed.out


def test_checkpoint_saves_and_the_run_goes_on(spawn: Spawn, clew: Cli, project: Path) -> None:
    process = spawn("run", "count.yaml", "--name", "a", *HOLD)
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "a", 7))
    assert clew("checkpoint", "a").out.startswith("a: asked to save; it saves at its next step\n")
    wait_until(lambda: (project / "runs/a/checkpoints/step-00000007/manifest.json").exists())
    (project / "gate").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_run_that_is_over_takes_no_commands(clew: Cli) -> None:
    clew("run", "count.yaml", "--name", "a")
    clew("run", "count.yaml", "--name", "b", "fail_at=2")
    more = {"set": ["lr=1"], "note": ["word"]}
    for verb in ("stop", "checkpoint", "pause", "step", "abort", "set", "note"):
        refused = clew(verb, "a", *more.get(verb, []))
        assert (refused.code, refused.err) == (2, f"clew: a: there is nothing to {verb}: it is over: completed\n")
        assert clew(verb, "b", *more.get(verb, [])).err == (
            f"clew: b: there is nothing to {verb}: it is over: failed\n  clew resume b goes on with it\n"
        )


def test_ctrl_c_asks_the_run_to_stop_and_says_so(spawn: Spawn, project: Path) -> None:
    process = spawn("run", "count.yaml", "--name", "a", *HOLD)
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "a", 7))
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "clew: stopping, each run saves first: a (Ctrl-C again to leave without waiting)\n" in out
    assert out.endswith("clew: a stopped: stop was asked for at step 7; go on with: clew resume a\n")


def test_a_second_ctrl_c_leaves_the_run_to_itself(spawn: Spawn, project: Path) -> None:
    (project / "deaf.py").write_text(
        (project / "my_job.py")
        .read_text()
        .replace("            session.boundary(step)\n            time", "            time")
    )
    (project / "deaf.yaml").write_text("job: deaf.py:count\nhold_at: 7\n")
    process = spawn("run", "deaf.yaml", "--name", "a")
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "a", 7))
    process.send_signal(signal.SIGINT)
    read_until(process, "clew: stopping")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == "clew: leaving; what runs here ends by itself when it has saved (a)\n"
    run = Run(project / "runs/a")
    assert run.state is State.RUNNING
    (project / "gate").touch()
    wait_until(lambda: run.state is State.STOPPED)


def test_detach_returns_while_the_run_goes_on(spawn: Spawn, clew: Cli, project: Path) -> None:
    process = spawn("run", "count.yaml", "--name", "a", "--detach", *HOLD)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("a: started, attempt 1\n  clew logs -f a follows")
    run = Run(project / "runs/a")
    assert run.state is State.RUNNING
    assert clew("resume", "a", "--detach").out == "a is running already, attempt 1\n"
    (project / "gate").touch()
    followed = clew("resume", "a")
    assert followed.code == 0
    assert run.state is State.COMPLETED


def test_resume_follows_a_run_that_is_alive(spawn: Spawn, clew: Cli, project: Path) -> None:
    spawn("run", "count.yaml", "--name", "a", "--detach", *HOLD).communicate(timeout=60)
    process = spawn("resume", "a")
    read_until(process, "a is running already, attempt 1; following it")
    (project / "gate").touch()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "a: completed at step 10" in out


def test_a_killed_run_is_interrupted_and_can_be_resumed(spawn: Spawn, clew: Cli, project: Path) -> None:
    process = spawn("run", "count.yaml", "--name", "a", *HOLD)
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "a", 7))
    owner = Run(project / "runs/a").states.read().owner
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "clew: a interrupted: the worker was killed by SIGKILL" in out
    assert out.endswith("; go on with: clew resume a\n")

    (project / "gate").touch()
    resumed = clew("resume", "a")
    assert resumed.code == 0
    assert "a: goes on from step 5" in resumed.out
    assert "a: completed at step 10" in resumed.out


def test_a_run_that_died_with_its_starter_can_be_resumed(spawn: Spawn, clew: Cli, project: Path) -> None:
    spawn("run", "count.yaml", "--name", "a", "--detach", *HOLD).communicate(timeout=60)
    run = Run(project / "runs/a")
    wait_until(lambda: has_counted(project, "a", 7))
    owner = run.states.read().owner
    assert owner is not None and owner != Owner.current()
    os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: run.state is State.INTERRUPTED)
    (project / "gate").touch()
    assert clew("resume", "a").code == 0


def test_an_unknown_run_is_guessed(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "alpha")
    for verb in ("show", "logs", "stop", "checkpoint", "resume", "report"):
        refused = clew(verb, "alhpa")
        assert (refused.code, refused.err) == (
            2,
            f"clew: {project}: there is no run or pipeline 'alhpa'\n  did you mean 'alpha'?\n",
        )
    assert clew("show", "zzz").err.endswith("  clew ls shows what there is\n")
