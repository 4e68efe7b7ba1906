"""Checkpoints that another place has too: sent in the background, fetched back by content.

The place is a real S3 server on loopback, or a folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from clew.checkpoints import CheckpointStore
from clew.cli.main import main
from clew.errors import UserError
from clew.followers import followers_of
from clew.followers.push import PushFollowing
from clew.jobs import load_job
from clew.remote import PushConfig
from clew.remote.location import open_location
from clew.remote.mirror import mirror_of, restore
from clew.runs import Run, State, Workspace
from clew.runs.files import file_digest, tree_bytes
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
    assert contents(run.checkpoints / "step-00000012") == expected
    assert tree_bytes(run.checkpoints) > 0
