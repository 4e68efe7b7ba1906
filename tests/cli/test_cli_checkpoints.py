"""``clew checkpoints``: on the run of a release, which has tensors, and on runs of the counting job, which go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clew.checkpoints import CheckpointStore
from clew.cli.main import main
from clew.runs import Run, State, Workspace
from clew.worker import work
from support import tiny_run, wait_until

RELEASE = Path(__file__).parents[1] / "fixtures" / "runs" / "0.1.0"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEW_WORKSPACE", str(tmp_path))
    return Workspace(tmp_path)


@pytest.fixture
def kept(workspace):
    shutil.copytree(RELEASE, workspace.runs / "kept")
    return workspace.find_run("kept")


def carried_out(run: Run, *, stop: bool = False) -> Run:
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    if stop:
        run.inbox.send("stop")
    work(run, number)
    return run


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_they_are_listed_with_what_is_known_of_them(kept, capsys):
    CheckpointStore(kept.checkpoints).tag("calm", 4)
    assert main(["checkpoints", "kept"]) == 0
    head, first, second = table(capsys.readouterr().out)
    assert head == ["step", "attempt", "size", "metric", "age", "tags"]
    assert (first[0], first[1], first[-1]) == ("4", "1", "calm")
    assert (second[0], second[1], second[-1]) == ("8", "1", "best")
    assert second[2:4] == ["74.4", "kB"]


def test_verifying_names_what_is_wrong_and_fails(kept, capsys):
    assert main(["checkpoints", "kept", "--verify"]) == 0
    assert capsys.readouterr().out.count("good") == 2
    flip(kept.checkpoints / "step-00000008" / "trainer.safetensors")
    assert main(["checkpoints", "kept", "--verify"]) == 1
    assert "trainer.safetensors does not match its hash" in capsys.readouterr().out
    assert main(["checkpoints", "verify", "kept"]) == 1
    assert capsys.readouterr().out == (
        "kept step 4: good\nkept step 8: trainer.safetensors does not match its hash\n"
        "the newest good one is that of step 4\n"
    )
    assert main(["checkpoints", "verify", "kept", "4"]) == 0
    flip(kept.checkpoints / "step-00000004" / "trainer.safetensors")
    assert main(["checkpoints", "verify", "kept"]) == 1
    assert "none of them can be used; clew checkpoints restore kept" in capsys.readouterr().out


def test_a_damaged_manifest_is_listed_too(kept, capsys):
    (kept.checkpoints / "step-00000004" / "manifest.json").write_text("{")
    assert main(["checkpoints", "kept"]) == 0
    assert table(capsys.readouterr().out)[1][:3] == ["4", "?", "?"]


def test_deleting_is_only_said_until_it_is_confirmed_and_spares_the_only_good_one(workspace, capsys):
    run = carried_out(tiny_run(workspace, name="a", until=40, every=5))
    store = CheckpointStore(run.checkpoints)
    store.save(45, lambda folder: (folder / "x").write_text("x"))
    flip(store.all()[0].path / "x")
    assert main(["checkpoints", "prune", "a", "--keep-last", "1"]) == 0
    assert "would delete step 35, " in capsys.readouterr().out
    assert [one.step for one in store.all()] == [45, 40, 35]
    assert main(["checkpoints", "prune", "a", "--keep-last", "1", "--yes"]) == 0
    assert [one.step for one in store.all()] == [45, 40]
    assert main(["checkpoints", "prune", "a", "--keep-last", "1"]) == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_differences_are_told_the_largest_first(kept, capsys):
    assert main(["checkpoints", "diff", "kept", "4", "8"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("kept, step 4 against step 8: ")
    assert "trainer: optimizer." in out
    assert "and 35 more, which differ less" in out
    assert main(["checkpoints", "diff", "kept", "8", "last"]) == 0
    assert "0 tensors differ" in capsys.readouterr().out


def test_the_model_is_exported_as_other_programs_load_it(kept, tmp_path, capsys):
    assert main(["checkpoints", "export", "kept", "best", str(tmp_path / "out" / "model"), "--hf"]) == 0
    names = {path.name for path in (tmp_path / "out" / "model").iterdir()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert main(["checkpoints", "export", "kept", "best", str(tmp_path / "out" / "model"), "--hf"]) == 2
    assert "this folder exists already" in capsys.readouterr().err
    assert main(["checkpoints", "import", str(tmp_path / "out" / "model"), "--as", "b"]) == 0
    assert capsys.readouterr().out.startswith("b: a model of ")


def test_an_exported_checkpoint_becomes_a_run_that_ends_as_the_other_one(workspace, tmp_path, capsys):
    run = carried_out(tiny_run(workspace, name="a", until=10, every=5))
    assert main(["checkpoints", "export", "a", "5", str(tmp_path / "out")]) == 0
    assert main(["checkpoints", "import", str(tmp_path / "out"), "--as", "b"]) == 0
    assert "b: made from step 5; clew resume b goes on from there" in capsys.readouterr().out
    copy = carried_out(workspace.find_run("b"))
    assert (copy.state, copy.result.metrics) == (State.COMPLETED, run.result.metrics)
    assert [event["step"] for event in copy.events("metric")] == [6, 7, 8, 9, 10]
    assert copy.info.uid != run.info.uid
    assert main(["checkpoints", "import", str(tmp_path / "out"), "--as", "b"]) == 2
    flip(tmp_path / "out" / "checkpoint" / "state")
    assert main(["checkpoints", "import", str(tmp_path / "out"), "--as", "c"]) == 2
    assert "the checkpoint is damaged: state does not match its hash" in capsys.readouterr().err
    assert not (workspace.runs / "c").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody"], "there is no run or pipeline 'nobody'"),
        (["verify"], "verify takes other words"),
        (["verfy", "kept"], "'verfy' is nothing to do"),
        (["export", "kept", "9", "x"], "there is no checkpoint '9'"),
        (["verify", "kept", "9"], "there is no checkpoint '9'\n  there are 4, 8"),
        (["import", "x"], "needs the name of a run"),
        (["restore", "kept"], "nothing says where its copies are"),
        (["prune", "kept", "--keep-last", "0"], "at least one is kept"),
    ],
)
def test_nonsense_is_said(kept, capsys, words, said):
    assert main(["checkpoints", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_live_run_looks_after_its_checkpoints_itself(workspace, capsys):
    run = tiny_run(workspace, name="a")
    run.states.queue()
    assert main(["checkpoints", "prune", "a"]) == 2
    assert "this run is alive" in capsys.readouterr().err


def test_what_crashes_have_left_is_said_and_then_deleted(workspace, capsys):
    run = carried_out(tiny_run(workspace, name="a"))
    alive = tiny_run(workspace, name="alive")
    alive.states.queue()
    old = time.time() - 7200
    rubbish = [
        run.checkpoints / ".saving-00000015-1-4000000",
        run.checkpoints / ".trash-step-00000001-4000000",
        run.artifacts / ".making-x",
        run.path / ".state.json.4000000-abcd.tmp",
        run.path / "kept" / "@5",
        workspace.runs / ".new-b-01ARZ3NDEKTSV4RRFFQ69G5FAV",
        workspace.runs / ".new-c-4000000",
        workspace.runs / ".old-a-4000000",
        workspace.root / "models" / ".new-m-4000000",
    ]
    spared = [
        workspace.runs / f".new-d-{os.getpid()}",  # of a process that is alive
        workspace.runs / ".new-e-01ARZ3NDEKTSV4RRFFQ69G5FAV",  # made just now
        workspace.runs / ".old-gone-4000000",  # all that there is of that run
        alive.checkpoints / ".saving-00000001-1-1",
    ]
    for path in [*rubbish, *spared]:
        path.mkdir(parents=True)
        (path / "x").write_bytes(b"x" * 1000)
    os.utime(rubbish[5], (old, old))
    assert main(["gc"]) == 0
    out = capsys.readouterr().out
    assert "9.0 kB can go; --yes deletes it" in out
    assert all(path.exists() for path in rubbish)
    assert main(["gc", "--yes"]) == 0
    assert "9.0 kB freed" in capsys.readouterr().out
    assert not any(path.exists() for path in rubbish)
    assert all(path.exists() for path in spared)
    assert CheckpointStore(run.checkpoints).newest_good()[0].step == 10
    assert main(["gc"]) == 0
    assert "nothing was left behind" in capsys.readouterr().out


def test_a_copy_that_a_command_used_stays(workspace, capsys):
    run = carried_out(tiny_run(workspace, name="a"))
    (run.path / "kept" / "@5").mkdir(parents=True)
    with (run.path / "journal" / "1-0.jsonl").open("a") as stream:
        stream.write('{"t": 1, "kind": "command", "verb": "reset", "at": 6, "result": {"source": "@5"}}\n')
    assert main(["gc", "--yes"]) == 0
    assert (run.path / "kept" / "@5").exists()


def test_what_was_interrupted_is_said(workspace, capsys):
    assert main(["recover"]) == 0
    assert "nothing was interrupted" in capsys.readouterr().out
    run = carried_out(tiny_run(workspace, name="a", until=10, every=2), stop=True)
    carried_out(tiny_run(workspace, name="stopped"), stop=True)
    run.states.queue()
    run.states.move(State.INTERRUPTED, attempt=2)
    flip(CheckpointStore(run.checkpoints).all()[0].path / "state")
    assert main(["recover"]) == 0
    out = capsys.readouterr().out
    step = CheckpointStore(run.checkpoints).all()[0].step
    said = f"a: begins anew, it has no checkpoint; step {step} cannot be used: state does not match its hash"
    assert out.startswith(said)
    assert "stopped" not in out
    assert "restore" not in out
    config = run.config_path.read_text().replace("push: null", "push: {to: 's3://bucket/{run}'}")
    run.config_path.write_text(config)
    assert main(["recover"]) == 0
    assert "clew checkpoints restore a fetches what s3://bucket/a has" in capsys.readouterr().out
    run.config_path.write_text(config + "checkpoint: {mirror: 's3://mirror/{run}'}\n")
    assert main(["recover"]) == 0
    assert "a: goes on at the newest checkpoint that s3://mirror/a has; step " in capsys.readouterr().out
    assert run.state is State.INTERRUPTED


@pytest.mark.slow
def test_what_was_interrupted_is_gone_on_with(workspace):
    runs = [carried_out(tiny_run(workspace, name=name), stop=True) for name in "ab"]
    for run in runs:
        run.states.queue()
        run.states.move(State.INTERRUPTED, attempt=2)
    words = [sys.executable, "-m", "clew.cli", "recover", "--yes"]  # what it starts outlives it
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "a: goes on at step" in done.stdout
    wait_until(lambda: all(run.state is State.COMPLETED for run in runs))
    assert [run.result.attempts for run in runs] == [3, 3]
