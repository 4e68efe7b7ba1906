"""One contract for all trackers: what they hold is what the journal says, whoever was killed on the way."""

import shutil
import sys
from math import inf

import pytest
from followed_runs import begin, end, follow, made_run, points, run_that_went_back, tell
from tracker_readers import MLflowReader, TensorBoardReader, WandBReader
from wandb_stand_in import wandb_server

from clew.followers.wandb import WandB
from clew.runs import State
from clew.runs.following import read_records, tracker_places

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

READERS = [TensorBoardReader(), MLflowReader(), WandBReader()]

KILLED = """
import os
from clew.followers import follow
follow.BATCH = 7
noted = follow.Follow._commit
def commit(self, follower, tail):
    if tail.number > {after}:
        os.kill(os.getpid(), 9)  # delivered, and not noted
    noted(self, follower, tail)
follow.Follow._commit = commit
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """MLflow's database, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    run = made_run(folder, "other")
    end(run, begin(run))
    follow(run, MLflowReader.config)
    return folder / "mlflow.db"


@pytest.fixture
def workspace(tmp_path, database):
    shutil.copy(database, tmp_path)
    return tmp_path


def rounded(found):
    """TensorBoard keeps 32-bit numbers."""
    return [(name, step, float(f"{value:.6g}")) for name, step, value in found]


def test_a_run_that_went_back_while_it_was_tracked(workspace):
    run = made_run(workspace)
    tell(run, begin(run), 1, 10)
    end(run, 1, State.INTERRUPTED)
    for reader in READERS:
        follow(run, reader.config)
    assert [rounded(reader.points(run)) == rounded(points(run)) for reader in READERS] == [True] * 3
    assert MLflowReader().status(run) == "KILLED"
    tell(run, begin(run), 7, 12, scale=2.0)
    end(run, 2)
    for reader in READERS:
        follow(run, reader.config)
        expected, found = rounded(points(run)), rounded(reader.points(run))
        if reader.keeps_what_was_superseded:
            assert len(found) == 2 * (10 + 6)
            found = [point for point in found if point in expected]
        assert found == expected
        assert reader.final(run) == {"final/accuracy": 0.5, "count/generation": 12.0}
        assert "0.001" in reader.config_text(run)
    assert MLflowReader().status(run) == "FINISHED"
    assert list(tracker_places(run.path)) == ["mlflow", "tensorboard", "wandb"]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: type(reader).__name__)
def test_a_follower_that_is_killed_after_a_delivery_loses_and_doubles_nothing(workspace, reader):
    run = run_that_went_back(workspace)
    follow(run, reader.config, before=KILLED.format(after=20), code=-9)
    assert [record.status for record in read_records(run.path, "tracker")] == ["following"]
    follow(run, reader.config)
    assert rounded(reader.points(run)) == rounded(points(run))
    assert [record.status for record in read_records(run.path, "tracker")] == ["done"]


def test_numbers_that_are_not_finite_arrive(workspace):
    run = made_run(workspace)
    tell(run, begin(run), 1, 1, scale=float("inf"))
    end(run, 1)
    for reader in READERS:
        follow(run, reader.config)
    found = {type(reader).__name__: {value for _, _, value in reader.points(run)} for reader in READERS}
    largest = sys.float_info.max  # MLflow's databases have no infinity, and its own code takes this number instead
    assert found == {"TensorBoardReader": {inf}, "MLflowReader": {largest}, "WandBReader": {inf}}


def test_wandb_online_gets_each_row_once_though_its_follower_is_killed_and_the_run_goes_back(tmp_path, monkeypatch):
    run = made_run(tmp_path)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        tell(run, begin(run), 1, 10)
        end(run, 1, State.INTERRUPTED)
        follow(run, WandB(), before=KILLED.format(after=14), code=-9)
        follow(run, WandB())
        assert [row["step"] for row in server.rows] == list(range(1, 11))
        tell(run, begin(run), 7, 12, scale=2.0)
        end(run, 2)
        follow(run, WandB())
    (record,) = read_records(run.path, "tracker")
    assert (record.status, record.place) == ("done", f"{server.url}/me/clew/runs/{server.run}")
    told = [(row["attempt"], row["step"], row["loss"]) for row in server.rows]
    first = [(1, step, 1 / step) for step in range(1, 11)]
    assert told == first + [(2, step, 2 / step) for step in range(7, 13)]
    assert (server.summary["final/accuracy"], server.summary["status"]) == (0.5, "completed")
