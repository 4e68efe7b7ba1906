"""The JSON schema of a pipeline accepts what the loader accepts; both read the same classes."""

from __future__ import annotations

import json

import jsonschema
import pytest
from plan_support import FLAKY, stage

from clew.cli.schemas import job_schema, pipeline_schema, schema_of
from clew.config import fields_of, load_tree
from clew.errors import ConfigError
from clew.jobs import resolve_job
from clew.plans import load_pipeline
from clew.plans.head import KEYS, SWEEP_KEYS, PipelineHead, StageHead

STAGES = {"a": {"job": "sft", "model": "m", "task": {"type": "arithmetic"}}}
HEADS = [
    {"pipeline": "x", "max_parallel": 3},
    {"max_parallel": None, "on_failure": None, "retry": None, "notify": None},
    {"on_failure": "wait", "retry": {"times": 1, "factor": 1.5}},
    {"notify": {"file": "x.jsonl", "events": ["failure"], "webhook": {"url_env": "HOOK"}, "linger_seconds": 0}},
]
BAD_HEADS = [
    {"pipeline": "../up"},
    {"max_parallel": 0},
    {"max_paralel": 2},
    {"on_failure": "contniue"},
    {"retry": {"times": 0}},
    {"retry": {"tims": 1}},
    {"notify": "yes"},
    {"notify": {"events": ["failures"]}},
    {"notify": {"webhook": {"secret": "abc"}}},
]
TAILS = [
    {"after": "b"},
    {"after": ["b"], "when": "${b.metrics.x} < 1"},
    {"when": True, "on_failure": "continue", "retry": {"wait_seconds": 0}},
    {"after": None, "when": None, "retry": None},
]
BAD_TAILS = [
    {"after": 3},
    {"when": 3},
    {"on_failure": "contniue"},
    {"retry": {"times": "${b.metrics.x}"}},
    {"retry": {"tims": 1}},
    {"notify": {"file": "x"}},
    {"max_parallel": 2},
]


def problems(value, schema=None):
    schema = json.loads(json.dumps(schema or pipeline_schema()))
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]


def test_every_key_that_is_accepted_is_described_with_its_meaning():
    schema = pipeline_schema()
    assert set(schema["properties"]) == set(KEYS)
    for cls in (PipelineHead, StageHead):
        where = schema if cls is PipelineHead else schema["$defs"]["stage sft"]
        for name, field in fields_of(cls).items():
            assert field.doc and where["properties"][name]["description"] == field.doc
    assert schema["properties"]["max_parallel"]["default"] == 1
    assert schema["$defs"]["WebhookConfig"]["properties"]["secret_env"]["description"]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_loads_is_valid(head):
    load_pipeline({"stages": STAGES, **head})
    assert problems({"stages": STAGES, **head}) == []


@pytest.mark.parametrize("head", BAD_HEADS)
def test_a_head_that_does_not_load_is_not_valid(head):
    with pytest.raises(ConfigError):
        load_pipeline({"stages": STAGES, **head})
    assert problems({"stages": STAGES, **head})


def with_tail(tail):
    return {"stages": {"b": STAGES["a"], "c": {**STAGES["a"], **tail}}}


@pytest.mark.parametrize("tail", TAILS)
def test_what_a_stage_says_beside_its_job_is_valid_where_it_loads(tail):
    load_pipeline(with_tail(tail))
    assert problems(with_tail(tail)) == []


@pytest.mark.parametrize("tail", BAD_TAILS)
def test_what_a_stage_says_beside_its_job_is_not_valid_where_it_does_not_load(tail):
    assert problems(with_tail(tail))
    if not {"notify", "max_parallel"} & set(tail):  # these are left to the job's config, which refuses them
        with pytest.raises(ConfigError):
            load_pipeline(with_tail(tail))


def test_a_stage_may_leave_its_job_to_what_it_extends():
    assert problems({"stages": {"a": {"extends": "eval.yaml", "limit": 3, "after": "b"}}}) == []
    assert problems({"stages": {"a": {"limit": 3}}})
    assert problems({"stages": {"a": {"extends": "eval.yaml", "retry": {"tims": 3}}}})


def test_a_sweep_may_say_what_its_pipeline_may_say():
    schema = job_schema("sft", resolve_job("sft"), {})
    assert set(schema["properties"]["sweep"]["properties"]) == {"grid", "list", *SWEEP_KEYS}
    job = {"job": "sft", "model": "m", "task": {"type": "arithmetic"}}
    assert problems({**job, "sweep": {"grid": {"seed": [1]}, "retry": {"times": 2}}}, schema) == []
    assert problems({**job, "sweep": {"grid": {"seed": [1]}, "retry": {"tims": 2}}}, schema)


def test_the_schema_of_a_result_is_the_published_one():
    schema = schema_of("result")
    assert "status" in schema["required"] and schema["title"] == "JobResult"
    assert schema["properties"]["seconds"]["description"] == "Wall time of all attempts."


def test_all_problems_of_a_pipeline_are_told_at_once(tmp_path, monkeypatch):
    from clew.runs import Workspace
    from clew.sources import read

    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(
        "max_paralel: 2\n"
        "on_failure: contniue\n"
        "stages:\n"
        "  a/b: {job: sft, model: m, trainig: {}, task: {type: arithmetic}}\n"
        f"  c: {{job: '{FLAKY}', score: much, source: '${{d.run}}', after: e}}\n"
        "  f: 3\n"
    )
    with pytest.raises(ConfigError) as caught:
        read("p.yaml", workspace=Workspace(tmp_path))
    assert str(caught.value) == (
        "p: 8 problems in the pipeline:\n"
        "  p.yaml:1: unknown key 'max_paralel'; did you mean 'max_parallel'?\n"
        "  p.yaml:2: 'on_failure' must be abort | continue | retry | wait, not 'contniue'; did you mean 'continue'?\n"
        "  p.yaml:4: 'a/b' cannot be a name; "
        "a name is made of letters, digits, '.', '_' and '-', the first a letter or a digit\n"
        "  p.yaml:5: there is no stage 'd'; known: a/b, c, f\n"
        "  p.yaml:5: there is no stage 'e'; known: a/b, c, f\n"
        "  p.yaml:6: the stage 'f' must be a job's config\n"
        "  p.yaml:4: unknown key 'trainig'; did you mean 'training'?\n"
        "  p.yaml:5: 'score' must be float, not 'much'"
    )


def test_what_is_stored_of_a_pipeline_reloads_with_its_whole_head(tmp_path):
    from clew.config import to_yaml
    from clew.sources import resolved

    said = {"pipeline": "p", "on_failure": "wait", "retry": {"times": 2}, "notify": {"file": "x"}}
    stages = {"a": stage(), "b": stage(when="${a.metrics.score} < 1", on_failure="continue", after=["a"])}
    asked = load_pipeline({**said, "stages": stages})
    (tmp_path / "again.yaml").write_text(to_yaml(resolved(asked)))
    again = load_pipeline(tmp_path / "again.yaml")
    assert (again.name, again.notify, again.max_parallel) == (asked.name, asked.notify, asked.max_parallel)
    for name, one in asked.stages.items():
        two = again.stages[name]
        assert (two.policy, two.needs, two.when and two.when.text) == (
            one.policy,
            one.needs,
            one.when and one.when.text,
        )
    assert resolved(again) == resolved(asked)
    assert "job" not in load_tree(tmp_path / "again.yaml").items
