"""Checkpoints that another place has too: sent in the background, fetched back by content.

The place is a real S3 server on loopback, or a folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from clew.checkpoints import CheckpointStore
from clew.checkpoints.counted import counted_checkpoints
from clew.cli.main import main
from clew.errors import UserError
from clew.followers import followers_of
from clew.followers.push import PushFollowing
from clew.jobs import load_job, load_run_config, resolve_job
from clew.remote import PushConfig
from clew.remote.errors import RemoteError
from clew.remote.location import open_location
from clew.remote.mirror import bring_back, mirror_of, restore
from clew.runs import Fenced, Owner, Run, RunInfo, State, Workspace, create_run
from clew.runs.files import file_digest, tree_bytes
from clew.session import Session
from clew.session.attempt import Attempt
from clew.session.lifecycle import Lifecycle
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from support import tiny_run, wait_until

RELEASE = Path(__file__).parents[1] / "fixtures" / "runs" / "0.1.0"
NEWEST, BEFORE = "step-00000008", "step-00000004"


@pytest.fixture(scope="module")
def bucket():
    """A bucket of a server that speaks S3, which the libraries of this process and of others talk to."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import boto3
    import s3fs

    patch = pytest.MonkeyPatch()
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="runs")
    client.close()
    s3fs.S3FileSystem.clear_instance_cache()
    yield "s3://runs"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
    patch.undo()


@pytest.fixture(params=["s3", "file"])
def place(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path}/mirror"
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


@pytest.fixture
def run(tmp_path):
    shutil.copytree(RELEASE, tmp_path / "runs" / "kept")
    found = Workspace(tmp_path).find_run("kept")
    found.make_folders()
    return found


def send(run: Run, place: str) -> None:
    """What happens beside a run when a checkpoint was saved."""
    pushed = PushFollowing(push=PushConfig(to=place, what=["checkpoints", "run"])).open(run, {})
    pushed.send([{"kind": "checkpoint", "step": 8}])
    assert pushed.place == place


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_lost_checkpoint_comes_back_as_it_was(run, place):
    before = contents(run.checkpoints / NEWEST)
    send(run, place)
    shutil.rmtree(run.checkpoints)
    done = restore(run, place)
    assert done.steps == (8,)
    assert done.fetched == done.bytes == sum(map(int, (path.stat().st_size for path in run.checkpoints.rglob("*.*"))))
    assert contents(run.checkpoints / NEWEST) == before
    assert CheckpointStore(run.checkpoints).newest_good()[0].step == 8
    assert [path.name for path in run.checkpoints.iterdir()] == [NEWEST]


def test_only_what_differs_is_transferred(run, place):
    send(run, place)
    path = run.checkpoints / NEWEST / "trainer.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    assert "trainer.json" in CheckpointStore(run.checkpoints).newest_good()[1][8]
    done = restore(run, place)
    assert (done.steps, done.fetched) == ((8,), path.stat().st_size)
    assert done.bytes > 5 * done.fetched
    assert CheckpointStore(run.checkpoints).newest_good()[0].step == 8


def test_what_is_the_same_in_another_checkpoint_is_not_transferred(run, place):
    """As the tokenizer of a model is."""
    send(run, place)
    same = contents(run.checkpoints / NEWEST).items() & contents(run.checkpoints / BEFORE).items()
    shutil.rmtree(run.checkpoints / NEWEST)
    done = restore(run, place)
    assert {name for name, _ in same} >= {"model/tokenizer.json", "model/config.json"}
    assert done.fetched <= done.bytes - sum((run.checkpoints / NEWEST / name).stat().st_size for name, _ in same)


def test_nothing_is_fetched_when_all_is_whole(run, place):
    send(run, place)
    assert restore(run, place).steps == ()


def test_a_damaged_copy_does_not_take_a_place(run, tmp_path):
    place = f"file://{tmp_path}/mirror"
    send(run, place)
    location = open_location(place)
    entry = location.head().manifest.files[f"clew/checkpoints/{NEWEST}/trainer.safetensors"]
    (tmp_path / "mirror" / "objects" / entry.sha256).write_bytes(b"x" * entry.bytes)
    shutil.rmtree(run.checkpoints / NEWEST)
    with pytest.raises(Exception, match="does not match its hash"):
        restore(run, place)
    assert [path.name for path in run.checkpoints.iterdir()] == [BEFORE]


def test_another_run_is_not_taken_for_this_one(run, tmp_path):
    place = f"file://{tmp_path}/mirror"
    send(run, place)
    other = tiny_run(Workspace(tmp_path), name="other")
    with pytest.raises(UserError, match="another run is there: kept"):
        restore(other, place)
    with pytest.raises(UserError, match="nothing there"):
        restore(other, f"file://{tmp_path}/nowhere")


def mirrored(run: Run, place: str) -> Run:
    config = yaml.safe_load(run.config_path.read_text())
    config["checkpoint"]["mirror"] = place
    run.config_path.write_text(yaml.safe_dump(config))
    return run


def test_the_config_says_where(run, tmp_path):
    assert mirror_of(run) == ""
    assert mirror_of(mirrored(run, "s3://runs/{run}")) == "s3://runs/kept"
    settings = {"job": "pretrain", "task": {"type": "arithmetic"}}
    assert followers_of(load_job(settings).config) == {}
    (name, follower), *rest = followers_of(
        load_job({**settings, "checkpoint": {"mirror": "s3://a/{run}"}}).config
    ).items()
    assert (name, follower.push.to, follower.push.what, rest) == ("mirror", "s3://a/{run}", ["checkpoints", "run"], [])


@pytest.mark.slow
def test_a_run_sends_its_checkpoints_while_it_works_and_gets_them_back(run, place, monkeypatch, capsys):
    mirrored(run, place)
    assert follow(LocalTarget().launch(run), Silent()) is State.COMPLETED, run.result.failure

    def newest() -> bool:
        head = open_location(place).head()
        return head is not None and any("step-00000012/manifest" in path for path in head.manifest.files)

    wait_until(newest)
    expected = contents(run.checkpoints / "step-00000012")
    shutil.rmtree(run.checkpoints)
    assert main(["--workspace", str(run.path.parents[1]), "checkpoints", "restore", "kept"]) == 0
    assert "restored 12" in capsys.readouterr().out
    assert main(["--workspace", str(run.path.parents[1]), "checkpoints", "restore", "kept"]) == 0
    assert capsys.readouterr().out.startswith("kept: nothing of what ")
    assert contents(run.checkpoints / "step-00000012") == expected
    assert tree_bytes(run.checkpoints) > 0


class Attempted:
    """A trainer of which only the state counts."""

    def save(self, directory: Path) -> None:
        (directory / "state").write_text("x")

    def load(self, directory: Path) -> None:
        """There is nothing to restore."""


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def ruined(run: Run) -> Path:
    """Leave no good checkpoint; return the file of the newest that is damaged."""
    shutil.rmtree(run.checkpoints / BEFORE)
    path = run.checkpoints / NEWEST / "trainer.safetensors"
    flip(path)
    return path


def attempted(run: Run) -> State:
    """What a worker does, but for those that follow it."""
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    mine = Attempt(run, number, lambda run: {}, copies=bring_back)
    mine.claim()
    with mine, mine.session(load_run_config(run), lambda run, number, config: None) as session:
        mine.outcome = resolve_job(run.info.job).run(session)
    return run.state


def unreachable(monkeypatch) -> str:
    """A server that is not there."""
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    s3fs.S3FileSystem.clear_instance_cache()
    return "s3://runs/nowhere"


@pytest.mark.slow
def test_a_run_without_a_good_checkpoint_goes_on_from_the_newest_of_its_mirror(run, place, tmp_path, capsys):
    """It ends as a run does whose checkpoints were whole."""
    shutil.copytree(RELEASE, tmp_path / "other" / "runs" / "kept")
    undisturbed = Workspace(tmp_path / "other").find_run("kept")
    undisturbed.make_folders()
    assert attempted(undisturbed) is State.COMPLETED
    send(mirrored(run, place), place)
    lost = ruined(run).stat().st_size
    assert main(["--workspace", str(tmp_path), "resume", "kept"]) == 0
    out = capsys.readouterr().out
    assert "kept: step 8: the checkpoint cannot be used: trainer.safetensors does not match its hash" in out
    assert f"kept: step 8: no checkpoint here can be used; fetched from {place} (" in out
    (event,) = run.events("checkpoint_fetched")
    assert (event["at"], event["source"], event["fetched"]) == (8, place, lost)
    assert event["bytes"] > lost
    assert [event["step"] for event in run.events("restore")][-1] == 8
    assert sorted(event["step"] for event in run.events("metric") if "loss" in event["values"]) == list(range(1, 13))
    assert contents(run.artifacts / "model") == contents(undisturbed.artifacts / "model")


def test_a_run_whose_checkpoints_are_all_gone_fetches_the_newest_whole(run, place):
    send(mirrored(run, place), place)
    shutil.rmtree(run.checkpoints)
    run.make_folders()
    assert attempted(run) is State.COMPLETED, run.result.failure
    (event,) = run.events("checkpoint_fetched")
    assert (event["at"], event["fetched"]) == (8, event["bytes"])


def test_a_mirror_that_cannot_be_reached_costs_nothing_but_the_attempt(run, bucket, tmp_path, monkeypatch):
    place = f"{bucket}/{tmp_path.name}"
    send(mirrored(run, place), place)
    ruined(run)
    before, logged = contents(run.checkpoints), list(run.events("metric"))
    with monkeypatch.context() as patch:
        unreachable(patch)
        assert attempted(run) is State.FAILED
    said = run.result.failure.reason
    assert "no checkpoint here can be used, and none can be fetched: the location cannot be used: " in said
    assert "nothing was changed; clew resume kept tries it again" in said
    assert (contents(run.checkpoints), list(run.events("metric"))) == (before, logged)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    assert attempted(run) is State.COMPLETED, run.result.failure
    assert [event["at"] for event in run.events("checkpoint_fetched")] == [8]


def test_a_damaged_copy_is_passed_over_for_the_one_before(run, tmp_path):
    place = f"file://{tmp_path}/mirror"
    manifest = run.checkpoints / NEWEST / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"metric": ', '"metric": 9'))  # the one before is the best
    send(mirrored(run, place), place)
    entry = open_location(place).head().manifest.files[f"clew/checkpoints/{NEWEST}/trainer.safetensors"]
    (tmp_path / "mirror" / "objects" / entry.sha256).write_bytes(b"x" * entry.bytes)
    ruined(run)
    assert attempted(run) is State.COMPLETED, run.result.failure
    assert [event["at"] for event in run.events("checkpoint_fetched")] == [4]
    assert [event["step"] for event in run.events("restore")][-1] == 4


@pytest.mark.parametrize("there", ["nothing", "another run", "only damage", "a checkpoint that counts no longer"])
def test_a_mirror_without_a_good_checkpoint_of_this_run_is_said_and_nothing_begins_anew(run, tmp_path, there):
    place = f"file://{tmp_path}/mirror"
    said = {
        "nothing": "there is nothing there",
        "another run": "another run is there: other",
        "only damage": "does not match its hash",
        "a checkpoint that counts no longer": "none of this run's checkpoints are there",
    }[there]
    if there == "another run":
        other = tiny_run(Workspace(tmp_path), name="other", every=5)
        attempted(other)
        send(other, place)
    elif there != "nothing":
        send(run, place)
    mirrored(run, place)
    ruined(run)
    if there == "only damage":
        for path in (tmp_path / "mirror" / "objects").iterdir():
            path.write_bytes(b"x" * path.stat().st_size)
    if there == "a checkpoint that counts no longer":
        shutil.rmtree(run.checkpoints / NEWEST)
        with (run.path / "journal" / "2-0.jsonl").open("a") as stream:
            stream.write('{"t": 1, "kind": "restore", "step": 4}\n')
    before = contents(run.checkpoints)
    assert attempted(run) is State.FAILED
    assert said in run.result.failure.reason
    assert contents(run.checkpoints) == before


def test_a_push_without_a_good_checkpoint_leaves_those_that_are_there(run, tmp_path):
    """An attempt that has still to fetch one is pushed as soon as it begins."""
    place = f"file://{tmp_path}/mirror"
    send(mirrored(run, place), place)
    before = open_location(place).head().manifest.files
    ruined(run)
    for _ in range(3):  # old manifests go, and with them what only they name
        with (run.path / "journal" / "1-0.jsonl").open("a") as stream:
            stream.write('{"t": 1, "kind": "note"}\n')
        send(run, place)
    assert {path for path in before if "checkpoints/" in path} <= open_location(place).head().manifest.files.keys()
    assert bring_back(run, run.states.read().attempt, {8: 0}).step == 8


def test_who_was_replaced_while_it_fetched_puts_nothing_into_its_place(run, tmp_path):
    place = f"file://{tmp_path}/mirror"
    send(mirrored(run, place), place)
    ruined(run)
    before = contents(run.checkpoints)
    with pytest.raises(Fenced):
        bring_back(run, run.states.read().attempt - 1, {4: 0, 8: 0})
    assert contents(run.checkpoints) == before
    assert bring_back(run, run.states.read().attempt, {4: 0, 8: 0}).step == 8


def test_nobody_is_asked_for_a_run_that_has_saved_nothing_yet(tmp_path):
    asked: list[dict[int, int]] = []

    class Elsewhere(Lifecycle):
        def fetch(self, run, attempt, steps):
            asked.append(dict(steps))

    run = create_run(tmp_path / "runs", RunInfo(id="r", job="x"), "job: x\n", {})
    for _ in range(2):
        number = run.states.queue()
        run.states.move(State.STARTING, attempt=number)
        run.states.move(State.RUNNING, attempt=number, owner=Owner.current())
        with Session(run, None, number, Elsewhere()) as session:
            session.attach(Attempted())
            session.checkpoint(3)
        shutil.rmtree(run.checkpoints / "step-00000003")
        run.states.move(State.STOPPED, attempt=number)
    assert asked == [{3: 0}]


def tell(run: Run, attempt: int, *events: dict) -> None:
    with (run.path / "journal" / f"{attempt}-0.jsonl").open("a") as stream:
        stream.writelines(json.dumps({"t": 1, **event}) + "\n" for event in events)


def test_a_copy_of_the_way_that_a_run_went_before_is_none_of_its_checkpoints(run, tmp_path):
    """It went back to step 4 and was changed; what it saved at step 8 then had not been sent yet."""
    place = f"file://{tmp_path}/mirror"
    send(mirrored(run, place), place)
    again = [{"kind": "restore", "step": 4}, {"kind": "checkpoint", "step": 8}]
    tell(run, 2, *again)
    assert counted_checkpoints(run) == {4: 0, 8: 0}  # a crash alone changes nothing
    tell(run, 3, {"kind": "went_back", "to": 4, "contained": []}, *again)
    assert counted_checkpoints(run) == {4: 0, 8: 3}
    ruined(run)
    before = contents(run.checkpoints)
    with pytest.raises(RemoteError, match="what is there is of attempt 1, before the run was changed"):
        bring_back(run, run.states.read().attempt, counted_checkpoints(run))
    with pytest.raises(RemoteError, match="before the run was changed"):
        restore(run, place)
    assert contents(run.checkpoints) == before


def test_what_counts_no_longer_is_not_restored_by_hand(run, tmp_path):
    place = f"file://{tmp_path}/mirror"
    send(run, place)
    tell(run, 2, {"kind": "went_back", "to": 4, "contained": []}, {"kind": "restore", "step": 4})
    shutil.rmtree(run.checkpoints / NEWEST)
    assert restore(run, place).steps == ()
    assert CheckpointStore(run.checkpoints).newest_good()[0].step == 4


def test_a_push_is_no_mirror(run, tmp_path):
    config = yaml.safe_load(run.config_path.read_text())
    config["push"] = {"to": f"file://{tmp_path}/nowhere", "what": ["artifacts"]}
    run.config_path.write_text(yaml.safe_dump(config))
    assert bring_back(run, 1, {8: 0}) is None
