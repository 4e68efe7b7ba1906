"""``clew samples`` shows texts with their worst tokens, and draws the map of the training dynamics."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from command_line import Cli

from clew.cli.marking import marked
from clew.inspection.inspecting import Options, inspect
from clew.runs import RunInfo, create_run
from fake_scorer import FakeScorer

LOSS = [0.5, 3.0, 1.0, math.nan, 2.0]


@pytest.fixture
def run(project: Path):
    """A run that was inspected twice."""
    (project / "runs").mkdir()
    run = create_run(project / "runs", RunInfo("a", "count"), "job: count\n", {})
    rows = [{"source": "web" if number % 2 else "book"} for number in range(5)]
    for step, factor in ((5, 2), (10, 1)):
        scorer = FakeScorer([factor * value for value in LOSS], [-value for value in LOSS], rows=rows)
        folder = run.artifacts / "inspections" / f"step-{step:08}-train"
        inspect(scorer, folder, Options(clusters=2), identity={"step": step, "split": "train"})
    return run


def first_lines(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("sample ")]


def test_the_hardest_come_first_with_their_worst_tokens_marked(run, clew: Cli):
    shown = clew("samples", "a", "--hardest", "2")
    assert (shown.code, shown.out) == (
        0,
        "sample 1: loss 3, margin -3, length 11, cluster 2, source web\n"
        "  What is 1? It is« 1».\n"
        "\n"
        "sample 4: loss 2, margin -2, length 14, cluster 2, source book\n"
        "  What is 4? It is« 4».\n"
        "\n",
    )


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ((), [1, 4, 2, 0]),
        (("--easiest", "3"), [0, 2, 4]),
        (("--ids", "3,0"), [3, 0]),
        (("--ids", "wanted.txt"), [2, 1]),
        (("--cluster", "1"), [2, 0]),
        (("--cluster", "1", "--count", "1"), [2]),
        (("--hardest", "1", "--inspection", "5"), [1]),
    ],
)
def test_what_is_asked_for_is_shown(words, ids, run, clew: Cli, project: Path):
    (project / "wanted.txt").write_text("2\n1\n")
    lines = first_lines(clew("samples", "a", *words).out)
    assert [int(line.split()[1].rstrip(":")) for line in lines] == ids


def test_an_older_inspection_can_be_looked_at(run, clew: Cli):
    assert first_lines(clew("samples", "a", "--ids", "1", "--inspection", "5").out)[0].startswith("sample 1: loss 6,")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--inspection", "7"), "a: there is no inspection of train at step 7\n  there is train at step 5, 10\n"),
        (("--split", "test"), "a: there is no inspection of test\n  there is train at step 5, 10\n"),
        (("--cluster", "3"), "step-00000010-train: there is no cluster 3\n  they count from 1 to 2\n"),
        (("--ids", "9"), "step-00000010-train: there is no sample 9; this inspection has 5, from 0\n"),
        (("--ids", "1,1"), "--ids: sample 1 stands there twice\n"),
        (("--hardest", "0"), "samples: at least one sample can be shown\n"),
        (("--map", "--split", "test"), "a: a map needs two inspections of a split at different steps"),
    ],
)
def test_what_is_not_there_is_said(words, error, run, clew: Cli):
    refused = clew("samples", "a", *words)
    assert refused.code == 2
    assert refused.err.startswith(f"clew: {error}")


def test_the_map_is_drawn(run, clew: Cli):
    shown = clew("samples", "a", "--map")
    assert shown.code == 0
    head, *files = shown.out.splitlines()
    assert head == "a: 4 samples of train over the inspections at steps 5, 10: 2 easy, 1 ambiguous, 1 hard"
    assert [Path(file).name for file in files] == ["map.png", "map.parquet", "map.csv"]
    assert all(Path(file).stat().st_size > 50 for file in files)
    assert clew("samples", "a").code == 0  # a map is no inspection


@pytest.mark.parametrize(
    ("text", "tokens", "losses", "pieces"),
    [
        ("a b a b", ["a", " b"], [0.1, 2.0], [("a b a", False), (" b", True)]),
        ("a b c.", ["b", " c"], [2.0, 2.0], [("a ", False), ("b", True), (" c.", False)]),
        ("prompt", ["x", "y"], [1.0, 3.0], [("prompt [x", False), ("y", True), ("]", False)]),
        ("text", [], [], [("text", False)]),
        ("text", ["t"], [math.nan], [("text", False)]),
        ("abcdefghij" * 2, "abcdefghij" * 2, range(20), [("abcdefghijabcdefgh", False), ("i", True), ("j", True)]),
    ],
)
def test_the_worst_tenth_of_the_targets_is_marked(text, tokens, losses, pieces):
    assert marked(text, tokens, losses) == pieces


def test_in_a_terminal_they_are_coloured(run, clew: Cli, monkeypatch):
    monkeypatch.setattr("clew.cli.marking.is_terminal", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = clew("samples", "a", "--hardest", "1").out
    assert "\x1b[1;7;31m 1\x1b[0m." in out
    assert "«" not in out
