"""Real runs that are killed, resumed with other values, and repeated: the same numbers, bit by bit."""

from __future__ import annotations

import os
import signal

import pytest
from tuning_support import save_model

from clew import api
from clew.checkpoints import CheckpointStore
from clew.errors import UserError
from clew.jobs import create_job_run, load_job, load_run_config
from clew.lineage.going_on import Wish, go_on_with
from clew.lineage.replay import replay
from clew.runs import Run, State, Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("borne")]

TASK = {"type": "arithmetic", "max_operand": 30, "train_size": 60, "validation_size": 10, "test_size": 10}
CASES = {
    "pretrain": (
        {
            "model": {"depth": 1},
            "data": {"seq_len": 32},
            "training": {"steps": 60, "batch_size": 8, "log_every": 2, "validate_every": 10},
        },
        [
            "training.micro_batch_size=4",
            "activation_checkpointing=true",
            "training.log_every=3",
            "validate_every=5",
            "lr=1e-4",
            "steps=70",
            "data.workers=1",
        ],
    ),
    "sft": (
        {"training": {"steps": 30, "batch_size": 8, "log_every": 2, "validate_every": 10}},
        ["training.micro_batch_size=4", "training.log_every=3", "validate_every=5", "lr=1e-4", "steps=35"],
    ),
}


def create(workspace: Workspace, job: str) -> Run:
    config = {
        "job": job,
        "name": "a",
        "task": TASK,
        "runtime": {"device": "cpu", "threads": 1},
        "checkpoint": {"every": 4},
        "live": {"digest_every": 5},
        **CASES[job][0],
    }
    if job != "pretrain":
        config["model"] = save_model(workspace.root / "model")
    return create_job_run(workspace, load_job(config))


def kill_at(run: Run, step: int) -> None:
    worker = LocalTarget().launch(run)
    wait_until(lambda: any(event["step"] >= step for event in run.events("metric")), seconds=120)
    os.kill(run.states.read().owner.pid, signal.SIGKILL)
    assert follow(worker, Silent()) is State.INTERRUPTED


@pytest.mark.parametrize("job", CASES)
def test_a_run_that_was_resumed_with_other_values_is_repeated_bit_by_bit(tmp_path, job):
    run = create(Workspace(tmp_path), job)
    kill_at(run, 12)
    words = CASES[job][1]
    if job == "pretrain":  # a fork could not take the weights over
        with pytest.raises(UserError, match=r"model\.depth .* cannot change") as refused:
            go_on_with(run, Wish(["model.depth=2"]))
        assert refused.value.hint == f"clew run {run.config_path} model.depth=2 --name NAME makes another run"
    go_on_with(run, Wish([*words, "checkpoint.every=7"]))
    result = api.resume(run)
    assert result.status == "completed", result.failure
    begin = next(event["step"] for event in run.events("restore") if event["attempt"] == 2)
    config = load_run_config(run)
    assert (config.training.micro_batch_size, config.training.log_every, config.checkpoint.every) == (4, 3, 7)
    steps = {event["step"] for event in run.events("metric")}
    assert f"steps={max(steps)}" in words
    logged = {event["step"] for event in run.events("metric") if "loss" in event["values"]}
    expected = {*range(2, begin + 1, 2), *range(3 * (begin // 3 + 1), max(steps) + 1, 3), max(steps)}
    if job == "sft":  # `Trainer` logs before it validates
        expected |= set(range(5 * (begin // 5 + 1), max(steps) + 1, 5))
    assert logged == expected

    found = replay(run, name="again")
    assert found.comparison.difference is None
    assert found.comparison.steps == max(steps)
    assert found.state is State.COMPLETED
    assert found.unlike == []
    again = Run(tmp_path / "runs" / "again")
    assert again.result.metrics == run.result.metrics
    assert again.info.config_hash == run.info.config_hash


def test_a_pretraining_goes_back_before_what_was_done_to_it(tmp_path):
    run = create(Workspace(tmp_path), "pretrain")
    kill_at(run, 10)
    steps = sorted(one.step for one in CheckpointStore(run.checkpoints).all())
    result = api.resume(run, at=steps[0], overrides=["lr_mul=0.1"])
    assert result.status == "completed"
    logged = [event["step"] for event in run.events("metric") if "loss" in event["values"]]
    assert logged == list(range(2, 61, 2)), "each step once"
    (lr,) = {event["at"] for event in run.events("command") if event["verb"] == "set"}
    assert lr == steps[0]
    found = replay(run, name="again")
    assert (found.comparison.difference, found.comparison.steps) == (None, 60)
