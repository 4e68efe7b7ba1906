"""``clew diff``: config, code, data and results side by side."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from clew.cli.main import main
from clew.jobs import LoadedJob, create_job_run
from clew.runs import Artifact, JobResult, Run, Workspace
from clew.sources import read

JOB = '''
"""A job without a model."""
import clew
from clew.config import InputPath

@clew.config
class CountConfig(clew.JobConfig):
    """Counting."""
    to: int = 10
    """How far."""
    pace: float = 1.0
    """How fast."""
    file: InputPath = ""
    """What to read."""
    more: list[InputPath] | None = None
    """What else to read."""

@clew.job
def count(session: clew.Session[CountConfig]) -> clew.Outcome:
    """Count."""
    return clew.Outcome()
'''
PIPE = """\
pipeline: numbers
stages:
  first: {job: jobs.py:count, to: 3, file: data.txt}
  second: {job: jobs.py:count, source: 1, after: [first]}
"""


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    Path("jobs.py").write_text(JOB)
    Path("data.txt").write_text("one")
    Path("a.yaml").write_text("job: jobs.py:count\nto: 20\nfile: data.txt\n")
    Path("b.yaml").write_text("job: jobs.py:count\nto: 20\nfile: data.txt\npace: 2\n")
    return Workspace(tmp_path)


def make_run(space: Workspace, name: str, *overrides: str, metrics: dict[str, float] | None = None) -> Run:
    work = read("a.yaml", overrides, workspace=space, name=name)
    assert isinstance(work, LoadedJob)
    run = create_job_run(space, work)
    if metrics:
        artifacts = {"n": Artifact("n", "ab" * 32, 3)}
        JobResult(name, work.reference, "completed", 2.5, 1, metrics, artifacts=artifacts).save(run.path)
    return run


def diff(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["diff", *words]) == 0
    return capsys.readouterr().out


def test_two_equal_configs(space, capsys):
    assert diff(capsys, "a.yaml", "a.yaml") == (
        "a  config a.yaml\nb  config a.yaml\n\nconfig: the same\ncode: the same\ndata: the same\n"
    )


def test_values_that_differ_are_shown_with_their_places(space, capsys):
    lines = diff(capsys, "a.yaml", "b.yaml").splitlines()
    assert re.fullmatch(r"config: 1 of \d+ values differ", lines[3])
    assert lines[5] == "pace  1.0  (default of CountConfig)  2.0  (b.yaml:4)"


def test_the_same_value_from_another_place_is_no_difference(space, capsys):
    Path("c.yaml").write_text("extends: a.yaml\nto: 20\n")
    assert "config: the same" in diff(capsys, "a.yaml", "c.yaml")


def test_two_runs_with_their_data_and_results(space, capsys):
    make_run(space, "base", metrics={"loss": 0.5, "exact": 0.25})
    Path("data.txt").write_text("two")
    make_run(space, "other", "to=30", metrics={"loss": 0.4})
    text = diff(capsys, "base", "other")
    assert re.match(r"a  run base\nb  run other\n\nconfig: 1 of \d+ values differ\n", text)
    assert "20  (a.yaml:2)" in text and "30  (command line)" in text
    assert "code: the same\ndata: different\n" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.partition("results\n")[2].splitlines()[1:]}
    assert rows["metrics.loss"] == ["0.5", "0.4", "-0.1"]
    assert rows["metrics.exact"] == ["0.25", "-"]
    assert rows["artifacts.n"] == ["abababababab", "abababababab"]
    assert rows["seconds"] == ["2.5", "2.5", "+0"]


def test_a_run_remembers_the_data_that_it_was_made_with(space, capsys):
    make_run(space, "base")
    Path("data.txt").write_text("two")
    found = json.loads(diff(capsys, "base", "a.yaml", "--json"))
    assert found["config"] == {}
    (digests,) = found["data"].values()
    assert digests["a"] != digests["b"] and len(digests["a"]) == len(digests["b"]) == 64


def test_changed_code_is_seen(space, capsys):
    make_run(space, "base")
    Path("jobs.py").write_text(JOB + "\n# a new thought\n")
    text = diff(capsys, "base", "a.yaml")
    assert "code: different\n" in text
    assert "config: the same" in text


def test_files_in_lists_are_compared_one_by_one(space, capsys):
    Path("c.yaml").write_text("extends: a.yaml\nmore: [data.txt, jobs.py]\n")
    found = json.loads(diff(capsys, "a.yaml", "c.yaml", "--json"))
    assert list(found["data"]) == ["more.0", "more.1"]
    assert found["config"]["more"]["a"] == {"value": None, "where": "default of CountConfig"}


def test_a_missing_file_is_named(space, capsys):
    Path("c.yaml").write_text("job: jobs.py:count\nto: 20\nfile: nowhere.txt\n")
    assert f"nothing at {space.root}/nowhere.txt" in diff(capsys, "a.yaml", "c.yaml")


def test_numbers_that_are_not_finite_are_words_in_json(space, capsys):
    make_run(space, "base", metrics={"loss": float("nan")})
    assert json.loads(diff(capsys, "base", "base", "--json"))["results"]["metrics.loss"] == {"a": "nan", "b": "nan"}


def test_pipelines_are_compared_stage_by_stage(space, capsys):
    Path("p.yaml").write_text(PIPE.replace("source: 1", "pace: '${first.metrics.loss}'"))
    Path("q.yaml").write_text(PIPE.replace("source: 1", "pace: '${first.metrics.other}'").replace("to: 3", "to: 4"))
    found = json.loads(diff(capsys, "p.yaml", "q.yaml", "--json"))
    assert found["config"] == {
        "stages.first.to": {"a": {"value": 3, "where": "p.yaml:3"}, "b": {"value": 4, "where": "q.yaml:3"}},
        "stages.second.pace": {
            "a": {"value": "${first.metrics.loss}", "where": "p.yaml:4"},
            "b": {"value": "${first.metrics.other}", "where": "q.yaml:4"},
        },
    }
    assert found["code"]["same"] is True
    Path("q.yaml").write_text(Path("p.yaml").read_text().replace(", after: [first]", ""))
    assert list(json.loads(diff(capsys, "p.yaml", "q.yaml", "--json"))["config"]) == ["stages.second.after"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["base", "p.yaml"], "clew: diff: p.yaml is a pipeline and the other is not\n"),
        (["bse", "a.yaml"], "there is no run or pipeline 'bse'\n  did you mean 'base'?\n"),
        (["a.yaml", "bad.yaml"], "clew: bad.yaml:2: unknown key 'too'\n  did you mean 'to'?\n"),
    ],
)
def test_what_cannot_be_compared_is_told(space, capsys, words, error):
    make_run(space, "base")
    Path("p.yaml").write_text("stages:\n  one: {job: jobs.py:count}\n")
    Path("bad.yaml").write_text("job: jobs.py:count\ntoo: 1\n")
    assert main(["diff", *words]) == 2
    assert error in capsys.readouterr().err
