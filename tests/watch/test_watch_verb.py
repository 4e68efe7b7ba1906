"""``clew watch`` without a terminal, and which run it takes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from story import Story, told

from clew.cli.main import main
from clew.cli.screen import lines
from clew.cli.watch import newest
from clew.errors import UserError
from clew.runs import JobResult, JournalWriter, RunInfo, State, Workspace, create_run

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_run_in_plain_lines_ends_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = told(tmp_path / "runs")

    def goes_on() -> None:
        journal = JournalWriter(story.run.path / "journal", 2, clock=lambda: 1_700_000_060.0)
        journal.write("resumed", at=30)
        for step in range(31, 41):
            journal.write_metrics(step, {"loss": 4 / step})
        journal.close()
        story.move(State.RUNNING)
        JobResult("a", "sft", "completed", 1.0, 2, metrics={"loss": 0.1}).save(story.run.path)
        story.move(State.COMPLETED)

    timer = threading.Timer(0.5, goes_on)
    timer.start()
    assert main(["watch", "a", "--workspace", str(tmp_path)]) == 0
    timer.join()
    out = capsys.readouterr().out.replace(str(tmp_path), "WORKSPACE")
    path = GOLDEN / "lines.txt"
    if os.environ.get("CLEW_UPDATE_GOLDEN"):
        path.write_text(out)
    assert out == path.read_text()


def test_a_run_that_did_not_complete_ends_with_1_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = told(tmp_path / "runs")
    story.move(State.STOPPED)
    assert main(["watch", "--plain", "a", "--workspace", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out.endswith("a: stopped\n")
    assert "a stopped" in said.err
    assert "clew resume a" in said.err


def test_a_run_that_was_never_started_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Story(tmp_path / "runs")
    assert main(["watch", "a", "--workspace", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "clew: a: it has not been started\n  clew resume a starts it\n"


def test_a_slow_run_says_how_far_it_is_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    story = Story(tmp_path / "runs")
    journal = story.begin()
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += 1.0
        journal.write_metrics(int(now), {"loss": 1.0})
        journal.flush()
        if now == 25:
            story.move(State.STOPPED)

    monkeypatch.setattr(lines.time, "monotonic", lambda: now)
    monkeypatch.setattr(lines.time, "sleep", sleep)
    assert lines.follow(story.run) is State.STOPPED
    journal.close()
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in said if ": step " in line] == [
        f"a: step {step}" for step in (0, 10, 20, 25)
    ]


def test_without_a_name_it_is_the_newest_live_run_else_the_newest(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(UserError, match="there is no run"):
        newest(workspace)
    for place, name in enumerate(("old", "live", "new")):
        run = create_run(workspace.runs, RunInfo(name, "sft"), "", {}) if name != "live" else None
        if run is None:
            live = Story(workspace.runs, "live")
            live.begin().close()
        os.utime(workspace.runs / name / "run.json", (place, place))
    assert newest(workspace).id == "live"
    live.move(State.STOPPED)
    assert newest(workspace).id == "new"


def test_a_missing_library_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told(tmp_path / "runs")
    monkeypatch.setattr("clew.cli.watch._can_draw", lambda: True)
    monkeypatch.setitem(sys.modules, "textual", None)
    assert main(["watch", "a", "--workspace", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "clew: the library 'textual' is not installed\n  pip install 'clew[live]'\n"
