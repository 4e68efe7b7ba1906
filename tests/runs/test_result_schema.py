import json
import math
import runpy
from dataclasses import asdict
from pathlib import Path

import jsonschema
import pytest

from clew.runs import Artifact, Failure, JobResult

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "src/clew/runs/result.schema.json"


def validate(value):
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(value)


def test_the_published_schema_is_that_of_the_class():
    script = runpy.run_path(str(ROOT / "scripts/write_result_schema.py"))
    assert SCHEMA.read_text() == script["schema"](), "run python scripts/write_result_schema.py"


def test_a_full_result_validates(tmp_path):
    failure = Failure("killed", "the worker was killed by SIGKILL", ["last"], signal="SIGKILL")
    JobResult(
        run="r", job="sft", status="failed", seconds=1.0, attempts=1, metrics={"a": 1.0, "b": math.nan},
        artifacts={"model": Artifact("artifacts/model", "ab", 3)}, notes={"n": 1}, failure=failure,
    ).save(tmp_path)  # fmt: skip
    validate(json.loads((tmp_path / "result.json").read_text()))


def test_a_result_without_a_status_does_not_validate():
    value = asdict(JobResult(run="r", job="sft", status="completed", seconds=1.0, attempts=1))
    del value["status"]
    with pytest.raises(jsonschema.ValidationError, match="'status' is a required property"):
        validate(value)
