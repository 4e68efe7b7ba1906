"""Scripts that train, as processes: killed, resumed by a worker, forked, replayed; and the examples."""

from __future__ import annotations

import contextvars
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from script_support import run_of, run_script, write_script
from torch_support import apart, curve, mlp, typed

import clew
from clew import api
from clew.lineage.fork import Asked, fork
from clew.lineage.replay import replay
from clew.runs import Run, State

__all__ = ["typed"]
pytestmark = pytest.mark.usefixtures("borne")
EXAMPLES = Path(__file__).parents[2] / "examples/live"
HELPERS = Path(__file__).parent

PLAIN = """
    import os
    import sys

    import torch

    sys.path.insert(0, HELPERS)
    from torch_support import cnn

    import clew

    torch.set_num_threads(1)
    program = cnn()
    with clew.session("walk", checkpoint=5, log_every=3, steps=12, **program.words) as live:
        for batch in live.batches():
            loss = program.update(batch)
            {middle}
            live.step(loss=loss)
"""
FIT = """
    import sys

    import torch
    from torch.utils.data import DataLoader

    sys.path.insert(0, HELPERS)
    from torch_support import decoder

    import clew

    torch.set_num_threads(1)
    program = decoder()
    steps = 0


    def asked(model, inputs):
        global steps
        steps += model.training
        {middle}


    with program.model.register_forward_pre_hook(asked):
        fitted = clew.Trainer(project="walk", checkpoint=5, log_every=3).fit(
            program.model,
            program.optimizer,
            program.loss_fn,
            DataLoader(program.data, batch_size=8, shuffle=True),
            DataLoader(program.data, batch_size=8),
            max_steps=12,
            scheduler=program.scheduler,
        )
    print(sorted(fitted.metrics))
"""


def script_in(folder: Path, text: str, middle: str = "pass") -> Path:
    folder.mkdir(exist_ok=True)
    return write_script(folder, text.replace("HELPERS", repr(str(HELPERS))), middle=middle)


def course(run: Run) -> tuple[list[Any], dict[int, float]]:
    """What a run's states and losses were."""
    digests = [(event["step"], event["weights"], event["optimizer"]) for event in run.events("digest")]
    return digests, curve(run)


@pytest.mark.slow
def test_a_plain_loop_that_is_killed_goes_on_bitwise(tmp_path: Path) -> None:
    assert run_script(script_in(tmp_path / "whole", PLAIN)).returncode == 0
    path = script_in(
        tmp_path / "torn", PLAIN, '"K" in os.environ and live.step_number == 8 and os.kill(os.getpid(), 9)'
    )
    assert run_script(path, K="1").returncode == -signal.SIGKILL
    done = run_script(path)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 2)
    whole, torn = (course(run_of(tmp_path / name)) for name in ("whole", "torn"))
    assert whole == torn
    assert [step for step, *_ in whole[0]] == [12]


@pytest.mark.slow
def test_a_fit_is_resumed_by_a_worker_and_replayed(tmp_path: Path) -> None:
    whole = script_in(tmp_path / "whole", FIT)
    assert run_script(whole).stdout == "['grad_norm', 'loss', 'lr', 'val_loss']\n"
    stop = 'steps == 7 and __import__("clew").attach("walk").stop()'
    torn = script_in(tmp_path / "torn", FIT, stop)
    assert run_script(torn).returncode == 3
    run = run_of(tmp_path / "torn")
    result = api.attend(run)
    assert (result.status, result.attempts) == ("completed", 2)
    assert course(run) == course(run_of(tmp_path / "whole"))
    again = replay(run_of(tmp_path / "whole"), name="again")
    assert again.comparison.difference is None


def test_a_process_goes_on_as_a_fork(typed: Path) -> None:
    program = mlp()

    def body() -> None:
        words = {"params": {"lr": 0.1}, "checkpoint": 4, **program.words}
        with clew.session("parent", steps=8, **words) as live:
            for batch in live.batches():
                loss = program.update(batch)
                if live.step_number == 2:
                    asked = Asked(name="child", words=["params.lr=0.02"], switch=True)
                    fork(live.session.run, asked, wait=False)
                live.step(loss=loss)

    apart(body)
    parent, child = (Run(typed / "runs" / name) for name in ("parent", "child"))
    assert (parent.state, child.state) == (State.STOPPED, State.COMPLETED)
    assert parent.result is not None and parent.result.failure is not None
    assert parent.result.failure.reason == "this process goes on as child from step 3"
    assert child.result is not None and child.result.metrics["loss"] == curve(child)[8]
    assert program.optimizer.param_groups[0]["initial_lr"] == 0.02
    assert (child.info.parent, child.info.fork_step) == ("parent", 3)


def test_a_child_in_a_process_of_its_own_is_the_child_of_the_same_process(typed: Path) -> None:
    """A fork with another learning rate gives the same weights, with and without a new process."""

    def forked(name: str, *, switch: bool) -> list[Any]:
        def body() -> None:
            program = mlp()
            words = {"params": {"lr": 0.1}, **program.words}
            with clew.session(name, steps=8, **words) as live:
                for batch in live.batches():
                    loss = program.update(batch)
                    if live.step_number == 2:
                        asked = Asked(name=f"{name}-child", words=["params.lr=0.02"], switch=switch)
                        fork(live.session.run, asked, wait=False)
                    live.step(loss=loss)

        apart(body)
        return [event["weights"] for event in Run(typed / "runs" / f"{name}-child").events("digest")]

    def resumed(name: str) -> list[Any]:
        """Do what the job `script` does for the child."""
        from clew.jobs import data_fingerprints, load_run_config
        from clew.live.script import surrounded
        from clew.session.attempt import Attempt

        run = Run(typed / "runs" / name)
        attempt = run.states.queue()
        run.states.move(State.STARTING, attempt=attempt)
        work = Attempt(run, attempt, data_fingerprints)
        work.claim()
        config = load_run_config(run)
        with work, work.session(config, lambda *_: None) as session, surrounded(session):
            program = mlp()
            with clew.session("whatever", params={"lr": 0.1}, steps=8, **program.words) as live:
                for batch in live.batches():
                    live.step(loss=program.update(batch))
        assert work.error is None
        return [event["weights"] for event in run.events("digest")]

    switched = forked("one", switch=True)
    assert forked("two", switch=False) == []
    assert contextvars.copy_context().run(lambda: resumed("two-child")) == switched != []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "run"), [("plain", "digits"), ("accelerate_loop", "spirals"), ("fit", "cnn")])
def test_an_example_runs_and_learns(name: str, run: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said, errors = process.communicate(timeout=200)
    assert (process.returncode, len(errors.splitlines())) == (0, 2), errors
    assert "accuracy" in said
    made = Run(tmp_path / "runs" / run)
    assert made.state is State.COMPLETED
    assert curve(made)[max(curve(made))] < curve(made)[min(curve(made))]
