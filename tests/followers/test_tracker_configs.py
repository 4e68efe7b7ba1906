"""What a config says about trackers."""

import pytest
from plain_followers import Lines

from clew.config import config_hash, dump
from clew.config.schema import fields_of
from clew.errors import ConfigError
from clew.followers import FollowingConfig, followers_of
from clew.followers.tensorboard import TensorBoard
from clew.followers.wandb import WandB
from clew.jobs import JobConfig, load_job
from clew.jobs.loading import registries
from support import TINY

HERE = __file__.rpartition("/")[0]


def load(*overrides, **config):
    return load_job({"job": TINY, **config}, overrides)


def test_trackers_are_chosen_by_type_and_set_by_dotted_keys():
    job = load("track.1.project=dates", "track.1.mode=offline", track=[{"type": "tensorboard"}, {"type": "wandb"}])
    assert job.config.track == [TensorBoard(), WandB(project="dates", mode="offline")]
    assert job.loaded.origins["track.1.project"].origin.layer == "command line"
    assert dump(job.config, registries())["track"][0] == {"type": "tensorboard", "dir": ""}
    assert load_job(job.plain).config == job.config


def test_a_list_of_trackers_can_be_said_on_the_command_line():
    assert load("track=[{type: tensorboard}]").config.track == [TensorBoard()]


def test_the_workspace_can_track_every_run_of_a_job(tmp_path):
    (tmp_path / "clew.yaml").write_text(f"environment:\n  {TINY}:\n    track: [{{type: tensorboard}}]\n")
    assert load_job({"job": TINY}, environment=tmp_path / "clew.yaml").config.track == [TensorBoard()]


def test_a_tracker_changes_neither_the_hash_of_the_config_nor_that_of_the_code():
    plain, tracked = load(), load(track=[{"type": f"{HERE}/plain_followers.py:Lines"}])
    assert type(tracked.config.track[0]).__name__ == "Lines"
    assert config_hash(tracked.config) == config_hash(plain.config)
    assert (tracked.config_hash, tracked.code_hash) == (plain.config_hash, plain.code_hash)


def test_jobs_and_followers_mean_the_same_fields():
    mine, theirs = dict(fields_of(FollowingConfig)), fields_of(JobConfig)
    assert mine.pop("checkpoint")  # which only jobs have that save
    assert mine
    assert all(mine[name].shape == theirs[name].shape and not theirs[name].hashed for name in mine)


def test_two_of_a_kind_have_two_names():
    assert list(followers_of(FollowingConfig(track=[WandB(), TensorBoard(), WandB(project="x"), Lines()]))) == [
        *("wandb", "tensorboard", "wandb-2", "lines")
    ]


@pytest.mark.parametrize(
    ("track", "error"),
    [
        ([{"type": "comet"}], "the given config: unknown tracker 'comet'\n  known: mlflow, tensorboard, wandb"),
        ([{"type": "wandb", "projct": "x"}], "unknown key 'track.0.projct'\n  did you mean 'track.0.project'?"),
        ([{"type": "tensorboard", "dir": "../x"}], "dir: '../x' leads out of the workspace"),
        ([{"type": "tensorboard", "dir": "/x"}], "dir: '/x' leads out of the workspace"),
        (
            [{"type": "mlflow", "tracking_uri": "http://me:secret@host"}],
            "tracking_uri: a password does not belong into a config; use $MLFLOW_TRACKING_PASSWORD",
        ),
        ([{"type": "tensorboard"}] * 2, "'track': the same tracker stands there twice"),
        ([{"type": "wandb", "project": "../x"}], "'track.0.project' must be str made of letters"),
        (["wandb"], "'track.0' must be a section, not 'wandb'\n  write track.0.type: wandb"),
    ],
)
def test_what_makes_no_sense_is_refused(track, error):
    with pytest.raises(ConfigError) as caught:
        load(track=track)
    assert error in str(caught.value)
    assert "secret" not in str(caught.value)
