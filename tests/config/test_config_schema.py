"""The JSON schema for editors says what the loader says, as far as one file can be judged alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sample_configs import REGISTRIES, Base, Job, Validation
from shipped import EACH

from clew.cli.schemas import job_schema, pipeline_schema, schema_of
from clew.config import config, dump, json_schema, load, template
from clew.errors import ConfigError, UserError
from clew.jobs import resolve_job
from clew.jobs.loading import RESERVED, registries

HEAD: dict[str, dict[str, Any]] = {"job": {"const": "x"}, "extends": {}, "preset": {}}
SCHEMA = json_schema(Job, head=HEAD, registries=REGISTRIES)


def problems(value: Any, schema: dict[str, Any] = SCHEMA) -> list[str]:
    """What a validator says; the test is left out where there is none."""
    jsonschema = pytest.importorskip("jsonschema")
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]


def test_the_schemas_are_schemas():
    checker = pytest.importorskip("jsonschema").Draft202012Validator
    for schema in (SCHEMA, pipeline_schema(), schema_of("sft"), schema_of("pretrain")):
        checker.check_schema(schema)


def test_every_key_has_its_meaning_default_and_constraint():
    lr = SCHEMA["$defs"]["Training"]["properties"]["lr"]
    assert lr == {
        "description": "Peak learning rate.",
        "default": 3e-4,
        "type": ["number", "null"],
        "exclusiveMinimum": 0,
    }
    assert SCHEMA["properties"]["seed"]["minimum"] == 0
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["description"] == "A job with one of everything."
    assert SCHEMA["additionalProperties"] is False


def test_plugins_bring_their_fields():
    assert SCHEMA["properties"]["task"]["properties"]["type"]["anyOf"][0] == {"enum": ["sums", "words"]}
    assert SCHEMA["$defs"]["Sums"]["properties"]["digits"]["description"] == "How long the numbers are."
    assert set(SCHEMA["$defs"]["Words"]["properties"]) == {"type", "alphabet"}


def test_required_keys_are_asked_for_where_nothing_lies_below():
    assert SCHEMA["else"]["required"] == ["training"]
    assert SCHEMA["else"]["properties"]["training"] == {"required": ["steps"]}
    assert "else" not in json_schema(Validation)


STEPS = {"training": {"steps": 5}}
GOOD: list[dict[str, Any]] = [
    STEPS,
    {**STEPS, "seed": None, "validation": {}, "mix": [{"path": "x", "weight": 2}], "parts": {"a": {"every": 3}}},
    {**STEPS, "task": {"type": "words", "alphabet": "x"}},
    {**STEPS, "task": {"digits": 3}},
    {**STEPS, "task": None},
    {"training": {"steps": 5, "lr": 1, "optimizer": {"type": "muon", "momentum": 0.5}, "clip": None}},
    {"training": {"steps": 5, "optimizer": {"betas": {"1": 0.5}}}},
    {"preset": "small"},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "'training' is required"),
    ({"training": {}}, "'training.steps' is required"),
    ({**STEPS, "sed": 1}, "unknown key 'sed'"),
    ({**STEPS, "seed": -1}, "'seed' must be int >= 0, not -1"),
    ({**STEPS, "name": "A B"}, "'name' must be str made of small letters, digits and '-', not 'A B'"),
    ({"training": {"steps": 5, "lr": "much"}}, "'training.lr' must be float > 0, not 'much'"),
    ({"training": {"steps": 5, "schedule": "sine"}}, "'training.schedule' must be wsd | cosine | constant, not 'sine'"),
    ({"training": {"steps": 5, "optimizer": {"type": "muon", "betas": [1, 1]}}}, "'training.optimizer.betas'"),
    ({"training": {"steps": 5, "optimizer": {"type": "sgd"}}}, "unknown type 'sgd'"),
    ({**STEPS, "task": {"type": "words", "digits": 3}}, "unknown key 'task.digits'"),
    ({**STEPS, "task": {"type": "nothing"}}, "unknown task 'nothing'"),
    ({**STEPS, "mix": [{"weight": 1}]}, "'mix.0.path' is required"),
    ({**STEPS, "mix": {"path": "x"}}, "'mix' must be a list of sections"),
    ({**STEPS, "validation": 3}, "'validation' must be a section"),
]


@pytest.mark.parametrize("value", GOOD)
def test_what_loads_is_valid(value):
    load(value, root=Job, registries=REGISTRIES)
    assert problems(value) == []


@pytest.mark.parametrize(("value", "error"), BAD)
def test_what_does_not_load_is_not_valid(value, error):
    with pytest.raises(ConfigError) as caught:
        load(value, root=Job, registries=REGISTRIES)
    if error != "'training' is required":  # said key by key by the loader
        assert error in str(caught.value)
    assert problems(value)


@config
class Nested:
    """Holds itself."""

    inner: Nested | None = None
    """One more."""
    size: int
    """How large."""


def test_a_class_that_holds_itself_is_described_once():
    schema = json_schema(Nested)
    assert schema["$defs"]["Nested"]["properties"]["inner"]["anyOf"][0] == {"$ref": "#/$defs/Nested"}
    assert problems({"size": 1, "inner": {"size": 2, "inner": None}}, schema) == []
    assert problems({"size": 1, "inner": {"size": "x"}}, schema)


def make_other_base() -> type:
    @config
    class Base:
        """Another class of this name."""

        other: int = 0

    return Base


Other = make_other_base()


def test_two_classes_of_one_name_have_a_definition_each():
    @config
    class Both:
        one: Base = Base()
        two: Other = Other()  # type: ignore[valid-type]

    schema = json_schema(Both)
    assert set(schema["$defs"]) == {"Base", "Base-2"}


@pytest.mark.parametrize(("job", "task"), EACH)
def test_new_configs_of_every_shipped_job_are_valid(job, task, tmp_path):
    cls = resolve_job(job).config
    text = template(cls, head={"job": job, **({"task": {"type": task}} if task else {})}, registries=registries())
    file = tmp_path / "a.yaml"
    file.write_text(text)
    loaded = load(file, root=cls, registries=registries(), reserved=RESERVED)
    schema = json.loads(json.dumps(job_schema(job, resolve_job(job), {})))
    assert problems({"job": job, **loaded.plain}, schema) == []
    assert problems({"job": job, **dump(loaded.value, registries())}, schema) == []
    assert problems({**loaded.plain, "job": "other"}, schema)
    if task:
        assert problems({"job": job, **loaded.plain, "task": {"type": task, "colour": 1}}, schema)


def test_the_schema_of_a_pipeline_knows_every_job():
    pipeline = {
        "pipeline": "dates",
        "stages": {
            "one": {"job": "sft", "model": "m", "task": {"type": "arithmetic"}, "training": {"lr": 0.1}},
            "two": {
                "job": "eval",
                "model": "${one.artifacts.adapter}",
                "limit": "${one.metrics.count}",
                "task": {"type": "arithmetic"},
                "after": ["one"],
            },
        },
    }
    schema = json.loads(json.dumps(pipeline_schema()))
    assert problems(pipeline, schema) == []
    stages = pipeline["stages"]
    assert isinstance(stages, dict)
    assert problems({"stages": {"one": {**stages["one"], "training": {"lr": "much"}}}}, schema)
    assert problems({"stages": {"one": {**stages["one"], "training": {"lrr": 1}}}}, schema)
    assert problems({"stages": {"one": {"job": "sfd"}}}, schema)
    assert problems({"stages": {"one": {**stages["one"], "sed": 1}}}, schema)
    assert problems({"stages": {}}, schema)


DATES = '''
from clew.config import config
from clew.tasks import Task

@config
class Dates(Task):
    """Dates."""
    years: int = 3
    """How many years."""
'''


def test_the_schema_of_a_file_describes_the_classes_that_it_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dates.py").write_text(DATES)
    (tmp_path / "a.yaml").write_text("job: sft\nmodel: m\ntask: {type: dates.py:Dates}\n")
    schema = schema_of("a.yaml")
    assert schema["$defs"]["Dates"]["properties"]["years"]["description"] == "How many years."
    value = {"job": "sft", "model": "m", "task": {"type": "dates.py:Dates"}}
    assert problems(value, schema) == []
    assert problems({**value, "task": {"type": "dates.py:Dates", "yers": 1}}, schema)
    (tmp_path / "p.yaml").write_text("stages: {one: {job: sft, model: m, task: {type: dates.py:Dates}}}\n")
    assert "Dates" in schema_of("p.yaml")["$defs"]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("sfd", "'sfd' is neither a job nor a config file\n  did you mean 'sft'?"),
        ("none.yaml", "none.yaml: cannot read the file: No such file or directory"),
        (
            "a.yaml",
            "a.yaml: the config does not say which job it is for\n"
            "  add a line such as 'job: sft' (known: eval, grpo, pretrain, sft)",
        ),
    ],
)
def test_what_has_no_schema_is_told(what, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("seed: 1\n")
    with pytest.raises((ConfigError, UserError)) as caught:
        schema_of(what)
    assert str(caught.value).startswith(error.partition(" (known")[0])
