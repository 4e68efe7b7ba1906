import json
import math

import pytest

from clew.errors import UserError
from clew.runs import Artifact, Failure, JobResult, RunInfo, State, Workspace, create_run
from clew.runs.files import tree_digest, write_atomically


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def create(workspace, name="first-try"):
    return create_run(workspace.runs, RunInfo(id=name, job="sft"), "job: sft\n", {"lr": {"value": 1}})


def test_a_new_run_has_every_part_of_the_protocol(workspace):
    run = create(workspace)
    names = {path.name for path in run.path.iterdir() if not path.name.startswith(".")}
    assert names == {
        "run.json", "config.yaml", "origins.json", "state.json",
        "journal", "inbox", "checkpoints", "artifacts", "logs",
    }  # fmt: skip
    assert run.state is State.CREATED
    assert run.info.job == "sft"


def test_a_name_that_exists_is_refused_and_the_old_run_is_untouched(workspace):
    run = create(workspace)
    before = tree_digest(run.path)
    with pytest.raises(UserError, match="a run named 'first-try' exists already") as caught:
        create(workspace)
    assert "clew resume first-try" in caught.value.hint
    assert tree_digest(run.path) == before


def test_a_creation_that_was_cut_off_is_no_run_and_can_be_repeated(workspace):
    (workspace.runs / ".new-first-try-99" / "journal").mkdir(parents=True)
    (workspace.runs / ".new-first-try-99" / "run.json").write_text("{}")
    assert workspace.list_runs() == []
    assert create(workspace).state is State.CREATED


def test_a_workspace_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the workspace cannot be written") as caught:
        create(Workspace(tmp_path / "file"))
    assert "--workspace" in caught.value.hint


def test_an_unknown_run_brings_the_nearest_name(workspace):
    create(workspace)
    with pytest.raises(UserError, match="there is no run 'frist-try'") as caught:
        workspace.find_run("frist-try")
    assert caught.value.hint == "did you mean 'first-try'?"


def test_a_damaged_run_says_what_is_damaged(workspace):
    run = create(workspace)
    (run.path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"first-try: the run directory is damaged: run\.json"):
        _ = run.info
    (run.path / "state.json").unlink()
    assert run.state is State.UNKNOWN


def test_a_result_reloads_to_itself(workspace):
    run = create(workspace)
    result = JobResult(
        run="first-try", job="sft", status="failed", seconds=1.5, attempts=2,
        metrics={"loss": 0.5}, artifacts={"adapter": Artifact("artifacts/adapter", "ab", 3)},
        failure=Failure("ValueError", "because", ["last line"]),
    )  # fmt: skip
    assert run.result is None
    result.save(run.path)
    assert run.result == result


def test_a_result_holds_metrics_that_are_not_finite(workspace):
    run = create(workspace)
    JobResult("first-try", "sft", "completed", 1.0, 1, metrics={"loss": math.nan, "peak": math.inf}).save(run.path)
    assert math.isnan(run.result.metrics["loss"])
    assert run.result.metrics["peak"] == math.inf


def test_an_atomic_write_that_fails_leaves_the_old_content(tmp_path):
    path = tmp_path / "value.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["value.json"]


def test_runs_are_listed_from_the_oldest(workspace):
    for name in ("b", "a", "c"):
        create(workspace, name)
    assert sorted(run.id for run in workspace.list_runs()) == ["a", "b", "c"]
    assert json.loads((workspace.runs / "a" / "run.json").read_text())["id"] == "a"
