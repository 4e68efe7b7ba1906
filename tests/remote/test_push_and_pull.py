"""A run that is pushed can be gone on with elsewhere, and what is there is always one whole state of it."""

from __future__ import annotations

import uuid

import pytest
from pushed_runs import attempt, done_run, stopped_run, tree

from clew.errors import UserError
from clew.remote import RemoteError, open_location
from clew.remote.pull import pull
from clew.remote.push import push
from clew.runs import JobResult, State

LOCAL_ONLY = ("state.json", ".lock", "logs", "inbox", "pushed.json")


@pytest.fixture(params=["hub", "file", "memory"])
def url(request, tmp_path):
    if request.param == "hub":
        request.getfixturevalue("hub")
        return "hf://me/walks"
    return f"file://{tmp_path}/elsewhere/walks" if request.param == "file" else f"memory://{uuid.uuid4()}/walks"


def test_a_pulled_run_is_the_run_that_was_pushed(url, here, there):
    run = stopped_run(here)
    pushed = push(run, url)
    pulled = pull(pushed.remote.url, there)
    assert pulled.run.path == there.runs / "walk"
    assert tree(pulled.run.path, *LOCAL_ONLY) == tree(run.path, *LOCAL_ONLY)
    assert (pulled.run.state, pulled.run.states.read().attempt) == (State.STOPPED, 1)
    assert pulled.missing == ()


def test_it_goes_on_bitwise_equal_in_another_workspace(url, here, there, tmp_path):
    straight = done_run(type(here)(tmp_path / "straight"))
    run = stopped_run(here)
    pulled = pull(push(run, url).remote.url, there).run
    attempt(pulled)
    assert pulled.state is State.COMPLETED
    assert [event["step"] for event in pulled.events("restore")] == [0, 1]
    assert tree(pulled.artifacts) == tree(straight.artifacts)
    assert [event["values"] for event in pulled.events("metric")] == [
        event["values"] for event in straight.events("metric")
    ]


def test_a_run_with_a_history_goes_back_and_forth(url, here, there):
    run = stopped_run(here, until=6, every=2)
    place = push(run, url).remote.url
    away = pull(place, there).run
    attempt(away)
    push(away, url)
    again = pull(place, here)
    assert again.run.state is State.COMPLETED
    assert (again.run.path / "logs").is_dir()
    assert tree(again.run.path, "checkpoints", *LOCAL_ONLY) == tree(away.path, "checkpoints", *LOCAL_ONLY)


def test_a_folder_of_a_repository_holds_a_run_of_its_own(hub, here, there):
    one, other = stopped_run(here, "one"), stopped_run(here, "other", seed=1)
    places = [push(run, "hf://me/walks/below/{run}").remote.url for run in (one, other)]
    assert places == ["hf://me/walks/below/one", "hf://me/walks/below/other"]
    assert tree(pull(places[0], there).run.path, *LOCAL_ONLY) == tree(one.path, *LOCAL_ONLY)
    with pytest.raises(UserError, match="no run is there"):
        pull("hf://me/walks", there)


def test_a_state_that_is_replaced_while_it_is_read_is_read_anew(here, there, tmp_path, monkeypatch):
    """Two pushes later the objects of the first state are gone."""
    run, place = stopped_run(here, every=2), f"file://{tmp_path}/elsewhere"
    push(run, place)
    location = type(open_location(place))
    fetch, pushes = location.fetch, iter([True, True])

    def slow(self, *words):
        for _ in pushes:
            attempt(run) if run.state is not State.COMPLETED else (run.artifacts / "note").write_text("more")
            push(run, place)
        fetch(self, *words)

    monkeypatch.setattr(location, "fetch", slow)
    assert pull(place, there).run.state is State.COMPLETED


@pytest.mark.parametrize("name", ["walk", "walk-2"])
def test_a_pull_that_died_between_its_renames_is_finished_by_the_next(here, there, tmp_path, name):
    place = push(stopped_run(here), f"file://{tmp_path}/elsewhere").remote.url
    run = pull(place, there, name=name).run
    dead = 2**22 + 1  # above the largest process number
    run.path.rename(there.runs / f".old-{name}-{dead}")
    (there.runs / f".new-walk-{dead}").mkdir()
    pulled = pull(place, there, name="walk").run
    assert pulled.state is State.STOPPED
    left = sorted(path.name for path in there.runs.iterdir())
    assert left == (["walk"] if name == "walk" else [f".old-walk-2-{dead}", "walk"])


def test_only_what_differs_is_sent(url, here):
    run = stopped_run(here, every=2)
    whole = push(run, url)
    assert whole.sent > 0
    assert push(run, url).sent == 0
    attempt(run)
    more = push(run, url)
    sizes = {path: entry.bytes for path, entry in more.manifest.files.items()}
    assert 0 < more.sent < sum(sizes.values())
    assert sizes["clew/config.yaml"] > 0


def test_parts_that_are_not_sent_stay_as_they_are(url, here, there):
    run = stopped_run(here, every=2)
    push(run, url)
    attempt(run)
    push(run, url, ["artifacts"])
    place = push(run, url, ["run"]).remote.url
    pulled = pull(place, there).run
    assert (pulled.artifacts / "walk.txt").read_bytes() == (run.artifacts / "walk.txt").read_bytes()
    assert [path.name for path in pulled.checkpoints.iterdir()] == ["step-00000001"]


def test_the_newest_good_checkpoint_and_the_best_are_sent(url, here):
    run = done_run(here, every=2)
    newest = sorted(run.checkpoints.iterdir())[-1]
    (newest / "state").write_text("broken")
    steps = {path.split("/")[2] for path in push(run, url).manifest.files if path.startswith("clew/checkpoints/")}
    assert steps == {"step-00000008"}


def test_another_run_is_not_replaced_unless_asked(url, here, there):
    one = stopped_run(here)
    place = push(one, url).remote.url
    other = stopped_run(there, seed=1)
    with pytest.raises(UserError, match="another run is there already: walk") as told:
        push(other, place)
    assert "--replace" in told.value.hint
    push(other, place, replace=True)
    assert pull(place, here, name="taken").run.info.uid == other.info.uid


def test_a_later_state_is_not_replaced_by_an_earlier_one(url, here, there):
    run = stopped_run(here)
    place = push(run, url).remote.url
    away = pull(place, there).run
    attempt(away)
    push(away, place)
    with pytest.raises(
        UserError, match=r"a later state of walk is there: attempt 2, step 10 \(here: attempt 1, step 1"
    ):
        push(run, place)


def test_a_run_that_went_further_here_is_not_overwritten(url, here, there):
    run = stopped_run(here)
    place = push(run, url).remote.url
    away = pull(place, there).run
    attempt(away)
    before = tree(away.path)
    with pytest.raises(UserError, match="has gone further here") as told:
        pull(place, there)
    assert "clew resume walk" in told.value.hint
    assert tree(away.path) == before


def test_two_that_went_different_ways_from_one_attempt_are_told_apart(url, here, there):
    run = stopped_run(here)
    place = push(run, url).remote.url
    attempt(pull(place, there).run)
    attempt(run)
    push(run, place)
    with pytest.raises(UserError, match="has gone further here"):
        pull(place, there)
    assert pull(place, there, name="other-way").run.state is State.COMPLETED


def test_a_run_that_is_alive_where_it_comes_from_is_interrupted_here(url, here, there):
    run = stopped_run(here)
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    run.states.move(State.RUNNING, attempt=number)
    pulled = pull(push(run, url).remote.url, there).run
    now = pulled.states.read()
    assert (now.state, now.owner, now.lease_until) == (State.INTERRUPTED, None, None)
    assert now.reason == "it was running where it was pushed from"
    with pytest.raises(UserError, match="this run is alive here"):
        pull(run.result.remote.url, here)


def test_a_damaged_file_is_named_and_nothing_is_left_of_the_pull(url, request, here, there):
    run = stopped_run(here)
    place = push(run, url).remote.url
    damage(request, place, "clew/checkpoints/step-00000001/state")
    with pytest.raises(RemoteError, match=r"clew/checkpoints/step-00000001/state does not match its hash") as told:
        pull(place, there)
    assert "--everything" in told.value.hint
    assert list(there.runs.iterdir()) == []
    push(run, place, everything=True)
    assert pull(place, there).run.state is State.STOPPED


def damage(request, place: str, path: str) -> None:
    """Change one byte of a file behind everybody's back."""
    if place.startswith("hf://"):
        repo = request.getfixturevalue("hub").repos["me/walks"]
        name = next(name for name in repo.files if name.endswith(path))
        content = repo.files[name].content
        repo.files[name] = type(repo.files[name])(content[:-1] + bytes([content[-1] ^ 1]), repo.files[name].large)
        return
    location = open_location(place)
    name = location._object(location.head().manifest.files[path].sha256)
    content = location.files.cat_file(name)
    location.files.pipe_file(name, content[:-1] + bytes([content[-1] ^ 1]))


def test_the_result_says_where_the_run_was_pushed(url, here):
    run = done_run(here)
    assert run.result.remote is None
    remote = push(run, url).remote
    assert run.result.remote == remote
    assert JobResult.load(run.path).remote is None, "what the worker wrote stays as it is"
    assert bool(remote.repo) == url.startswith("hf://")
    assert remote.revision


def test_nothing_to_pull_is_said(url, there):
    with pytest.raises(UserError, match="there is nothing there, or nothing that may be seen"):
        pull(url.replace("{run}", "walk"), there)


def test_what_the_run_reads_and_is_not_here_is_named(url, here, there, tmp_path):
    source = tmp_path / "source.txt"
    source.write_text("text")
    run = stopped_run(here, source=str(source))
    place = push(run, url).remote.url
    source.unlink()
    assert pull(place, there).missing == (f"source: {source} is not here",)
