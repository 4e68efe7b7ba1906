"""A pipeline that is built in Python says whatever a file can say, and means the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_support import FLAKY

import clew
from clew.builder import PipelineWords, StageWords
from clew.config import plain, to_yaml
from clew.errors import ConfigError
from clew.notify import NotifyConfig
from clew.plans import load_pipeline
from clew.plans.head import KEYS, STAGE_KEYS
from clew.plans.policy import RetryConfig
from clew.runs import Workspace
from clew.sources import check, read, resolved

NAMES = ("a", "b", "c.d", "e-1")
policies = st.fixed_dictionaries(
    {},
    optional={
        "on_failure": st.sampled_from(["abort", "continue", "retry", "wait", None]),
        "retry": st.none()
        | st.fixed_dictionaries({}, optional={"times": st.integers(1, 9), "factor": st.floats(1, 9)}),
    },
)
heads = st.fixed_dictionaries(
    {},
    optional={
        "max_parallel": st.none() | st.integers(1, 9),
        "notify": st.none() | st.fixed_dictionaries({"file": st.sampled_from(["", "told.jsonl"])}),
    },
)


@st.composite
def stages(draw):
    """Stages that take from, wait for and ask about those before them."""
    made = {}
    for index in range(draw(st.integers(1, len(NAMES)))):
        before = st.sampled_from(NAMES[:index] or ("",))
        one = {"job": FLAKY, "score": draw(st.floats(0, 1)), **draw(policies)}
        if index and draw(st.booleans()):
            one["source"] = f"${{{draw(before)}.artifacts.out}}"
        if index and draw(st.booleans()):
            one["after"] = draw(before | st.lists(before, max_size=2))
        if index and draw(st.booleans()):
            one["when"] = draw(st.booleans() | before.map(lambda name: f"${{{name}.metrics.score}} < 0.5"))
        made[NAMES[index]] = one
    return made


def meaning(pipeline):
    stages = {
        name: (stage.needs, stage.inputs, stage.policy, stage.when and stage.when.text, plain(stage.tree))
        for name, stage in pipeline.stages.items()
    }
    return pipeline.name, pipeline.max_parallel, pipeline.notify, stages


@given(policies, heads, stages())
def test_a_built_pipeline_means_what_the_file_means(policy, head, stages):
    built = clew.Pipeline("p", **policy, **head)
    for name, said in stages.items():
        words = {key: value for key, value in said.items() if key in STAGE_KEYS}
        built.stage(name, {key: value for key, value in said.items() if key not in words}, **words)
    assert built.as_mapping() == {"pipeline": "p", **policy, **head, "stages": stages}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "p.yaml").write_text(to_yaml(built.as_mapping()))
        filed = load_pipeline(Path(folder) / "p.yaml")
        loaded = read(built, workspace=Workspace(folder))
        assert meaning(loaded) == meaning(filed)
        assert resolved(loaded) == resolved(filed)
        assert list(check(loaded, workspace=Workspace(folder))) == list(loaded.stages)


def test_the_builder_knows_every_key_of_a_file():
    assert {"pipeline", "stages", *PipelineWords.__annotations__} == set(KEYS)
    assert set(StageWords.__annotations__) == set(STAGE_KEYS)


def test_config_objects_stand_for_their_sections():
    built = clew.Pipeline("p", retry=RetryConfig(times=2), notify=NotifyConfig(file="x"))
    built.stage("a", {"job": FLAKY}, retry=RetryConfig(times=7))
    loaded = load_pipeline(built.as_mapping())
    assert (loaded.notify.file, loaded.stages["a"].policy.retry.times) == ("x", 7)


def test_a_stage_may_extend_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part.yaml").write_text(f"job: {FLAKY}\nscore: 0.25\n")
    built = clew.Pipeline("p").stage("a", {"extends": "part.yaml"})
    assert check(read(built, workspace=Workspace(tmp_path)), workspace=Workspace(tmp_path))["a"].config.score == 0.25


@pytest.mark.parametrize("said", [{"on_faliure": "wait"}, {"max_parallel": 0}, {"retry": {"tims": 3}}])
def test_a_misspelt_word_is_an_error(tmp_path, said):
    built = clew.Pipeline("p", **said).stage("a", {"job": FLAKY})
    with pytest.raises(ConfigError, match=f"the given config: .*{next(iter(said))}"):
        read(built, workspace=Workspace(tmp_path))
