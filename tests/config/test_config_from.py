"""``--from``: the config of another run or file as a lower layer; and what is printed reloads to itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from clew.cli.main import main
from clew.config import dump, explain
from clew.config.source import read_file
from clew.config.tree import plain
from clew.errors import ConfigError, UserError
from clew.jobs import LoadedJob, create_job_run
from clew.runs import Run, Workspace
from clew.sources import read, resolved

JOB = '''
"""A job without a model."""
from typing import ClassVar
import clew

@clew.config
class CountConfig(clew.JobConfig):
    """Counting."""
    presets: ClassVar = {"far": {"to": 1000, "pace": 3.0}}
    to: int = 10
    """How far."""
    pace: float = 1.0
    """How fast."""
    weights: list[float] | None = None
    """Some numbers."""
    source: str = ""
    """Anything."""

@clew.job
def count(session: clew.Session[CountConfig]) -> clew.Outcome:
    """Count."""
    return clew.Outcome()

@clew.job
def other(session: clew.Session[CountConfig]) -> clew.Outcome:
    """Count otherwise."""
    return clew.Outcome()
'''


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    Path("jobs.py").write_text(JOB)
    Path("old.yaml").write_text("job: jobs.py:count\nname: old\nto: 20\npace: 2\nweights: [1, 2]\n")
    Path("new.yaml").write_text("job: jobs.py:count\npace: 4\n")
    Path("pipe.yaml").write_text(
        "pipeline: numbers\nmax_parallel: 2\non_failure: wait\nretry: {times: 2}\nnotify: {file: told.jsonl}\nstages:\n"
        "  first: {job: jobs.py:count, to: 3}\n"
        "  second: {job: jobs.py:count, pace: '${first.metrics.loss}', source: '${first.artifacts.number}'}\n"
        "  third: {job: jobs.py:count, source: 'a ${first.metrics.loss} b', after: [second]}\n"
        "  last: {job: jobs.py:count, when: '${third.metrics.loss} < 1', on_failure: continue, after: third}\n"
    )
    return Workspace(tmp_path)


def make_run(space: Workspace, file: str = "old.yaml", *overrides: str) -> Run:
    work = read(file, overrides, workspace=space)
    assert isinstance(work, LoadedJob)
    return create_job_run(space, work)


def loaded(space: Workspace, *overrides: str, below: str, file: str = "new.yaml") -> LoadedJob:
    work = read(file, overrides, workspace=space, below=below)
    assert isinstance(work, LoadedJob)
    return work


def test_a_runs_config_lies_below_the_file_with_its_origins(space):
    make_run(space, "old.yaml", "weights.1=5", "to=30")
    work = loaded(space, below="old")
    assert (work.config.to, work.config.pace, work.config.weights) == (30, 4.0, [1.0, 5.0])
    assert explain(work.loaded, "to").startswith(
        "to = 30\n  from     old (command line)  30\n  default  CountConfig         10  shadowed\n"
    )
    entry = work.loaded.origins["pace"]
    assert (entry.origin.layer, entry.origin.where) == ("file", "new.yaml:2")
    assert entry.shadowed[0][0] == 2.0
    assert (entry.shadowed[0][1].layer, entry.shadowed[0][1].where) == ("from", "old (old.yaml:4)")
    assert work.loaded.origins["seed"].origin.where == "old (default of JobConfig)" or (
        work.loaded.origins["seed"].origin.where == "old (default of CountConfig)"
    )


def test_a_run_does_not_hand_on_its_name(space):
    make_run(space)
    assert loaded(space, below="old").config.name == ""


def test_a_files_config_lies_below_with_its_lines(space):
    work = loaded(space, below="old.yaml")
    entry = work.loaded.origins["to"]
    assert (entry.value, entry.origin.layer, entry.origin.where) == (20, "from", "old.yaml:3")


def test_a_run_can_be_named_by_its_directory(space):
    run = make_run(space)
    assert loaded(space, below=str(run.path)).config.to == 20


def test_the_file_may_leave_the_job_to_what_lies_below(space):
    make_run(space)
    Path("short.yaml").write_text("pace: 7\n")
    assert loaded(space, below="old", file="short.yaml").config.pace == 7.0
    Path("clew.yaml").write_text(f"environment:\n  {space.root}/jobs.py:count: {{to: 77}}\n")
    assert loaded(space, below="old", file="short.yaml").config.to == 77


def test_a_preset_of_the_file_wins_over_what_lies_below(space):
    make_run(space)
    Path("far.yaml").write_text("job: jobs.py:count\npreset: far\n")
    work = loaded(space, below="old", file="far.yaml")
    assert (work.config.to, work.config.weights) == (1000, [1.0, 2.0])
    assert [origin.layer for _, origin in work.loaded.origins["to"].shadowed] == ["from", "default"]
    assert loaded(space, below="far.yaml").config.to == 1000
    assert loaded(space, "to=null", below="far.yaml").config.to == 10


def test_the_command_line_wins_over_everything(space):
    make_run(space)
    assert loaded(space, "to=1", "pace=9", below="old").config.pace == 9.0


@pytest.mark.parametrize(
    ("below", "error"),
    [
        ("ol", "--from: there is no run and no config file 'ol'\n  did you mean 'old'?"),
        ("pipe.yaml", "--from: pipe.yaml is a pipeline\n  name the run of one of its stages"),
    ],
)
def test_what_cannot_lie_below_is_told(space, below, error):
    make_run(space)
    with pytest.raises(UserError) as caught:
        loaded(space, below=below)
    assert str(caught.value) == error


def test_the_config_of_another_job_is_told(space):
    Path("other.yaml").write_text("job: jobs.py:other\nto: 3\n")
    with pytest.raises(UserError) as caught:
        loaded(space, below="other.yaml")
    assert str(caught.value).startswith("--from other.yaml:1: it is a config of the job jobs.py:other, and this one is")


def test_a_damaged_run_is_told(space):
    (make_run(space).path / "origins.json").write_text("{")
    with pytest.raises(UserError, match=r"^old: the run directory is damaged: origins\.json cannot be read"):
        loaded(space, below="old")


def test_a_key_that_the_other_config_misspells_is_told_with_its_place(space):
    Path("bad.yaml").write_text("job: jobs.py:count\ntoo: 3\n")
    with pytest.raises(ConfigError, match=r"^bad\.yaml:2: unknown key 'too'\n  did you mean 'to'\?$"):
        loaded(space, below="bad.yaml")


@pytest.mark.parametrize("verb", [["run", "--dry-run"], ["config", "show"]])
def test_the_command_line_knows_from(space, verb, capsys):
    make_run(space)
    assert main([*verb, "new.yaml", "--from", "old", "weights=null"]) == 0
    text = capsys.readouterr().out
    Path("again.yaml").write_text(text)
    assert "to: 20\n" in text and "pace: 4.0\n" in text
    Path("sweep.yaml").write_text("job: jobs.py:count\nsweep: {grid: {pace: [1, 2]}}\n")
    assert main([*verb, "sweep.yaml", "--from", "old"]) == 0
    assert "to: 20\n" in capsys.readouterr().out
    assert main([*verb, "pipe.yaml", "--from", "old"]) == 2
    assert capsys.readouterr().err == "clew: --from old: a pipeline has no single config that could lie above another\n"


@pytest.mark.parametrize("file", ["old.yaml", "pipe.yaml"])
@pytest.mark.parametrize("verb", [["run", "--dry-run"], ["config", "show"]])
def test_what_is_printed_reloads_to_itself_anywhere(space, file, verb, capsys, tmp_path, monkeypatch):
    assert main([*verb, file]) == 0
    text = capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("again.yaml").write_text(text)
    assert main([*verb, "again.yaml"]) == 0
    again = capsys.readouterr().out
    Path("third.yaml").write_text(again)
    assert plain(read_file(Path("third.yaml"))) == plain(read_file(Path("again.yaml")))
    once = read(tmp_path / file, workspace=space)
    assert resolved(read("again.yaml", workspace=space)) == resolved(once)
    if isinstance(once, LoadedJob):
        assert dump(read("again.yaml", workspace=space).config) == dump(once.config)  # type: ignore[union-attr]


def test_a_resolved_pipeline_keeps_its_references_and_its_order(space):
    value = resolved(read("pipe.yaml", workspace=space))
    assert value["stages"]["second"]["pace"] == "${first.metrics.loss}"
    assert value["stages"]["second"]["source"] == "${first.artifacts.number}"
    assert value["stages"]["third"]["source"] == "a ${first.metrics.loss} b"
    assert value["stages"]["third"]["after"] == ["second"]
    assert value["stages"]["first"]["to"] == 3
    assert value["stages"]["first"]["job"] == f"{space.root}/jobs.py:count"
