"""``clew push`` and ``clew pull``, and pushing beside a live run; with real workers and the real client."""

from __future__ import annotations

import shutil

import hub_server
import pytest
from pushed_runs import done_run, stopped_run

import clew
from clew.cli.main import main
from clew.remote import open_location
from clew.remote.pull import pull
from clew.runs import Run, State
from clew.runs.following import read_records
from support import TINY, wait_until

URL = "hf://me/walks"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw:DeprecationWarning")


@pytest.fixture
def call(capsys):
    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_push_and_pull_say_what_was_done_and_what_comes_next(hub, call, here, there):
    run = stopped_run(here)
    code, out, _ = call("push", "walk", URL, "--workspace", str(here.root))
    revision = hub.repos["me/walks"].branches["main"]
    assert code == 0
    assert out.startswith(f"walk: pushed to {URL} at {revision} (")
    assert call("show", "walk", "--workspace", str(here.root))[1].count(f"pushed to    {URL} at {revision}") == 1
    code, out, err = call("pull", URL, "--name", "mine", "--workspace", str(there.root))
    assert (code, err) == (0, "")
    assert out.startswith(f"mine: pulled into {there.runs / 'mine'} (")
    assert out.endswith("clew resume mine goes on here; it should not go on where it came from as well\n")
    assert Run(there.runs / "mine").info.uid == run.info.uid


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["push", "walk", "somewhere"], "clew: somewhere: this is not the URL of a location\n"),
        (["push", "walk", URL, "--what", "artefacts"], "clew: --what: there is no part 'artefacts'\n  did you mean"),
        (
            ["push", "walk", "memory://x", "--public"],
            "clew: memory://x: --revision and --public are for repositories",
        ),
        (["push", "wlk", URL], "there is no run or pipeline 'wlk'"),
        (["pull", URL], f"clew: {URL}: there is nothing there, or nothing that may be seen\n"),
    ],
)
def test_what_cannot_be_done_is_said_in_two_lines(hub, call, here, words, told):
    stopped_run(here)
    code, out, err = call(*words, "--workspace", str(here.root))
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") <= 2


def test_a_location_that_refuses_is_exit_code_1(hub, call, here, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub_server.READ)
    stopped_run(here)
    code, _, err = call("push", "walk", URL, "--workspace", str(here.root))
    assert code == 1
    assert err.startswith(f"clew: {URL}: the token may not do this (403)")


def test_the_card_says_what_it_is(hub, here, tmp_path, call):
    source = tmp_path / "source.txt"
    source.write_text("text")
    run = done_run(here, source=str(source))
    call("push", "walk", URL, "--workspace", str(here.root))
    card = hub.repos["me/walks"].files["README.md"].content.decode()
    assert card.startswith("---\nlicense: unknown\ntags:\n- clew\n---\n\n# walk\n")
    assert "Made with Clew: the job `count`, attempt 1, completed." in card
    assert f"- Config: hash `{run.info.config_hash}`" in card
    assert "- Data `source`: SHA-256 `" in card
    assert "| steps | 10 |" in card
    assert str(tmp_path) not in card


@pytest.mark.slow
def test_a_run_is_pushed_while_it_goes_on_and_at_its_end(hub, here, there):
    watched = []
    hub.before = lambda method, path: watched.append(path) if "/commit/" in path else None
    result = clew.run(
        {"job": TINY, "name": "walk", "until": 60, "every": 5, "pause": 0.05, "push": {"to": "hf://me/{run}"}},
        workspace=here.root,
    )
    assert result.status == "completed"
    run = Run(here.runs / "walk")
    wait_until(lambda: [record.status for record in read_records(run.path, "push")] == ["done"])
    assert 2 <= len(watched) <= 13, "several on the way, some of which may stand for more than one checkpoint"
    assert run.result.remote.repo == "me/walk"
    pulled = pull("hf://me/walk", there).run
    assert pulled.state is State.COMPLETED
    assert (pulled.artifacts / "walk.txt").read_text() == (run.artifacts / "walk.txt").read_text()
    assert not any(hub_server.WRITE in path.read_text() for path in run.path.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_from_what_was_pushed_beside_it(hub, here, there, tmp_path):
    place = f"file://{tmp_path}/elsewhere"
    config = {"job": TINY, "until": 12, "every": 2, "pause": 0.1}
    straight = clew.run({**config, "pause": 0, "name": "straight"}, workspace=here.root)
    clew.run({**config, "name": "killed", "kill_at": 9, "push": {"to": place}}, workspace=here.root)
    head = open_location(place).head
    wait_until(lambda: (now := head()) is not None and now.manifest.about["step"] == 8)
    pulled = pull(place, there)
    assert main(["resume", "killed", "--workspace", str(there.root)]) == 0
    assert pulled.run.result.metrics == straight.metrics


@pytest.mark.slow
def test_a_dead_remote_fails_no_run_and_shows(here, call, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    config = {"job": TINY, "name": "walk", "push": {"to": URL, "when": "end"}}
    assert clew.run(config, workspace=here.root).status == "completed"
    wait_until(lambda: any(record.error for record in read_records(here.runs / "walk", "push")))
    shown = call("show", "walk", "--workspace", str(here.root))[1]
    assert "the Hub cannot be reached" in shown
    assert "trying again" in shown
    shutil.rmtree(here.runs / "walk")  # whoever follows a run that is gone leaves


@pytest.mark.slow
def test_a_place_that_holds_another_run_is_given_up_at_once(here, there, call, tmp_path):
    place = f"file://{tmp_path}/elsewhere"
    from clew.remote.push import push

    push(stopped_run(there, name="other", seed=5), place)
    clew.run({"job": TINY, "name": "walk", "push": {"to": place}}, workspace=here.root)
    wait_until(lambda: any(record.status == "given up" for record in read_records(here.runs / "walk", "push")))
    shown = call("show", "walk", "--workspace", str(here.root))[1]
    assert "another run is there already: other" in shown
    assert "clew push walk URL sends it" in shown
