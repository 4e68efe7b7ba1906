"""What the adapting jobs can know to be wrong before a run is made."""

import json

import pytest

from clew.errors import ClewError, UserError, did_you_mean
from clew.jobs import create_job_run, load_job
from clew.runs import Workspace


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return str(folder)


def create(tmp_path, job, model, task):
    return create_job_run(Workspace(tmp_path), load_job({"job": job, "name": "r", "model": model, "task": task}))


@pytest.mark.parametrize("job", ["sft", "grpo", "eval"])
def test_a_bad_row_is_named_before_a_run_exists(tmp_path, job, model):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n{broken\n")
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not valid JSON"):
        create(tmp_path, job, model, {"type": "dataset", "train": str(rows), "test": str(rows)})
    assert Workspace(tmp_path).list_runs() == []


@pytest.mark.parametrize("job", ["sft", "grpo", "eval"])
def test_a_model_that_is_not_there_is_named_before_a_run_exists(tmp_path, job):
    with pytest.raises(UserError, match="there is no such model folder"):
        create(tmp_path, job, str(tmp_path / "nothing"), {"type": "arithmetic"})
    assert Workspace(tmp_path).list_runs() == []


def test_batches_that_do_not_divide_name_both_fields(tmp_path):
    config = {"job": "sft", "model": "m", "task": {"type": "arithmetic"}}
    with pytest.raises(UserError, match=r"batch_size \(16\) must be a multiple of micro_batch_size \(5\)"):
        load_job({**config, "training": {"micro_batch_size": 5}})


def test_an_error_reads_the_same_on_one_line():
    error = ClewError("it is wrong", where="file:3", hint="mend it")
    assert str(error) == "file:3: it is wrong\n  mend it"
    assert error.one_line() == "file:3: it is wrong (mend it)"
    assert ClewError("it is wrong").one_line() == "it is wrong"


def test_a_suggestion_is_near_or_a_list():
    assert did_you_mean("evl", ["eval", "sft"]) == "did you mean 'eval'?"
    assert did_you_mean("x", ["eval", "sft"]) == "known: eval, sft"
    assert did_you_mean("x", []) == ""
