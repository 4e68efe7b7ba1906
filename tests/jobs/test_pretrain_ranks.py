"""A pretraining in several processes: killed, resumed in other numbers of them, and equal to that of one process.

Losses may be 1e-5 apart (float32, sums in another order).
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from clew.cli.main import main
from clew.errors import UserError
from clew.jobs import create_job_run, load_job, load_run_config
from clew.jobs.layout import choose, layout_of
from clew.runs import Command, Owner, Run, State, Workspace
from clew.runs.files import read_json
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from support import wait_until

TASK = {"type": "arithmetic", "max_operand": 30, "train_size": 60, "validation_size": 10, "test_size": 10}
ASKING = {"every": 6, "limit": 4, "generation": {"max_new_tokens": 4}, "best_by": "exact"}
TOLERANCE = 1e-5

pytestmark = pytest.mark.usefixtures("borne")


def create(workspace: Workspace, name: str, ranks: int = 1, **more) -> Run:
    config = {
        "job": "pretrain",
        "name": name,
        "task": TASK,
        "model": {"depth": 1},
        "data": {"seq_len": 16},
        "training": {"steps": 12, "batch_size": 6, "log_every": 1, "validate_every": 6},
        "checkpoint": {"every": 3},
        "live": {"digest_every": 6},
        "runtime": {"device": "cpu", "threads": 1, "ranks": ranks},
        "mesh": {"preset": "fsdp"},
    }
    return create_job_run(workspace, load_job({**config, **more}))


def pids(run: Run) -> list[int]:
    """The processes of the newest attempt, by rank."""
    attempt = run.states.read().attempt
    found = {0: run.states.read().owner.pid}
    for path in (run.path / "journal").glob(f"{attempt}-*.jsonl"):
        for line in path.read_text().splitlines():
            event = json.loads(line)
            if event["kind"] == "rank":
                found[event["number"]] = event["pid"]
    return [found[rank] for rank in sorted(found)]


def paused_at(run: Run, step: int, *, before: int | None = None):
    """Start the next attempt, and return its worker and processes once all of them stand at a step.

    A run that was interrupted in a pause is paused there again: ``before`` is where it is let go on.
    """
    if before is not None:
        run.inbox.post(Command("resume", at=before))
    run.inbox.post(Command("pause", {"save": False}, at=step))
    worker = LocalTarget().launch(run)
    wait_until(lambda: worker.poll() in (State.PAUSED, State.FAILED, State.INTERRUPTED), seconds=80)
    assert run.state is State.PAUSED, run.result
    return worker, [Owner.of(pid) for pid in pids(run)]


def numbers(run: Run) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for event in run.events("metric"):
        names = ("loss", "grad_norm", "tokens", "val_loss", "epoch")
        kept = {n: v for n, v in event["values"].items() if n in names or n.startswith("eval/")}
        found.setdefault(event["step"], {}).update(kept)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rank_is_killed_and_the_run_goes_on_in_other_numbers_of_processes(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    whole, run = create(workspace, "whole"), create(workspace, "run", ranks=2)
    assert follow(LocalTarget().launch(whole), Silent()) is State.COMPLETED

    worker, processes = paused_at(run, 7)
    os.kill(processes[1].pid, signal.SIGKILL)
    assert follow(worker, Silent()) is State.INTERRUPTED
    assert run.result.failure.reason == "rank 1 was killed by SIGKILL (by hand, or because memory ran out)"
    assert run.result.failure.signal == "SIGKILL"
    assert not any(process.is_alive() for process in processes)

    monkeypatch.setenv("CLEW_WORKSPACE", str(tmp_path))
    run.inbox.post(Command("resume", at=7))
    run.inbox.post(Command("stop", at=9))
    assert main(["resume", "run", "--ranks", "1"]) == 1
    assert run.state is State.STOPPED

    choose(run, ranks=4, mesh="fsdp+tp")
    worker, processes = paused_at(run, 11)
    assert len(processes) == 4
    os.kill(processes[3].pid, signal.SIGTERM)
    assert follow(worker, Silent()) is State.INTERRUPTED
    assert run.result.failure.reason == "received SIGTERM at step 11"
    assert not any(process.is_alive() for process in processes)

    choose(run, ranks=2, mesh="ddp")
    worker, processes = paused_at(run, 12, before=11)
    os.kill(processes[0].pid, signal.SIGKILL)
    wait_until(lambda: not any(process.is_alive() for process in processes), seconds=10)
    assert follow(worker, Silent()) is State.INTERRUPTED

    choose(run, ranks=1)
    run.inbox.post(Command("resume", at=12))
    assert follow(LocalTarget().launch(run), Silent()) is State.COMPLETED, run.result.failure
    found, expected = numbers(run), numbers(whole)
    assert sorted(found) == sorted(expected) == list(range(1, 13))
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, abs=TOLERANCE), step
    assert [event["ranks"] for event in run.events("layout")] == [2, 1, 4, 2, 1]
    assert layout_of(run)["mesh.preset"] == "ddp"
    assert (run.path / "logs" / "attempt-1-rank1.log").is_file()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_an_error_of_one_rank_is_the_error_of_the_run(tmp_path, monkeypatch):
    patch = Path(tmp_path / "patch")
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(
        "import sys\n"
        "if '--rank' in sys.argv or '--rank' in sys.orig_argv:\n"
        "    import clew.data.packing as packing\n"
        "    def broken(self, ids):\n"
        "        raise ValueError('this disk is broken')\n"
        "    packing.Windows.batch = broken\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{patch}:{os.environ.get('PYTHONPATH', '')}")
    run = create(Workspace(tmp_path), "run", ranks=2)
    assert follow(LocalTarget().launch(run), Silent()) is State.FAILED
    failure = run.result.failure
    assert (failure.kind, failure.reason) == ("ValueError", "rank 1: this disk is broken")
    assert "ValueError: this disk is broken" in "\n".join(failure.log_tail)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_samples_are_looked_at_chosen_and_problems_asked_by_two_ranks_as_by_one(tmp_path):
    workspace = Workspace(tmp_path)
    alone, *shared = (
        looked_at(create(workspace, name, ranks, mesh={"preset": mesh}, evaluate=ASKING, publish="best"))
        for name, ranks, mesh in (("one", 1, "none"), ("ddp", 2, "ddp"), ("fsdp", 2, "fsdp"), ("sp", 2, "tp+sp"))
    )
    assert alone["measured"] == [6, 8, 12]
    for found in shared:
        for what in ("chosen", "measured", "published"):
            assert found[what] == alone[what]
        assert found["mean"] == pytest.approx(alone["mean"], abs=TOLERANCE)
        for step, values in alone["numbers"].items():
            assert found["numbers"][step] == pytest.approx(values, abs=TOLERANCE), step


def looked_at(run: Run) -> dict[str, object]:
    """Inspect a run, choose its data twice and evaluate it while it trains, and return what came of that."""
    run.inbox.post(Command("inspect", {"clusters": 2}, at=3))
    run.inbox.post(Command("select", {"recipe": "0.5 hardest 25% + 0.5 all"}, at=4))
    run.inbox.post(Command("evaluate", at=8))
    run.inbox.post(Command("select", {"recipe": "where length > 15"}, at=9))
    assert follow(LocalTarget().launch(run), Silent()) is State.COMPLETED, run.result.failure
    commands = list(run.events("command"))
    assert [event["outcome"] for event in commands] == ["applied"] * 4
    inspected = next(event["result"]["path"] for event in commands if event["verb"] == "inspect")
    return {
        "numbers": numbers(run),
        "mean": json.loads((run.path / inspected / "summary.json").read_text())["loss"]["mean"],
        "chosen": [event["result"]["stored"] for event in commands if event["verb"] == "select"],
        "measured": [event["step"] for event in run.events("metric") if "eval/exact" in event["values"]],
        "published": run.result.notes["published_step"],
    }


def test_a_layout_changes_no_hash_and_is_remembered_with_what_it_was(tmp_path):
    workspace = Workspace(tmp_path)
    one, two = create(workspace, "one"), create(workspace, "two", ranks=2)
    assert one.info.config_hash == two.info.config_hash
    choose(one, ranks=4, mesh="fsdp+tp")
    assert load_job(one.config_path).config_hash == one.info.config_hash
    assert load_run_config(one).runtime.ranks == 4
    choose(one, ranks=2)
    assert layout_of(one) == {"runtime.ranks": 2, "mesh.preset": "fsdp+tp"}
    said = read_json(one.path / "origins.json")["runtime.ranks"]
    layers = [(one["layer"], one["value"]) for one in (said, *said["shadowed"])]
    assert layers[:3] == [("resume", 2), ("resume", 4), ("file", 1)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mesh": {"preset": "none"}}, "nothing says what 2 processes share"),
        ({"mesh": {"preset": "fsdp", "fsdp": 3}}, "does not fill 2 devices"),
        (
            {"mesh": {"preset": "tp+sp"}, "data": {"seq_len": 15}},
            "the 15 positions of a sample do not divide",
        ),
        ({"mesh": {"preset": "tp", "compute": {"mlp": "tensr"}}}, "the mesh has no axis 'tensr' for 'mlp'"),
        (
            {"mesh": {"preset": "tp"}, "model": {"depth": 1, "heads": 3, "kv_heads": 1, "width": 48}},
            "layers.0.attention.query.weight .*: the 3 heads of 'heads' do not divide by tensor=2",
        ),
        ({"training": {"steps": 2, "compile": True}}, "compiled models train in one process only"),
        ({"training": {"steps": 2, "optimizer": {"type": "muon"}}}, "muon needs whole matrices"),
        ({"live": {"health_every": 5}}, "the health of shards cannot be told"),
    ],
)
def test_what_several_processes_cannot_do_is_said_before_anything_starts(tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        create(Workspace(tmp_path), "r", ranks=2, **more)


def test_other_jobs_run_in_one_process(tmp_path):
    loaded = load_job({"job": "sft", "task": TASK, "model": "nowhere", "runtime": {"ranks": 2}})
    with pytest.raises(UserError, match="sft runs in one process"):
        create_job_run(Workspace(tmp_path), loaded)
