"""The follower that pushes: once for however many checkpoints, and not put off by a push by hand."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from pushed_runs import attempt, stopped_run

from clew.errors import ConfigError, UserError
from clew.followers.push import PushFollowing
from clew.jobs import load_job
from clew.remote import PushConfig, open_location
from clew.remote import push as room
from clew.remote.pull import pull
from clew.remote.push import push
from support import TINY

SAVED = {"kind": "checkpoint", "step": 1}


@pytest.fixture
def place(tmp_path):
    return f"file://{tmp_path}/elsewhere"


def follower(run, place, **settings):
    return PushFollowing(push=PushConfig(to=place, **settings)).open(run, {})


def pushes(place) -> int:
    head = open_location(place).head()
    return 0 if head is None else int(head.revision)


def test_several_checkpoints_at_once_are_one_push(here, place):
    pusher = follower(stopped_run(here), place)
    pusher.send([{"kind": "metric", "step": 1}])
    assert (pushes(place), pusher.place) == (0, "")
    pusher.send([SAVED, {"kind": "metric", "step": 2}, SAVED, SAVED])
    assert (pushes(place), pusher.place) == (1, place)


def test_at_the_end_the_artifacts_come_too(here, place):
    run = stopped_run(here)
    (run.artifacts / "note").write_text("text")
    pusher = follower(run, place)
    pusher.send([SAVED])
    assert not any("artifacts" in path for path in open_location(place).head().manifest.files)
    pusher.close(run.result)
    assert "clew/artifacts/note" in open_location(place).head().manifest.files


def test_a_follower_that_only_lets_go_pushes_nothing(here, place):
    follower(stopped_run(here), place).close(None)
    assert pushes(place) == 0


def test_one_that_is_to_push_at_the_end_waits_for_it(here, place):
    run = stopped_run(here)
    pusher = follower(run, place, when="end", what=["checkpoints"])
    pusher.send([SAVED])
    assert pushes(place) == 0
    pusher.close(run.result)
    assert {path.split("/")[1] for path in open_location(place).head().manifest.files if "/" in path} == {"checkpoints"}


def test_a_push_by_hand_in_between_does_not_put_it_off(here, place, monkeypatch):
    run = stopped_run(here)
    push(run, place)
    gather, late = room.bundle, iter([True])

    @contextmanager
    def overtaken(*words, **more):
        with gather(*words, **more) as made:
            for _ in late:
                push(attempt(run), place)
            yield made

    monkeypatch.setattr(room, "bundle", overtaken)
    follower(run, place).send([SAVED])
    assert open_location(place).head().manifest.about["attempt"] == 2


def test_a_run_that_went_on_elsewhere_puts_it_off(here, there, place):
    run = stopped_run(here)
    push(run, place)
    push(attempt(pull(place, there).run), place)
    with pytest.raises(UserError, match="a later state of walk is there"):
        follower(run, place).send([SAVED])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"to": "elsewhere"}, "push.to"),
        ({"to": "hf://me"}, "this is not a model repository of the Hub"),
        ({"to": "s3://bucket/x", "public": True}, "revision and public are for repositories"),
        ({"to": "hf://me/{run}", "what": []}, "push.what"),
    ],
)
def test_a_place_that_cannot_be_one_shows_before_anything_runs(settings, told):
    with pytest.raises(ConfigError) as caught:
        load_job({"job": TINY, "push": settings})
    assert told in str(caught.value)


def test_where_a_run_is_pushed_changes_no_result(place):
    plain, pushed = (load_job({"job": TINY, **more}) for more in ({}, {"push": {"to": place}}))
    assert pushed.config_hash == plain.config_hash
