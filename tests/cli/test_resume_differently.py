"""``clew resume`` with something said: for every state of a run, and for a pipeline."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from command_line import Cli, Spawn, read_until

from clew.checkpoints import CheckpointStore
from clew.runs import Run, State
from clew.runs.files import read_json, write_json
from support import wait_until

WALKING = '''
"""A job that can be set."""

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import clew


@clew.config
class StrideConfig(clew.JobConfig):
    """Strides."""

    steps: int = 10
    """How far."""
    lr: float = 1.0
    """How long a stride is."""
    fail_at: int = 0
    """Raise at this step."""
    hold_at: int = 0
    """Wait at this step until the gate is there."""
    checkpoint: clew.CheckpointConfig = clew.CheckpointConfig(every=3)
    """When to save."""


class Strides:
    def __init__(self, config: StrideConfig) -> None:
        self.lr, self.last = config.lr, config.steps
        self.done, self.far = 0, 0.0

    def settings(self) -> list[clew.Setting]:
        return [
            clew.Setting("lr", lambda: self.lr, partial(setattr, self, "lr"), low=0, open=True, key="lr"),
            clew.Setting(
                "steps", lambda: self.last, partial(setattr, self, "last"), low=self.done + 1, whole=True, key="steps"
            ),
        ]

    def save(self, directory: Path) -> None:
        (directory / "state").write_text(f"{self.done} {self.far!r}")

    def load(self, directory: Path) -> None:
        done, far = (directory / "state").read_text().split()
        self.done, self.far = int(done), float(far)


@clew.job
def stride(session: clew.Session[StrideConfig]) -> clew.Outcome:
    """Go far."""
    config = session.config
    walk = Strides(config)
    session.attach(walk, config.checkpoint)
    session.horizon(walk.last)
    while walk.done < walk.last:
        walk.done += 1
        walk.far += walk.lr
        session.log(walk.done, far=walk.far)
        if walk.done == config.fail_at and session.attempt == 1:
            raise ValueError("boom")
        session.boundary(walk.done)
        while walk.done == config.hold_at and not Path("gate").exists():
            session.boundary(walk.done)
            time.sleep(0.01)
    return clew.Outcome(metrics={"far": walk.far})
'''


@pytest.fixture
def strides(project: Path) -> Path:
    """A job with settings and a checkpoint policy in its config, beside the others of the project."""
    (project / "stride.py").write_text(WALKING)
    (project / "stride.yaml").write_text("job: stride.py:stride\n")
    return project


def run_of(project: Path, name: str = "a") -> Run:
    return Run(project / "runs" / name)


def standing(spawn: Spawn, at: int = 7) -> subprocess.Popen[str]:
    """A process whose run stands at a step until the gate is there."""
    process = spawn("run", "stride.yaml", "--name", "a", f"hold_at={at}")
    read_until(process, "started")
    return process


def go_on(process: subprocess.Popen[str], project: Path) -> None:
    """Open the gate, and wait for the end."""
    (project / "gate").touch()
    process.communicate(timeout=60)


def fail(clew: Cli, *more: str) -> None:
    """A run that has failed at step 8, and saved at 3 and 6."""
    assert clew("run", "stride.yaml", "--name", "a", "fail_at=8", *more).code == 1


def refused(clew: Cli, *words: str) -> str:
    done = clew("resume", *words)
    assert done.code == 2, done
    return done.err


# A run that is over.


@pytest.mark.slow
def test_a_failed_run_goes_on_with_what_is_said(clew: Cli, strides: Path) -> None:
    fail(clew)
    done = clew("resume", "a", "checkpoint.every=2", "lr=0.5", "--on", "local")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[:3] == [
        "a: checkpoint.every = 2 from now on (it was 3)",
        "a: lr = 0.5 is set where it begins",
        "a: runs on local",
    ]
    assert "a: goes on from step 6" in lines
    assert lines[-1] == "metrics: far 8"
    assert [one.step for one in CheckpointStore(run_of(strides).checkpoints).all()] == [10, 8]
    told = clew("explain", "a", "checkpoint.every").out.splitlines()
    assert told[0] == "checkpoint.every = 2"
    assert told[1].split() == ["resume", "clew", "resume,", "after", "attempt", "1", "2"]
    assert clew("explain", "a", "lr").out.splitlines()[0] == "lr = 1.0"
    assert refused_explain(clew).startswith("clew: a: a run has its values")


def refused_explain(clew: Cli) -> str:
    done = clew("explain", "a", "lr", "lr=3")
    assert done.code == 2
    return done.err


@pytest.mark.slow
def test_a_failed_run_goes_back_to_an_earlier_checkpoint(clew: Cli, strides: Path) -> None:
    fail(clew)
    said = refused(clew, "a", "--at", "4")
    assert said.startswith("clew: a: there is no checkpoint '4'\n") and said.endswith("3, 6\n")
    done = clew("resume", "a", "--at", "3", "lr=2")
    assert done.code == 0, done.err
    assert done.out.splitlines()[:2] == [
        "a: lr = 2 is set where it begins",
        "a: goes back to step 3; what came later counts no longer, and is set aside",
    ]
    assert done.out.splitlines()[-1] == "metrics: far 17"
    run = run_of(strides)
    assert [event["step"] for event in run.events("metric")] == list(range(1, 11))
    assert [path.name for path in (run.path / "aside" / "2").iterdir()] == ["step-00000006"]
    told = clew("gc").out.splitlines()
    assert told[0].startswith("runs/a/aside/2: set aside when the run went back, ")
    assert clew("gc", "--yes").code == 0
    assert clew("gc").out.startswith("nothing was left behind")
    assert (run.path / "checkpoints").is_dir()


@pytest.mark.slow
def test_what_would_alter_the_past_is_refused_and_the_fork_that_is_named_does_it(clew: Cli, strides: Path) -> None:
    fail(clew)
    said = refused(clew, "a", "checkpoint.every=2", "hold_at=0", "seed=4")
    assert said == (
        "clew: a: seed (0) cannot change: the steps that are done were made with it\n"
        "  clew fork a checkpoint.every=2 hold_at=0 seed=4 makes a child that goes on so\n"
    )
    assert run_of(strides).state is State.FAILED
    assert clew("fork", "a", "checkpoint.every=2", "seed=4", "fail_at=0", "--name", "b", "--hold").code == 0
    assert clew("resume", "b").code == 0


@pytest.mark.slow
def test_an_end_that_a_run_has_passed_is_refused_before_a_worker_starts(clew: Cli, strides: Path) -> None:
    fail(clew)
    assert refused(clew, "a", "steps=4", "lr=2") == (
        "clew: a: steps cannot be 4: 6 steps are done\n"
        "  say more than 6; or clew fork a --at 3 steps=4 lr=2 makes a child that ends there\n"
    )
    state = run_of(strides).states.read()
    assert (state.attempt, run_of(strides).state) == (1, State.FAILED)
    assert clew("fork", "a", "--at", "3", "steps=4", "lr=2", "--name", "b", "--hold").code == 0
    assert clew("resume", "b").out.splitlines()[-1] == "metrics: far 5"


@pytest.mark.slow
def test_what_the_run_refuses_to_set_stops_it(clew: Cli, strides: Path) -> None:
    fail(clew)
    said = refused(clew, "a", "lr=-1")
    assert said.startswith("clew: a: set rejected: lr must be above 0, not '-1'\n  it was stopped, and nothing is lost")
    assert run_of(strides).state in (State.STOPPED, State.COMPLETED)


@pytest.mark.slow
def test_detached_it_is_known_whether_the_run_has_set_it(spawn: Spawn, clew: Cli, strides: Path) -> None:
    fail(clew, "hold_at=9")
    out, _ = spawn("resume", "a", "lr=0.5", "--detach").communicate(timeout=60)
    assert out.splitlines()[:2] == ["a: lr = 0.5 is set where it begins", "a: started, attempt 2"]
    (set_,) = run_of(strides).events("command")
    assert (set_["verb"], set_["at"], set_["outcome"]) == ("set", 6, "applied")
    (strides / "gate").touch()
    wait_until(lambda: run_of(strides).state is State.COMPLETED)


@pytest.mark.slow
def test_a_completed_run_stays_what_it_is(clew: Cli, strides: Path) -> None:
    assert clew("run", "stride.yaml", "--name", "a").code == 0
    for words, fork in [
        (["steps=20"], "clew fork a steps=20"),
        (["--at", "6"], "clew fork a --at 6"),
        (["--ranks", "2"], "clew fork a"),
        (["--on", "local"], "clew fork a"),
    ]:
        assert refused(clew, "a", *words) == (
            f"clew: a: it has completed, and stays what it is\n  {fork} makes a child that goes on from there\n"
        )
    assert clew("resume", "a", "--take-over").out.startswith("a has completed already")
    assert clew("fork", "a", "steps=20", "--name", "b", "--hold").code == 0
    assert clew("resume", "b").out.splitlines()[-1] == "metrics: far 20"


@pytest.mark.slow
def test_a_run_that_was_never_started(clew: Cli, strides: Path) -> None:
    fail(clew)
    assert clew("fork", "a", "fail_at=0", "--name", "b", "--hold").code == 0
    assert refused(clew, "b", "--at", "3") == "clew: b: there is no checkpoint '3'\n  there is 6\n"
    done = clew("resume", "b", "checkpoint.every=2", "lr=3", "--at", "6", "--take-over")
    assert (done.code, done.out.splitlines()[-1]) == (0, "metrics: far 18")


def test_what_is_unknown_is_told_with_what_there_is(clew: Cli, strides: Path) -> None:
    from clew.jobs import create_job_run, load_job
    from clew.runs import Workspace

    create_job_run(Workspace(strides), load_job(strides / "stride.yaml", ["name=a"]))
    assert refused(clew, "a", "--on", "locl") == "clew: there is no target 'locl'\n  did you mean 'local'?\n"
    assert refused(clew, "a", "--at", "3") == "clew: a: there is no checkpoint '3'\n  it has saved none yet\n"
    assert "did you mean 'checkpoint.every'?" in refused(clew, "a", "checkpoint.evry=2")
    assert refused(clew, "a", "lr=0.5").startswith("clew: a: lr (1.0) cannot change: it makes the run what it is\n")
    assert refused(clew, "a", "--from-stage", "x") == (
        "clew: a: a single job has no stages\n  --from-stage is for pipelines\n"
    )
    assert run_of(strides).state is State.CREATED


# A run that is alive.


@pytest.mark.slow
def test_a_running_run_is_steered_or_stopped_first(spawn: Spawn, clew: Cli, strides: Path) -> None:
    process = standing(spawn)
    wait_until(lambda: [event["step"] for event in run_of(strides).events("metric")][-1:] == [7])
    begin = "clew: a: it is running, and goes on differently only in its next attempt\n  "
    assert refused(clew, "a", "lr=0.5") == f"{begin}clew set a lr=0.5 changes that at once\n"
    for words in (["checkpoint.every=2"], ["lr=0.5", "checkpoint.every=2"], ["--at", "3"], ["--ranks", "2"]):
        assert refused(clew, "a", *words) == f"{begin}clew stop a, then clew resume a {' '.join(words)}\n"
    assert refused(clew, "a", "--on", "local").startswith(begin)
    for words in (["seed=4"], ["checkpoint.every=2", "seed=4"]):  # nobody is told to stop it for what cannot be
        assert refused(clew, "a", *words).startswith("clew: a: seed (0) cannot change: the steps that are done")
    assert "'checkpoint.every' must be int >= 1" in refused(clew, "a", "checkpoint.every=0")
    assert refused(clew, "a", "--take-over") == (
        "clew: a: there is nothing to take over: it is running on this machine\n"
        "  clew resume a follows it; clew stop a ends it\n"
    )
    assert not (run_of(strides).path / "resume.json").exists()
    go_on(process, strides)


@pytest.mark.slow
def test_a_run_that_is_about_to_end_is_waited_for(spawn: Spawn, clew: Cli, strides: Path) -> None:
    process = standing(spawn)
    assert clew("stop", "a", "--at", "7", "--wait").code == 0
    (strides / "gate").touch()
    done = clew("resume", "a", "lr=0.5")
    assert (done.code, done.out.splitlines()[-1]) == (0, "metrics: far 8.5"), done.err
    process.communicate(timeout=60)


@pytest.mark.slow
def test_a_paused_run_is_set_and_goes_on(spawn: Spawn, clew: Cli, strides: Path) -> None:
    process = standing(spawn)
    assert clew("pause", "a", "--at", "7", "--wait").code == 0
    assert refused(clew, "a", "checkpoint.every=2") == (
        "clew: a: it is paused, and goes on differently only in its next attempt\n"
        "  clew stop a, then clew resume a checkpoint.every=2\n"
    )
    assert refused(clew, "a", "lr=-1").startswith("clew: a: set rejected: lr must be above 0, not '-1'")
    assert run_of(strides).state is State.PAUSED
    (strides / "gate").touch()
    done = clew("resume", "a", "lr=0.5")
    assert (done.code, done.out.splitlines()[0]) == (0, "a was paused; it goes on with lr=0.5")
    process.communicate(timeout=60)
    assert run_of(strides).result.metrics == {"far": 8.5}


@pytest.mark.slow
def test_a_run_that_is_being_started_is_left_alone(clew: Cli, strides: Path) -> None:
    fail(clew)
    run_of(strides).states.queue()
    assert refused(clew, "a", "lr=0.5") == (
        "clew: a: it is being started, and goes on differently only in its next attempt\n"
        "  clew set a lr=0.5 changes that at once\n"
    )
    assert "it is queued on this machine" in refused(clew, "a", "--take-over")


@pytest.mark.slow
def test_a_killed_run_goes_on_differently(spawn: Spawn, clew: Cli, strides: Path) -> None:
    process = standing(spawn, at=8)
    wait_until(lambda: [event["step"] for event in run_of(strides).events("metric")][-1:] == [8])
    owner = run_of(strides).states.read().owner
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (strides / "gate").touch()
    done = clew("resume", "a", "steps=12", "checkpoint.every=5", "--take-over")
    assert (done.code, done.out.splitlines()[-1]) == (0, "metrics: far 12")
    assert run_of(strides).states.read().attempt == 2, "there was nothing to take over"


# A run of another machine.


def give_away(project: Path, *, lease: float) -> Run:
    """Let a run be that of another machine, whose lease has so many seconds left."""
    path = project / "runs/a/state.json"
    owner = {"host": f"not-{socket.gethostname()}", "pid": 1, "started": 1}
    write_json(path, {**read_json(path), "state": "running", "owner": owner, "lease_until": time.time() + lease})
    return run_of(project)


@pytest.mark.slow
def test_a_run_that_may_live_elsewhere_is_taken_over_only_when_that_is_said(clew: Cli, strides: Path) -> None:
    fail(clew)
    run = give_away(strides, lease=-1)
    for words in ([], ["lr=0.5"], ["--at", "3"]):
        said = refused(clew, "a", *words).splitlines()
        assert said[0] == "clew: a: it was started on another machine, and nothing answers from there"
        assert said[1].endswith("if that machine is gone for good, clew resume a --take-over takes it from there")
    told = clew("recover", "--yes").out.splitlines()
    assert told[0].startswith("a: was started on another machine, and nothing answers from there; it is left alone")
    assert told[0].endswith("clew resume a --take-over takes it from a machine that is gone for good")
    done = clew("resume", "a", "--take-over", "lr=0.5")
    assert done.code == 0, done.err
    assert done.out.splitlines()[:2] == [
        f"a: taken over from not-{socket.gethostname()}; whatever lives there commits nothing more",
        "a: lr = 0.5 is set where it begins",
    ]
    assert run.result.metrics == {"far": 8.0}
    assert [event["step"] for event in run.events("metric")] == list(range(1, 11))


@pytest.mark.slow
def test_a_run_is_not_taken_over_while_its_lease_lives(clew: Cli, strides: Path) -> None:
    fail(clew)
    run = give_away(strides, lease=40)
    before = read_json(run.path / "state.json")
    said = refused(clew, "a", "--take-over")
    assert said.startswith(f"clew: a: there is nothing to take over: it belongs to not-{socket.gethostname()}, whose")
    assert "s more\n  ask again when nothing has been heard of it for so long" in said
    assert read_json(run.path / "state.json") == before


# A pipeline.


@pytest.mark.slow
def test_a_pipeline_goes_on_as_it_is(clew: Cli, project: Path) -> None:
    assert clew("run", "numbers.yaml", "stages.second.fail_at=3").code == 1
    for words in (["to=3"], ["--at", "3"], ["--ranks", "2"], ["--mesh", "ddp"], ["--on", "local"]):
        said = refused(clew, "numbers", *words).splitlines()
        assert said[0] == "clew: numbers: a pipeline goes on as it is: only a single run can go on differently"
        assert "name the run of a stage" in said[1]
    assert clew("resume", "numbers", "--take-over").code == 1, "there was nothing to take over, and it fails again"


@pytest.mark.slow
def test_a_pipeline_is_taken_over_with_its_stages(clew: Cli, project: Path) -> None:
    assert clew("run", "numbers.yaml", "stages.second.fail_at=4").code == 1
    plan, run = project / "plans" / "numbers", Run(project / "runs" / "numbers.second")
    elsewhere = {"host": f"not-{socket.gethostname()}", "pid": 1, "started": 1}
    for path in (plan / "state.json", run.path / "state.json"):
        write_json(path, {**read_json(path), "state": "running", "owner": elsewhere, "lease_until": time.time() - 1})
    assert refused(clew, "numbers").startswith("clew: numbers: it was started on another machine")
    done = clew("resume", "numbers", "--take-over")
    assert done.out.splitlines()[0].startswith("numbers: taken over from not-")
    assert json.loads((plan / "state.json").read_text())["attempt"] == 3
    assert run.states.read().attempt == 3
