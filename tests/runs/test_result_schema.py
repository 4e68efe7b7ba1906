import json
import math
import runpy
from dataclasses import asdict, replace
from pathlib import Path

import jsonschema
import pytest

from clew.runs import Artifact, Energy, Failure, JobResult, Remote

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "src/clew/runs/result.schema.json"


def validate(value):
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(value)


def test_the_published_schema_is_that_of_the_class():
    script = runpy.run_path(str(ROOT / "scripts/write_result_schema.py"))
    assert SCHEMA.read_text() == script["schema"](), "run python scripts/write_result_schema.py"


def test_a_full_result_validates(tmp_path):
    failure = Failure("killed", "the worker was killed by SIGKILL", ["last"], signal="SIGKILL")
    result = JobResult(
        run="r", job="sft", status="failed", seconds=1.0, attempts=1, metrics={"a": 1.0, "b": math.nan},
        artifacts={"model": Artifact("artifacts/model", "ab", 3)}, notes={"n": 1}, failure=failure,
        intervals={"a": {"low": 0.5, "high": 1.0, "method": "wilson"}}, instance="i-1", preempted=True,
        energy=Energy(12.5, "rapl"), remote=Remote("hf://me/r", "me/r", "ab12"), trackers={"wandb": "offline"},
    )  # fmt: skip
    result.save(tmp_path)
    validate(json.loads((tmp_path / "result.json").read_text()))
    assert replace(JobResult.load(tmp_path), metrics={}) == replace(result, metrics={})


def test_a_result_without_a_status_does_not_validate():
    value = asdict(JobResult(run="r", job="sft", status="completed", seconds=1.0, attempts=1))
    del value["status"]
    with pytest.raises(jsonschema.ValidationError, match="'status' is a required property"):
        validate(value)
