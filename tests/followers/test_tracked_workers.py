"""Real workers, the processes beside them, and ``clew track``."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from followed_runs import begin, end, made_run, points, tell
from tracker_readers import TensorBoardReader

from clew.cli.main import main
from clew.followers.starting import log_path
from clew.runs import State, Workspace
from clew.runs.following import read_record, read_records, record_path, trouble_of
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from support import tiny_run, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LINES = {"type": f"{__file__.rpartition('/')[0]}/plain_followers.py:Lines"}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def run_to_end(run):
    return follow(LocalTarget().launch(run), Silent())


def followers_alive(run):
    """The processes that follow a run, from their command lines."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,stat,args"], capture_output=True, text=True, check=True).stdout
    mine = [line.split() for line in listed.splitlines() if f"clew.followers.process {run.path} " in line]
    return [int(pid) for pid, state, *_ in mine if not state.startswith("Z")]


def status(run, name):
    record = read_record(record_path(run.path, name))
    return record and record.status


def rounded(found):
    return [(name, step, float(f"{value:.6g}")) for name, step, value in found]


def test_a_killed_and_resumed_run_is_the_same_in_its_tracker(workspace):
    run = tiny_run(workspace, name="r", until=20, kill_at=13, track=[{"type": "tensorboard"}])
    assert run_to_end(run) is State.INTERRUPTED
    assert run_to_end(run) is State.COMPLETED
    wait_until(lambda: status(run, "tensorboard") == "done" and not followers_alive(run))
    reader = TensorBoardReader()
    assert rounded(reader.points(run)) == rounded(points(run))
    assert reader.final(run)["final/steps"] == 20
    assert run.result.trackers == {"tensorboard": str(run.path / "following" / "tensorboard")}


def test_a_killed_follower_is_replaced_by_hand_while_the_run_lives(workspace, capsys):
    run = tiny_run(workspace, name="r", until=10**6, pause=0.01, track=[{"type": "tensorboard"}])
    worker = LocalTarget().launch(run)
    wait_until(lambda: status(run, "tensorboard") == "following")
    (pid,) = followers_alive(run)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not followers_alive(run))
    assert worker.poll() is State.RUNNING
    assert main(["show", "r", "--workspace", str(workspace.root)]) == 0
    assert "(nobody follows the run any more; clew track r catches up)" in capsys.readouterr().out
    by_hand = subprocess.Popen([sys.executable, "-m", "clew.cli", "track", "r", "--workspace", str(workspace.root)])
    wait_until(lambda: bool(followers_alive(run)))
    run.inbox.send("stop")
    assert follow(worker, Silent()) is State.STOPPED
    assert by_hand.wait(timeout=60) == 0
    assert rounded(TensorBoardReader().points(run)) == rounded(points(run))


def test_dead_trackers_neither_fail_nor_delay_a_run(workspace, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    dead = [{"type": "wandb"}, {"type": "mlflow", "tracking_uri": "http://127.0.0.1:9"}, {**LINES, "trouble": "hangs"}]
    run = tiny_run(workspace, name="r", until=5, track=dead)
    began = time.monotonic()
    assert run_to_end(run) is State.COMPLETED
    assert run.result.seconds < 5  # the trackers alone would take a minute
    assert time.monotonic() - began < 60
    try:
        wait_until(lambda: status(run, "mlflow") == "retrying")
        record = read_record(record_path(run.path, "mlflow"))
        assert trouble_of(run.path, record).startswith("MlflowException: API request to http://127.0.0.1:9")
        assert run.result.trackers == {}
    finally:
        for pid in followers_alive(run):
            os.kill(pid, signal.SIGKILL)


def test_a_missing_library_is_said_and_the_run_goes_on(workspace, tmp_path, monkeypatch, capsys):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text("raise ModuleNotFoundError(name='tensorboard')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = tiny_run(workspace, name="r", track=[{"type": "tensorboard"}])
    assert run_to_end(run) is State.COMPLETED
    wait_until(lambda: status(run, "tensorboard") == "given up")
    reason = "given up: the library 'tensorboard' is not installed (pip install 'clew[track]'); clew track r catches up"
    wait_until(lambda: reason in log_path(run, 1).read_text())
    assert main(["show", "r", "--workspace", str(workspace.root)]) == 0
    assert f"tracked by   tensorboard: ({reason})" in capsys.readouterr().out


def test_a_check_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("clew.followers.points.find_spec", lambda name: None)
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"job": LINES["type"].replace("plain_followers.py:Lines", "../tiny_jobs.py:count")}))
    assert main(["check", str(config), "track=[{type: wandb}]", "--workspace", str(tmp_path)]) == 0
    wanted = "note: wandb: the library 'wandb' is not installed: pip install 'clew[track]'; a run goes on without it"
    assert wanted in capsys.readouterr().out.splitlines()


def track(tmp_path, *words):
    return main(["track", *words, "--workspace", str(tmp_path)])


def test_a_finished_run_is_handed_on_to_a_tracker_that_its_config_does_not_name(tmp_path, capsys):
    run = made_run(tmp_path)
    tell(run, begin(run), 1, 3)
    end(run, 1)
    assert track(tmp_path, "run", "--to", "tensorboard", "dir=boards") == 0
    assert capsys.readouterr().out == f"tensorboard: {tmp_path}/boards/run (done, 7 events)\n"
    assert [record.name for record in read_records(run.path, "tracker")] == ["tensorboard"]
    written = (path := next((tmp_path / "boards" / "run").iterdir())).read_bytes()
    path.write_bytes(b"")
    assert track(tmp_path, "run", "--to", "tensorboard", "dir=boards", "--again") == 0
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["run"], "its config names no tracker\n  name one with --to: mlflow, tensorboard, wandb"),
        (["run", "--to", "comet"], "unknown tracker 'comet'"),
        (["run", "project=x"], "options are for one tracker\n  name it with --to"),
        (["run", "--to", "wandb", "projct=x"], "unknown key 'track.0.projct'"),
    ],
)
def test_what_cannot_be_tracked_is_said(tmp_path, capsys, words, error):
    begin(made_run(tmp_path))
    assert track(tmp_path, *words) == 2
    assert error in capsys.readouterr().err


def test_a_run_that_was_not_started_cannot_be_tracked(tmp_path, capsys):
    made_run(tmp_path)
    assert track(tmp_path, "run", "--to", "wandb") == 2
    assert "run: it has not been started" in capsys.readouterr().err
