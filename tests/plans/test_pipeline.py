import pytest

from clew.errors import ConfigError, UserError
from clew.plans import load_pipeline, open_plan
from clew.runs import Workspace
from clew.sources import check
from support import TINY

JOB = f"    job: {TINY}\n"


def load(tmp_path, text):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return load_pipeline(path)


def test_references_and_after_are_the_edges(tmp_path):
    pipeline = load(
        tmp_path,
        f"stages:\n  c:\n{JOB}    start: ${{a.metrics.value}}\n    after: b\n  b:\n{JOB}  a:\n{JOB}",
    )
    assert set(pipeline.stages["c"].needs) == {"a", "b"}
    assert list(pipeline.stages)[-1] == "c"


ERRORS = {
    "an unknown stage": (
        f"stages:\n  a:\n{JOB}  b:\n{JOB}    source: ${{aa.artifacts.x}}\n",
        r"p\.yaml:6: there is no stage 'aa'\n  did you mean 'a'\?",
    ),
    "a reference that is none": (
        f"stages:\n  a:\n{JOB}  b:\n{JOB}    source: ${{a.output}}\n",
        r"p\.yaml:6: \$\{a\.output\} is no reference\n  write \$\{STAGE\.artifacts\.NAME\}",
    ),
    "a circle": (
        f"stages:\n  a:\n{JOB}    after: b\n  b:\n{JOB}    after: a\n",
        r"the stages wait for each other: [ab] -> [ab] -> [ab]",
    ),
    "no stages": ("pipeline: x\nstages: {}\n", "a pipeline needs at least one stage"),
    "an unknown key": (
        f"max_paralel: 2\nstages:\n  a:\n{JOB}",
        r"p\.yaml:1: unknown key 'max_paralel'\n  did you mean 'max_parallel'\?",
    ),
    "a bad number": (
        f"max_parallel: 0\nstages:\n  a:\n{JOB}",
        r"p\.yaml:1: 'max_parallel' must be int >= 1, not 0",
    ),
    "a name that leads out of the workspace": (
        f"pipeline: ../up\nstages:\n  a:\n{JOB}",
        r"p\.yaml:1: '\.\./up' cannot be a name",
    ),
    "a stage that is no config": ("stages:\n  a: 3\n", r"p\.yaml:2: the stage 'a' must be a job's config"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_graph_that_makes_no_sense_is_refused(tmp_path, case):
    text, message = ERRORS[case]
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_mistakes_in_a_late_stage_show_before_anything_runs(tmp_path):
    pipeline = load(tmp_path, f"stages:\n  a:\n{JOB}  b:\n{JOB}    after: a\n    untill: 3\n")
    with pytest.raises(ConfigError, match=r"p\.yaml:7: unknown key 'untill'\n  did you mean 'until'\?"):
        check(pipeline, workspace=Workspace(tmp_path))


def test_a_reference_to_a_number_passes_the_check(tmp_path):
    pipeline = load(tmp_path, f"stages:\n  a:\n{JOB}  b:\n{JOB}    start: ${{a.metrics.value}}\n")
    assert check(pipeline, workspace=Workspace(tmp_path))["b"].config.start == 0.5


def test_overrides_reach_into_stages_and_beat_the_environment(tmp_path):
    (tmp_path / "p.yaml").write_text(f"stages:\n  a:\n{JOB}    until: 3\n    pause: 0.1\n")
    (tmp_path / "clew.yaml").write_text(f"environment:\n  {TINY}: {{until: 4, pause: 0.2}}\n")
    pipeline = load_pipeline(tmp_path / "p.yaml", ["stages.a.until=5"], environment=tmp_path / "clew.yaml")
    config = check(pipeline, workspace=Workspace(tmp_path))["a"].config
    assert (config.until, config.pause) == (5, 0.2)


def test_a_stage_extends_files_beside_its_own_and_their_references_are_edges(tmp_path):
    (tmp_path / "shared.yaml").write_text("until: 3\nstart: ${a.metrics.value}\n")
    pipeline = load(tmp_path, f"stages:\n  b:\n    extends: shared.yaml\n{JOB}    pause: 0.5\n  a:\n{JOB}")
    assert pipeline.stages["b"].needs == ("a",)
    config = check(pipeline, workspace=Workspace(tmp_path))["b"].config
    assert (config.until, config.pause) == (3, 0.5)


@pytest.mark.parametrize("content", [None, "{torn", "[]"])
def test_a_plan_that_was_cut_off_before_it_was_stored_says_what_to_do(tmp_path, content):
    plan = open_plan(Workspace(tmp_path), "p")
    if content is not None:
        (plan.path / "tree.json").write_text(content)
    with pytest.raises(UserError, match="the plan does not say what to run") as caught:
        _ = plan.pipeline
    assert "clew run FILE" in caught.value.hint
