from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Cli


def test_a_file_is_drawn_without_states(clew: Cli) -> None:
    drawn = clew("graph", "numbers.yaml")
    assert (drawn.code, drawn.out) == (
        0,
        "pipeline numbers\n  first   my_job.py:count\n  second  my_job.py:count  takes first\n",
    )


def test_a_pipeline_of_the_workspace_is_drawn_with_them(clew: Cli, project: Path) -> None:
    clew("run", "numbers.yaml")
    assert ":::completed" in clew("graph", "numbers", "--format", "mermaid").out
    written = clew("graph", "numbers", "--format", "svg", "-o", "numbers.svg")
    assert written.out == "numbers.svg: written\n"
    assert (project / "numbers.svg").read_text().startswith("<svg ")


def test_what_cannot_be_drawn(clew: Cli, project: Path) -> None:
    refused = clew("graph", "nubmers")
    assert (refused.code, refused.err) == (
        2,
        f"clew: {project}: there is no file and no pipeline 'nubmers'\n  clew ls shows what there is\n",
    )
    refused = clew("graph", "count.yaml")
    assert refused.err.startswith("clew: count.yaml: this is a job, not a pipeline\n")
    refused = clew("graph", "numbers.yaml", "-o", "no/such/folder.svg")
    assert refused.err == "clew: no/such/folder.svg: cannot write the file: No such file or directory\n"


@pytest.mark.slow
def test_from_stage_does_a_stage_and_what_needs_it_again(clew: Cli) -> None:
    clew("run", "numbers.yaml")
    again = clew("run", "numbers.yaml", "--from-stage", "second")
    assert again.code == 0
    assert "first: done already, numbers.first is kept" in again.out
    assert "runs/numbers.second.2)" in again.out
    resumed = clew("resume", "numbers", "--from-stage", "first")
    assert resumed.code == 0
    assert "runs/numbers.first.2)" in resumed.out
    assert "runs/numbers.second.3)" in resumed.out


def test_from_stage_needs_a_stage(clew: Cli) -> None:
    refused = clew("run", "numbers.yaml", "--from-stage", "secnod")
    assert (refused.code, refused.err) == (
        2,
        "clew: numbers: there is no stage 'secnod'\n  did you mean 'second'?\n",
    )
    refused = clew("run", "count.yaml", "--from-stage", "first")
    assert refused.err == "clew: count.yaml: a single job has no stages\n  --from-stage is for pipelines\n"
