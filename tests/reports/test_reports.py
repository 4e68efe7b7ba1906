"""Whole reports of a small workspace.

The expected files are in ``golden/``; ``CLEW_UPDATE_GOLDEN=1 pytest tests/reports`` writes them anew; read them then.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from report_workspaces import (
    finish,
    generation,
    make_eval,
    make_grpo,
    make_pipeline,
    make_run,
    make_sft,
    metric,
    restore,
    rollout,
    write_events,
)

from clew.errors import UserError
from clew.reports import StageView, write_pipeline_report, write_run_report
from clew.reports.facts import read_facts
from clew.runs import JobResult, State
from clew.runs.result import Energy, Remote

GOLDEN = Path(__file__).parent / "golden"


def compare(text: str, name: str) -> None:
    """Compare with the expected file; what matplotlib drew is tested elsewhere and depends on its version."""
    text = re.sub(r"<svg.*?</svg>", "<svg></svg>", text, flags=re.DOTALL)
    path = GOLDEN / name
    if os.environ.get("CLEW_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def report_of(run, folder=None):
    return write_run_report(run, folder).markdown.read_text(encoding="utf-8")


def pipeline_report(root, *stages):
    files = write_pipeline_report("demo", root / "plan", stages)
    return files.markdown.read_text(encoding="utf-8")


def test_the_report_of_a_pipeline_is_as_expected(tmp_path):
    files = write_pipeline_report("demo", tmp_path / "plan", make_pipeline(tmp_path))
    compare(files.markdown.read_text(encoding="utf-8"), "pipeline.md")
    compare(files.html.read_text(encoding="utf-8"), "pipeline.html")


@pytest.mark.parametrize(
    ("make", "name"), [(make_sft, "sft"), (make_grpo, "grpo"), (lambda root: make_eval(root, "demo.eval", 31), "eval")]
)
def test_the_report_of_a_run_is_as_expected(tmp_path, make, name):
    compare(report_of(make(tmp_path)), f"{name}.md")


def test_a_report_is_written_the_same_twice(tmp_path):
    stages = make_pipeline(tmp_path)
    first = write_pipeline_report("demo", tmp_path / "one", stages)
    second = write_pipeline_report("demo", tmp_path / "two", stages)
    assert first.html.read_bytes() == second.html.read_bytes()
    assert first.markdown.read_bytes() == second.markdown.read_bytes()


def test_a_run_report_lies_in_the_directory_of_the_run(tmp_path):
    run = make_sft(tmp_path)
    files = write_run_report(run)
    assert files.markdown == run.path / "report.md"
    assert files.html == run.path / "report.html"


def test_every_figure_that_is_linked_is_there_and_no_other(tmp_path):
    files = write_pipeline_report("demo", tmp_path / "plan", make_pipeline(tmp_path))
    linked = set(re.findall(r"\]\((report_files/[^)]*)\)", files.markdown.read_text(encoding="utf-8")))
    found = {f"report_files/{path.name}" for path in (tmp_path / "plan/report_files").glob("*.png")}
    assert linked == found
    assert len(found) == 4


def test_figures_of_an_older_report_go_away(tmp_path):
    stages = make_pipeline(tmp_path)
    write_pipeline_report("demo", tmp_path / "plan", stages)
    write_pipeline_report("demo", tmp_path / "plan", stages[1:2])
    assert sorted(path.name for path in (tmp_path / "plan/report_files").iterdir()) == [
        "curves-1-sft.png",
        "curves-1-sft.svg",
    ]


def test_the_page_loads_nothing_from_anywhere(tmp_path):
    page = write_pipeline_report("demo", tmp_path / "plan", make_pipeline(tmp_path)).html.read_text(encoding="utf-8")
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)|@import""", page)
    assert all(target.startswith("#") for pair in loaded for target in pair if target)
    assert "<script" not in page


def test_what_a_model_wrote_cannot_act_in_the_page(tmp_path):
    run = make_run(tmp_path, "r", "eval")
    evil = "</code></td></table><script>alert(1)</script><img src=x onerror=y> | `\n\n# heading"
    write_events(run, [restore(0), generation(0, evil, 0.0, id=evil, prompt=[{"role": "user", "content": evil}])])
    files = write_run_report(finish(run))
    assert "<script" not in files.html.read_text(encoding="utf-8")
    assert "<img" not in files.html.read_text(encoding="utf-8")
    markdown = files.markdown.read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "\n# heading" not in markdown


def test_a_run_that_has_not_started_says_so_in_every_section(tmp_path):
    text = report_of(make_run(tmp_path, "new", "sft"))
    assert "The run **new** of the job `sft` is created after no attempt." in text
    for line in (
        "No generation was scored: this run has no eval stage.",
        "No metric was journalled: the run is created.",
        "No reward was journalled: this run has no GRPO stage.",
        "No generation was journalled: this run has no eval and no GRPO stage.",
        "The run did not fail.",
        "No environment is known: no worker has started.",
        "No artifact was published.",
    ):
        assert f"> {line}\n" in text
    assert "![" not in text


def test_missing_numbers_are_dashes(tmp_path):
    text = pipeline_report(tmp_path, StageView("sft", "sft"))
    assert "| `sft` | `sft` | not started | – | – | – | – | – | – |" in text


def test_a_curve_that_was_not_journalled_is_missed_by_name(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    write_events(run, [restore(0), metric(1, loss=1.0)])
    text = report_of(finish(run))
    assert "> No validation loss was journalled: the job logged no val_loss or eval_loss." in text
    assert "curves-1-r.png" in text


def test_a_curve_without_one_finite_point_is_a_sentence_and_no_plot(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    write_events(run, [restore(0), metric(1, loss=float("nan")), metric(2, loss=float("inf"))])
    text = report_of(finish(run))
    assert "> training loss: all of 2 points were not finite, the first at step 1." in text
    assert "![" not in text


def test_single_points_that_are_not_finite_are_counted_and_marked(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    write_events(run, [restore(0), metric(1, loss=2.0), metric(2, loss=float("nan")), metric(3, loss=1.0)])
    text = report_of(finish(run))
    assert "> training loss: 1 of 3 points were not finite, the first at step 2." in text
    assert "Crosses: the value was not finite." in text


def test_a_job_of_ones_own_shows_what_it_logs(tmp_path):
    run = make_run(tmp_path, "r", "package.module:walk")
    write_events(run, [restore(0), metric(1, distance=2.0), metric(2, distance=3.0)])
    assert "*r: distance.*" in report_of(finish(run))


def test_a_long_series_makes_a_small_report_that_keeps_its_spike(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    events = (metric(step, loss=50.0 if step == 123_456 else 1.0 + 1.0 / step) for step in range(1, 200_001))
    write_events(run, events)
    files = write_run_report(finish(run))
    assert files.html.stat().st_size < 200_000
    page = files.html.read_text(encoding="utf-8")
    assert "Of long series the lowest and the highest point of each stretch are drawn." in page
    assert ">50<" in page  # a tick at the height of the spike


def test_a_journal_is_read_in_bounded_memory():
    def events(number):
        for step in range(1, number + 1):
            yield {"attempt": 1, "rank": 0, "t": float(step), **metric(step, loss=1.0 / step, reward=float(step))}
            yield {"attempt": 1, "rank": 0, "t": float(step), **rollout(step, {"exact": 1.0 / step})}

    tracemalloc.start()
    facts = read_facts(events(30_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (facts.series["loss"].count, facts.rollouts.count) == (30_000, 30_000)
    assert peak < 1_000_000


def test_an_evaluation_under_way_says_that_its_figures_are_not_final(tmp_path):
    run = make_run(tmp_path, "r", "eval")
    write_events(run, [restore(0), generation(0, "0", 1.0)])
    run.states.queue()
    run.states.move(State.STARTING, attempt=1)
    run.states.move(State.RUNNING, attempt=1)
    assert "> `r` is running: its metrics cover only the examples scored so far." in report_of(run)


def test_answers_to_one_problem_are_not_counted_as_examples(tmp_path):
    run = make_run(tmp_path, "several", "eval")
    answers = [generation(index, "x", float(sample), sample=sample) for index in range(4) for sample in (0, 1)]
    write_events(run, [restore(0), *answers])
    noted = {"exact": {"low": 0.25, "high": 0.75, "method": "wilson"}}
    finish(run, metrics={"exact": 0.5, "count": 4.0}, intervals=noted)
    assert "| `several` | `exact` | 50.0 % | 25.0 – 75.0 % | 4 |" in report_of(run)


def test_intervals_are_those_of_the_result_also_where_no_example_is_journalled(tmp_path):
    run = make_run(tmp_path, "r", "eval")
    write_events(run, [restore(0), generation(0, "ab", 1.0), generation(1, "abcd", 0.0)])
    noted = {
        "exact": {"low": 0.1, "high": 0.9, "method": "wilson"},
        "length": {"low": 2.0, "high": 4.0, "method": "bootstrap"},
        "exact/pass@4": {"low": 0.25, "high": 0.75, "method": "wilson"},
    }
    text = report_of(finish(run, metrics={"exact": 0.5, "length": 3.0, "exact/pass@4": 0.5}, intervals=noted))
    assert "| `r` | `exact` | 50.0 % | 10.0 – 90.0 % | 2 |" in text
    assert "| `r` | `length` | 3 | 2 – 4 | 2 |" in text
    assert "| `r` | `exact/pass@4` | 50.0 % | 25.0 – 75.0 % | – |" in text
    assert "Those of other metrics are percentile bootstrap intervals" in text


def test_metrics_without_journalled_examples_have_no_interval(tmp_path):
    run = finish(make_run(tmp_path, "r", "eval"), metrics={"exact": 0.5, "count": 10.0})
    text = report_of(run)
    assert "| `r` | `exact` | 0.5 | – | – | – |" in text
    assert "No interval is given" in text


def test_first_and_last_evaluation_without_common_examples_are_shown_apart(tmp_path):
    one, two = make_run(tmp_path, "one", "eval"), make_run(tmp_path, "two", "eval")
    write_events(one, [generation(0, "a", 1.0, id="left")])
    write_events(two, [generation(0, "b", 1.0, id="right")])
    text = pipeline_report(tmp_path, StageView("one", "eval", finish(one)), StageView("two", "eval", finish(two)))
    assert "> `one` and `two` have none of their first examples in common." in text


def test_a_completion_of_nothing_is_said_to_be_empty(tmp_path):
    run = make_run(tmp_path, "r", "eval")
    write_events(run, [generation(0, "", 0.0), generation(1, "  ", 0.0)])
    text = report_of(finish(run))
    assert "(empty)" in text
    assert "(2 blank characters)" in text


def test_the_failure_of_an_earlier_attempt_is_told_too(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    write_events(run, [restore(0), {"kind": "failure", "error": "OSError", "reason": "disk full"}])
    write_events(run, [restore(0), metric(1, loss=1.0)], attempt=2)
    text = report_of(finish(run, attempts=2))
    assert "Attempt 1 failed: `OSError: disk full`" in text
    assert "> A later attempt went on; the run is completed." in text


def test_the_summary_tells_the_clearest_change_be_it_for_better_or_worse(tmp_path):
    def scored(name, **shares):
        run = make_run(tmp_path, name, "eval")
        records = [
            generation(index, "x", 0.0, metrics={metric: float(index < share) for metric, share in shares.items()})
            for index in range(100)
        ]
        write_events(run, [restore(0), *records])
        return finish(run)

    first, last = scored("a", format=100, solved=60, near=50), scored("b", format=99, solved=20, near=60)
    stages = [StageView("a", "eval", first), StageView("sft", "sft"), StageView("b", "eval", last, ("sft",))]
    text = pipeline_report(tmp_path, *stages)
    assert "the clearest change is in `solved`: from 60.0 % to 20.0 % (−40.0 points) on the same 100 examples." in text


def test_different_environments_stand_side_by_side(tmp_path):
    one, two = make_sft(tmp_path, "one"), make_run(tmp_path, "two", "sft")
    write_events(two, [{"kind": "attempt", "environment": {"python": "3.12.1"}}])
    text = pipeline_report(tmp_path, StageView("one", "sft", one), StageView("two", "sft", two))
    assert "| what | `one` | `two` |" in text
    assert "| python | 3.11.9 | 3.12.1 |" in text
    assert "| torch | 2.13.0 | – |" in text


def test_what_is_known_of_some_runs_only_is_told_where_it_is_set(tmp_path):
    run = finish(make_run(tmp_path, "r", "sft"))
    assert "| run | what | value |" not in report_of(run)
    known = JobResult.load(run.path)
    assert known is not None
    replace(
        known,
        remote=Remote("hf://me/adapter", "me/adapter", "abc123"),
        trackers={"mlflow": "http://127.0.0.1/r"},
        energy=Energy(1234.5, "rapl", estimated=True),
        instance="node-7",
        preempted=True,
        environment={**known.environment, "data": {"task.path": "feed" * 16}},
    ).save(run.path)
    text = report_of(run)
    for row in (
        "data of `task.path` | `feedfeedfeedfeed`",
        "pushed to | `hf://me/adapter at abc123`",
        "tracked by `mlflow` | `http://127.0.0.1/r`",
        "machine | `node-7`",
        "machine taken away | yes",
        "energy | 1234 J, estimated by `rapl`",
    ):
        assert f"| `r` | {row} |" in text
    assert "| task.path |" not in text  # data is no version


def test_without_matplotlib_the_report_is_written_and_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = pipeline_report(tmp_path, *make_pipeline(tmp_path))
    assert "> The figures are left out: the library 'matplotlib' is not installed." in text
    assert "pip install 'clew\\[report\\]' brings it." in text
    assert "> Figure left out: sft: training loss, validation loss." in text
    assert "![" not in text
    assert not (tmp_path / "plan/report_files").exists()


def test_a_run_whose_identity_is_gone_has_no_report(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    (run.path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"the run directory is damaged: run\.json cannot be read"):
        write_run_report(run)


def test_importing_reports_brings_nothing_heavy():
    code = "import sys, clew.reports; print(sys.modules.keys() & {'matplotlib', 'numpy', 'torch', 'clew.plans'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
