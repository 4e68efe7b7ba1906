"""What goes wrong on the way to the Hub and back: said in one line, and never half done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import hub_server
import pytest
from hub_server import Answer, Dropped
from pushed_runs import attempt, stopped_run, tree

from clew.errors import UserError
from clew.remote import Conflict, RemoteError, open_location
from clew.remote.pull import pull
from clew.remote.push import push
from clew.runs import State, Workspace

URL = "hf://me/walks"

# The client's own, in the upload of a large file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw:DeprecationWarning")


def test_every_push_is_one_commit_with_what_differs(hub, here):
    run = stopped_run(here, every=2)
    first = push(run, URL)
    repo = hub.repos["me/walks"]
    assert repo.messages == ["initial commit", "clew: run walk, attempt 1, step 1"]
    assert first.remote.revision == repo.branches["main"]
    attempt(run)
    hub.requests.clear()
    push(run, URL)
    assert hub.count("POST .*/commit/") == 1
    assert not any(path.startswith("clew/checkpoints/step-00000001") for path in repo.files)
    assert ".gitattributes" in repo.files, "what others have put there stays"


def test_a_large_file_goes_over_the_wire_once(hub, here):
    run = stopped_run(here)
    (run.artifacts / "model").mkdir()
    (run.artifacts / "model" / "weights.safetensors").write_bytes(os.urandom(1000))
    push(run, URL)
    push(run, URL, ["artifacts"])
    assert len(set(hub.uploaded)) == 1
    hub.uploaded.clear()
    push(run, "hf://me/walks/again")
    assert hub.uploaded == [], "the Hub knows the content"


def test_a_repository_is_public_only_when_that_was_asked_for(hub, here):
    push(stopped_run(here), URL, public=True)
    push(stopped_run(here, "other"), "hf://me/other")
    assert not hub.repos["me/walks"].private
    assert hub.repos["me/other"].private


def test_a_push_may_go_to_a_branch(hub, here, there):
    push(stopped_run(here), URL, revision="tries")
    repo = hub.repos["me/walks"]
    assert list(repo.files) == [".gitattributes"]
    assert pull(f"{URL}@tries", there).run.id == "walk"


def test_an_old_commit_can_be_pulled(hub, here, there):
    run = stopped_run(here)
    old = push(run, URL).remote.revision
    push(attempt(run), URL)
    assert pull(f"{URL}@{old}", there).run.states.read().attempt == 1
    with pytest.raises(UserError, match="a commit cannot be changed"):
        push(run, f"{URL}@{old}", replace=True)


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("", r"does not know who asks \(401\)"),
        (hub_server.READ, r"may not do this \(403\)"),
        ("hf_wrong", r"does not know who asks \(401\)"),
    ],
)
def test_a_token_that_may_not_push_is_told_what_to_do(hub, here, monkeypatch, tmp_path, token, told):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", token)
    run = stopped_run(here)
    with pytest.raises(RemoteError, match=told) as caught:
        push(run, URL)
    assert "set HF_TOKEN" in caught.value.hint
    assert hub.repos == {}
    assert run.result.remote is None
    assert list(run.path.glob(".pushing-*")) == []


def test_the_token_is_written_nowhere(hub, here):
    run = stopped_run(here)
    push(run, URL)
    repo = hub.repos["me/walks"]
    written = [*tree(run.path).values(), *(blob.content for blob in repo.files.values())]
    assert not any(hub_server.WRITE.encode() in content for content in written)


@pytest.mark.parametrize("request_", ["GET .*/api/models/", "POST .*/create", "POST .*/commit/"])
def test_a_server_that_hiccups_is_asked_again(hub, here, there, impatient, request_):
    hub.fail(request_, Answer(503), Answer(502), Dropped())
    push(stopped_run(here), URL)
    assert impatient
    assert pull(URL, there).run.id == "walk"


def test_a_server_that_stays_broken_is_given_up(hub, here, impatient):
    hub.fail("GET .*/api/models/", *[Answer(500)] * 20)
    with pytest.raises(RemoteError, match="the Hub answers with 500"):
        push(stopped_run(here), URL)
    assert impatient == [0.5, 1.0, 2.0]


def test_nobody_there_is_said(hub, here, there, impatient, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for act in (lambda: push(stopped_run(here), URL), lambda: pull(URL, there)):
        with pytest.raises(RemoteError, match="the Hub cannot be reached"):
            act()


def test_offline_is_said(hub, here, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RemoteError, match="is not asked in offline mode") as told:
        push(stopped_run(here), URL)
    assert told.value.hint == "unset HF_HUB_OFFLINE"


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, here, impatient):
    run = stopped_run(here)
    push(run, URL)
    attempt(run)
    location, route = open_location(URL), hub_server.Handler.commit

    def lost(self, **words):
        try:
            route(self, **words)
        except Answer:
            raise Dropped from None

    hub_server.Handler.commit = lost
    hub.before = lambda method, path: (
        setattr(hub_server.Handler, "commit", route) if hub.count("/commit/") > 2 else None
    )
    try:
        done = push(run, URL)
    finally:
        hub_server.Handler.commit = route
    assert done.remote.revision == location.head().revision
    assert len(hub.repos["me/walks"].messages) == 3


def test_of_two_pushers_at_once_both_arrive_and_the_later_state_stays(hub, here, there):
    one = stopped_run(here)
    push(one, URL)
    other = attempt(pull(URL, there).run)
    met = threading.Barrier(2, timeout=30)
    waited = threading.local()

    def meet(method: str, path: str) -> None:
        if "/commit/" in path and not hasattr(waited, "once") and hub.count("/commit/") <= 3:
            waited.once = True
            met.wait()

    (one.artifacts / "note").write_text("the same state, and a note")
    hub.before = meet
    outcomes: dict[str, object] = {}

    def go(name: str, run: object) -> None:
        try:
            outcomes[name] = push(run, URL)  # type: ignore[arg-type]
        except UserError as error:
            outcomes[name] = error

    threads = [threading.Thread(target=go, args=pair) for pair in (("one", one), ("other", other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    head = open_location(URL).head()
    assert head.manifest.about["attempt"] == 2
    assert not isinstance(outcomes["other"], Exception)
    if isinstance(outcomes["one"], Exception):  # it was second, and told so
        assert "a later state of walk is there" in str(outcomes["one"])


def test_somebody_who_is_always_quicker_is_named_at_last(hub, here, impatient):
    run = stopped_run(here)
    push(run, URL)
    attempt(run)
    hub.fail("POST .*/commit/", *[Answer(412)] * 20)
    with pytest.raises(Conflict, match="somebody else has pushed there meanwhile"):
        push(run, URL)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["PUT /large/", "POST .*/commit/"])
def test_a_push_that_is_killed_leaves_the_state_before(hub, here, there, moment):
    run = stopped_run(here)
    (run.artifacts / "weights.safetensors").write_bytes(b"one")
    push(run, URL)
    before = pull(URL, there).run
    attempt(run)
    (run.artifacts / "weights.safetensors").write_bytes(b"two")
    arrived, killed = threading.Event(), threading.Event()

    def hold(method: str, path: str) -> None:
        if hub_server.re.search(moment, f"{method} {path}"):
            arrived.set()
            killed.wait(30)
            raise Dropped

    hub.before = hold
    pusher = subprocess.Popen(
        [sys.executable, "-m", "clew.cli", "push", "walk", URL, "--workspace", str(here.root)],
        env={**os.environ, **hub_server.environment(hub)},
    )
    assert arrived.wait(60)
    pusher.kill()
    pusher.wait(30)
    killed.set()
    hub.before = lambda method, path: None
    after = pull(URL, Workspace(there.root / "second")).run
    assert tree(after.path, "state.json", ".lock") == tree(before.path, "state.json", ".lock")
    push(run, URL)
    assert pull(URL, there).run.state is State.COMPLETED
    assert list(run.path.glob(".pushing-*")) == [], "what the killed push left is cleaned up"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_disk_that_fills_while_pulling_leaves_nothing(hub, here, tmp_path):
    run = stopped_run(here)
    (run.artifacts / "large.bin").write_bytes(os.urandom(3_000_000))
    push(run, URL)
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.warns(UserWarning, match="Not enough free disk space"), pytest.raises(UserError) as told:
            pull(URL, Workspace(small))
        assert "the disk is full" in str(told.value)
        assert "nothing is left" in told.value.hint
        assert list((small / "runs").iterdir()) == []
        assert shutil.disk_usage(small).used < 100_000
    finally:
        subprocess.run(["umount", str(small)], check=True)
