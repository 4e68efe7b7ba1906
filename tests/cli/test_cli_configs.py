from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Cli

from clew.cli import catalogue
from clew.config import Registry


def test_jobs_are_listed_with_their_summaries(clew: Cli) -> None:
    out = clew("jobs").out
    listed = out.partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == ["eval", "export", "grpo", "merge", "pretrain", "script", "sft"]
    assert all(len(line.split()) > 3 for line in listed)


def test_tasks_are_listed_with_their_summaries(clew: Cli) -> None:
    out = clew("tasks").out
    assert out.startswith("arithmetic  Arithmetic")
    assert "dataset     Rows" in out


def test_a_job_whose_library_is_missing_is_listed_all_the_same(clew: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("job", {"measure": "clew_has_no_such_module:run"})
    monkeypatch.setattr(catalogue, "_registry", lambda verb: registry)
    out = clew("jobs").out
    assert out.startswith("measure  (cannot be used here: cannot import clew_has_no_such_module")


def test_a_new_config_loads(clew: Cli, project: Path) -> None:
    made = clew("config", "new", "my_job.py:count", "-o", "new.yaml")
    assert made.code == 0
    assert "# How far." in (project / "new.yaml").read_text()
    assert clew("check", "new.yaml").code == 0


def test_a_new_config_in_another_folder_finds_the_job(clew: Cli, project: Path) -> None:
    (project / "configs").mkdir()
    clew("config", "new", "my_job.py:count", "-o", "configs/new.yaml")
    assert (project / "configs/new.yaml").read_text().splitlines()[1] == "job: ../my_job.py:count"
    assert clew("check", "configs/new.yaml").code == 0


def test_a_new_config_does_not_replace_a_file(clew: Cli) -> None:
    refused = clew("config", "new", "my_job.py:count", "-o", "count.yaml")
    assert (refused.code, refused.err) == (
        2,
        "clew: count.yaml: the file exists already\n  choose another name with -o\n",
    )


def test_a_new_config_that_cannot_be_written(clew: Cli) -> None:
    refused = clew("config", "new", "my_job.py:count", "-o", "missing/new.yaml")
    assert (refused.code, refused.err) == (
        2,
        "clew: missing/new.yaml: cannot write the file: No such file or directory\n",
    )


def test_a_preset_is_written_out(clew: Cli) -> None:
    assert "to: 1000" in clew("config", "new", "my_job.py:count", "--preset", "far").out
    assert "to: 10 " in clew("config", "new", "my_job.py:count").out


def test_an_unknown_preset_or_job(clew: Cli) -> None:
    assert clew("config", "new", "my_job.py:count", "--preset", "fr").err == (
        "clew: unknown preset 'fr'\n  did you mean 'far'?\n"
    )
    assert clew("config", "new", "sfd").err == "clew: unknown job 'sfd'\n  did you mean 'sft'?\n"


def test_show_prints_what_reloads_to_itself(clew: Cli, project: Path) -> None:
    shown = clew("config", "show", "count.yaml", "to=7").out
    (project / "again.yaml").write_text(shown)
    assert "to: 7" in shown
    assert clew("config", "show", "again.yaml").out == shown


def test_show_of_a_pipeline(clew: Cli) -> None:
    assert "to: 3" in clew("config", "show", "numbers.yaml", "stages.first.to=3").out


def test_check_says_ok(clew: Cli) -> None:
    checked = clew("check", "count.yaml", "to=4", "seed=2")
    assert checked.code == 0
    assert checked.out.startswith("ok: job ")
    assert "2 values given" in checked.out


def test_check_says_that_a_model_which_is_not_here_is_asked_of_a_hub(clew: Cli, project: Path) -> None:
    (project / "eval.yaml").write_text("job: eval\nmodel: owner/none\ntask: {type: arithmetic}\n")
    note = "note: model: there is no folder 'owner/none'; a hub will be asked for it\n"
    assert clew("check", "eval.yaml").out.endswith(note)
    text = "pipeline: p\nstages:\n  a: {job: eval, model: '${b.artifacts.x}', task: {type: arithmetic}}\n"
    (project / "p.yaml").write_text(text + "  b: {job: eval, model: owner/none, task: {type: arithmetic}}\n")
    notes = [line for line in clew("check", "p.yaml").out.splitlines() if line.startswith("note")]
    assert notes == [note.replace("model", "b: model").rstrip()]


def test_check_of_a_pipeline_shows_its_stages(clew: Cli) -> None:
    lines = clew("check", "numbers.yaml").out.splitlines()
    assert lines[0] == "ok: pipeline numbers, 2 stages, 1 at a time"
    assert lines[1].startswith("  first: job ")
    assert lines[2].endswith("after first")


def test_check_asks_the_job(clew: Cli, project: Path) -> None:
    (project / "checked.yaml").write_text("job: my_job.py:checked\nto: -1\n")
    refused = clew("check", "checked.yaml")
    assert (refused.code, refused.err) == (2, "clew: to is below zero\n  count up, not down\n")


def test_check_lists_all_problems_of_a_file(clew: Cli, project: Path) -> None:
    (project / "bad.yaml").write_text("job: my_job.py:count\nto: many\nholdat: 3\n")
    refused = clew("check", "bad.yaml")
    assert refused.code == 2
    assert "bad.yaml:2" in refused.err and "'many'" in refused.err
    assert "bad.yaml:3" in refused.err and "did you mean 'hold_at'?" in refused.err


def test_check_lists_the_problems_of_all_stages(clew: Cli, project: Path) -> None:
    (project / "bad.yaml").write_text(
        "stages:\n"
        "  a: {job: my_job.py:count, to: x}\n"
        "  b: {job: my_job.py:count, two: 2}\n"
        "  c: {job: my_job.py:checked, to: -1}\n"
    )
    refused = clew("check", "bad.yaml")
    assert refused.code == 2
    assert refused.err.startswith("clew: bad: 3 stages cannot run:\n  a: bad.yaml:2")
    assert "\n  b: bad.yaml:3: unknown key 'two'" in refused.err
    assert "\n  c: to is below zero" in refused.err


@pytest.mark.parametrize("verb", ["check", "run", "explain"])
def test_a_missing_file(clew: Cli, verb: str) -> None:
    refused = clew(verb, "nothing.yaml", *(["to"] if verb == "explain" else []))
    assert refused.code == 2
    assert refused.err == "clew: nothing.yaml: cannot read the file: No such file or directory\n"


def test_an_unknown_key(clew: Cli) -> None:
    refused = clew("run", "count.yaml", "too=3")
    assert (refused.code, refused.err) == (2, "clew: command line: unknown key 'too'\n  did you mean 'to'?\n")


def test_a_wrong_type(clew: Cli) -> None:
    refused = clew("run", "count.yaml", "to=many")
    assert (refused.code, refused.err) == (2, "clew: command line: 'to' must be int, not 'many'\n")


def test_a_file_without_a_job(clew: Cli, project: Path) -> None:
    (project / "none.yaml").write_text("to: 3\n")
    assert clew("check", "none.yaml").err.startswith("clew: none.yaml: the config does not say which job it is for\n")


def test_explain_says_where_a_value_comes_from(clew: Cli) -> None:
    out = clew("explain", "count.yaml", "to", "to=3").out
    assert out.startswith("to = 3\n  command line")
    assert "count.yaml:2" in out and "How far." in out


def test_explain_in_a_pipeline(clew: Cli) -> None:
    assert clew("explain", "numbers.yaml", "stages.second.to").out.startswith("to = 5\n")
    refused = clew("explain", "numbers.yaml", "stages.secnd.to")
    assert refused.err == "clew: pipeline numbers: there is no key 'stages.secnd.to'\n  did you mean 'second'?\n"
    assert clew("explain", "numbers.yaml", "to").code == 2


def test_explain_of_what_a_pipeline_says_beside_the_configs_of_its_jobs(clew: Cli, project: Path) -> None:
    (project / "p.yaml").write_text(
        "on_failure: wait\nstages:\n  a.b: {job: my_job.py:count}\n  c:\n    job: my_job.py:count\n    after: a.b\n"
    )
    assert clew("explain", "p.yaml", "on_failure").out.startswith("on_failure = 'wait'\n  file     p.yaml:1")
    assert clew("explain", "p.yaml", "max_parallel").out.startswith("max_parallel = 1\n  default  PipelineHead")
    assert "p.yaml:1" in clew("explain", "p.yaml", "stages.a.b.on_failure").out
    assert "p.yaml:6" in clew("explain", "p.yaml", "stages.c.after").out
    assert "How many stages may run at the same time." in clew("explain", "p.yaml", "max_parallel").out


def test_a_pipeline_without_a_name_is_called_like_its_file(clew: Cli, project: Path) -> None:
    (project / "nameless.yaml").write_text("stages:\n  only: {job: my_job.py:count}\n")
    assert clew("check", "nameless.yaml").out.startswith("ok: pipeline nameless, 1 stage,")


@pytest.mark.parametrize("text", ["pipeline: ../up\nstages:\n  a: {job: x}\n", "stages:\n  a/b: {job: x}\n"])
def test_a_name_that_is_no_name_is_refused(clew: Cli, project: Path, text: str) -> None:
    (project / "bad.yaml").write_text(text)
    refused = clew("check", "bad.yaml")
    assert refused.code == 2
    assert "cannot be a name" in refused.err
