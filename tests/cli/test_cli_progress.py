from __future__ import annotations

import io
import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clew.cli import progress as module
from clew.cli.bars import Bars
from clew.cli.displays import SILENCE_SECONDS, Lines
from clew.cli.interrupt import Interrupt
from clew.cli.looking import Looking
from clew.cli.progress import Progress, ProgressWatcher, Tracked, loading
from clew.cli.text import age, clock, headline, number, one_line, size
from clew.runs import RunInfo, State, create_run


def event(kind: str, t: float = 0.0, *, attempt: int = 1, rank: int = 0, **fields: Any) -> dict[str, Any]:
    return {"t": t, "kind": kind, "attempt": attempt, "rank": rank, **fields}


def metric(t: float, step: int, *, attempt: int = 1, **values: Any) -> dict[str, Any]:
    return event("metric", t, attempt=attempt, step=step, values=values)


def after(*events: dict[str, Any]) -> Progress:
    progress = Progress()
    for one in events:
        progress.take(one)
    return progress


def test_rate_and_time_left_come_from_the_events() -> None:
    progress = after(
        event("restore", 100.0, step=0), event("horizon", 100.0, total=100, unit="step"), metric(110.0, 20)
    )
    assert (progress.step, progress.percent, progress.rate, progress.seconds_left) == (20, 20, 2.0, 40.0)
    assert str(after(metric(0.0, 1, loss=0.5))) == "step 1, loss 0.5"
    assert str(progress) == "step 20/100 (20 %), 2 step/s, 0:40 left"


def test_after_a_resume_only_the_events_of_the_new_attempt_count() -> None:
    progress = after(
        event("horizon", 0.0, total=100, unit="step"),
        event("restore", 0.0, step=0),
        metric(1.0, 50, loss=0.1),
        event("attempt", 1000.0, attempt=2, number=2),
        event("restore", 1001.0, attempt=2, step=40),
    )
    assert (progress.step, progress.start, progress.rate, progress.metrics) == (40, 40, None, {})
    progress.take(metric(1011.0, 60, attempt=2, loss=0.3))
    assert (progress.rate, progress.seconds_left, progress.metrics) == (2.0, 20.0, {"loss": 0.3})


def test_an_attempt_that_starts_afresh_goes_back_to_zero() -> None:
    progress = after(metric(0.0, 9), event("restore", 5.0, attempt=2, step=0))
    assert (progress.step, progress.start) == (0, 0)


def test_other_ranks_do_not_count() -> None:
    assert after(event("metric", 0.0, rank=1, step=5, values={"loss": 1.0})).step == 0


def test_a_loop_that_goes_further_than_it_said_has_no_time_left() -> None:
    events = event("horizon", 0.0, total=100, unit="step"), metric(1.0, 90), metric(2.0, 110)
    assert str(after(*events)) == "step 110/100 (110 %), 20 step/s"


def test_nothing_is_known_at_first() -> None:
    progress = Progress()
    assert (progress.rate, progress.seconds_left, progress.percent) == (None, None, None)
    assert after(metric(1.0, 1), metric(1.0, 2)).rate is None  # no time between them


def test_a_pause_is_shown_and_its_time_spoils_no_rate() -> None:
    events = [event("restore", 0.0, step=0), metric(1.0, 2), event("paused", 1.0, at=2)]
    assert str(after(*events)) == "step 2, paused"
    events += [event("resumed", 1000.0, at=2), metric(1001.0, 3), metric(1002.0, 4)]
    assert str(after(*events)) == "step 4, 1 step/s"


def test_figures_that_are_not_finite_can_be_shown() -> None:
    assert str(after(metric(0.0, 1, loss="nan"))) == "step 1, loss nan"


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"loss": 0.5, "reward": 0.25}, "reward 0.25"),
        ({"lr": 0.1, "loss": 0.12345678}, "loss 0.1235"),
        ({"format": 1.0}, "format 1"),
        ({}, ""),
    ],
)
def test_one_figure_stands_for_the_run(metrics: dict[str, float], shown: str) -> None:
    assert headline(metrics) == shown


def test_how_numbers_and_times_are_written() -> None:
    assert [clock(value) for value in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]
    assert [age(value) for value in (-1, 5, 130, 7300, 200000)] == ["0 s", "5 s", "2 min", "2 h", "2 d"]
    assert [size(value) for value in (2, 1500, 2e6, 3e9)] == ["2 B", "1.5 kB", "2.0 MB", "3.0 GB"]
    assert (number(1e-9), number("inf")) == ("1e-09", "inf")
    assert one_line("a\n  b", 3) == "a b"
    assert one_line("a" * 10, 6) == "aaa..."


class Journal:
    """A run whose journal a test writes."""

    def __init__(self, folder: Path) -> None:
        self.run = create_run(folder, RunInfo("a", "count"), "", {})
        self.path = self.run.path / "journal/1-0.jsonl"

    def add(self, *events: dict[str, Any]) -> None:
        with self.path.open("a") as stream:
            for one in events:
                stream.write(json.dumps(one) + "\n")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


class Now:
    """What a watcher takes for the time; it stands until a test moves it."""

    seconds = 1000.0


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    moment = Now()
    monkeypatch.setattr(module.time, "monotonic", lambda: moment.seconds)
    return moment


@pytest.fixture
def watcher(journal: Journal, now: Now, capsys: pytest.CaptureFixture[str]) -> ProgressWatcher:
    """One that prints lines about the journal's run, and has said that it was started."""
    made = ProgressWatcher(Lines(), Interrupt())
    made.started("a", journal.run)
    assert capsys.readouterr().out.splitlines() == [f"a: started, attempt 0 ({journal.run.path})"]
    return made


def test_plain_lines_are_few(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = ProgressWatcher(Lines(), Interrupt(), interval=0.0)
    watcher.started("a", journal.run)
    journal.add(event("horizon", total=100, unit="step"))
    for step in range(1, 101):
        journal.add(metric(step / 10, step, loss=1.0))
        watcher.tick()
    watcher.ended("a", journal.run, State.COMPLETED)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"a: started, attempt 0 ({journal.run.path})"
    assert [line.split(",")[0] for line in lines[1:-1]] == [f"a: step {10 * n}/100 ({10 * n} %)" for n in range(1, 11)]
    assert lines[-1] == "a: completed at step 100 after 0:00, loss 1"


def test_a_slow_run_says_something_every_ten_seconds(
    journal: Journal, watcher: ProgressWatcher, now: Now, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.add(event("horizon", total=1000, unit="batch"))
    for step in range(1, 31):
        now.seconds += 1.0
        journal.add(metric(float(step), step))
        watcher.tick()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"a: batch {n}/1000 ({n // 10} %)" for n in (10, 20, 30)]


def test_a_run_that_is_done_already_is_mentioned(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    ProgressWatcher(Lines(), Interrupt()).reused("first", journal.run)
    assert capsys.readouterr().out == "first: done already, a is kept\n"


def test_bars_show_the_run(journal: Journal) -> None:
    screen = io.StringIO()
    with Bars(Console(file=screen, force_terminal=True, width=120, legacy_windows=False)) as bars:
        watcher = ProgressWatcher(bars, Interrupt(), interval=0.0)
        watcher.started("a[b]", journal.run)
        journal.add(event("horizon", total=10, unit="step"), event("restore", 0.0, step=0), metric(2.0, 4, loss=0.5))
        watcher.tick()
        journal.add(metric(5.0, 10, loss=0.25))
        watcher.ended("a[b]", journal.run, State.COMPLETED)
        watcher.reused("c", journal.run)
    shown = screen.getvalue()
    for text in ("a[b]", "10/10 step", "loss 0.25", "completed after 0:00", "✓", "c: done already, a is kept"):
        assert text in shown


def test_ctrl_c_waits_for_a_place_that_expects_it(capsys: pytest.CaptureFixture[str], journal: Journal) -> None:
    with Interrupt() as interrupt:
        watcher = ProgressWatcher(Lines(), interrupt)
        watcher.started("a", journal.run)
        signal.raise_signal(signal.SIGINT)  # not raised here
        with pytest.raises(KeyboardInterrupt):
            watcher.tick()
        watcher.tick()  # only once
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            watcher.tick()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("clew: stopping, each run saves first: a (")
    assert lines[2] == "clew: leaving; what runs here ends by itself when it has saved (a)"


def test_a_second_ctrl_c_that_finds_the_first_waiting_is_raised_at_once() -> None:
    def press_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with Interrupt(), pytest.raises(KeyboardInterrupt):
        press_twice()


def test_the_handler_of_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_elsewhere_than_in_the_main_thread_ctrl_c_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def body() -> None:
        with Interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(60)
    assert seen == [before]


def test_an_attempt_before_the_one_that_is_watched_is_not_said_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path)
    journal.run.states.queue()
    journal.add(event("restore", 0.0, step=5))
    tracked = Tracked("a", journal.run)
    tracked.attempt = 2
    tracked.poll()
    lines = Lines()
    lines.begin(tracked)
    assert "goes on" not in capsys.readouterr().out
    tracked.attempt = 1
    lines.begin(tracked)
    assert "a: goes on from step 5" in capsys.readouterr().out


def test_a_later_attempt_without_a_checkpoint_is_said_to_begin_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.run.states.queue()
    journal.add(event("restore", 0.0, step=0))
    tracked = Tracked("a", journal.run)
    tracked.poll()
    assert tracked.news() == []
    tracked = Tracked("a", journal.run)
    tracked.attempt = 2
    journal.path = journal.path.with_name("2-0.jsonl")
    journal.add(event("restore", 1.0, step=0, attempt=2))
    tracked.poll()
    assert tracked.news() == ["begins anew: it has no checkpoint that can be used"]


def test_a_run_that_loads_for_long_says_so_once(
    journal: Journal, watcher: ProgressWatcher, now: Now, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.add(event("attempt", number=1))
    said = []
    for _ in range(8):
        now.seconds += 1.0
        watcher.tick()
        said.append(len(capsys.readouterr().out.splitlines()))
    assert said == [0, 0, 1, 0, 0, 0, 0, 0]
    journal.add(event("horizon", total=10, unit="step"), event("restore", 0.0, step=0))
    now.seconds += 1.0
    watcher.tick()
    assert "loading" not in capsys.readouterr().out


def test_what_is_loaded_is_told_in_the_words_of_the_job(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    tracked = Tracked("a", journal.run)
    lines = Lines()
    lines.begin(tracked)
    tracked.since -= SILENCE_SECONDS
    lines.load(tracked)
    assert capsys.readouterr().out.splitlines()[1:] == ["a: loading what count needs"]
    assert loading("/here/my_job.py:guess") == "loading what guess needs"


def test_an_attempt_is_loaded_when_it_says_more_than_that_it_has_begun() -> None:
    progress = after(event("attempt", 5.0, number=1), event("changed", 5.0, keys={}), event("layout", 6.0, ranks=1))
    assert (progress.is_loaded, progress.since) == (False, 5.0)
    progress.take(event("restore", 9.0, step=0))
    assert progress.is_loaded
    progress.take(event("attempt", 20.0, attempt=2, number=2))
    assert (progress.is_loaded, progress.since) == (False, 20.0)
    progress.take(event("settings", 21.0, attempt=2, keys={}))
    assert progress.is_loaded


def test_a_resumed_run_loads_until_its_own_attempt_says_something(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for state in (None, State.STOPPED, None):
        if state is None:
            number = journal.run.states.queue()
        else:
            journal.run.states.move(state, attempt=number)
    journal.add(event("restore", 0.0, step=0), metric(1.0, 5))
    tracked = Tracked("a", journal.run)
    tracked.poll()
    assert (tracked.attempt, tracked.is_loading) == (2, True)
    journal.path = journal.path.with_name("2-0.jsonl")
    journal.add(event("attempt", 2.0, attempt=2, number=2), event("restore", 3.0, attempt=2, step=5))
    tracked.poll()
    assert not tracked.is_loading


def test_bars_count_the_seconds_of_loading_and_then_the_steps(journal: Journal, now: Now) -> None:
    screen = io.StringIO()
    bars = Bars(Console(file=screen, force_terminal=True, width=120, legacy_windows=False))
    watcher = ProgressWatcher(bars, Interrupt(), interval=0.0)

    def shown() -> str:
        start = screen.tell()
        with bars:
            pass
        return screen.getvalue()[start:]

    watcher.started("a", journal.run)
    now.seconds += 12.0
    watcher.tick()
    assert "starting (loading what count needs, 0:12)" in shown()
    journal.add(event("horizon", total=10, unit="step"), event("restore", 0.0, step=0))
    watcher.tick()
    after_loading = shown()
    assert "0/10 step" in after_loading and "loading" not in after_loading


@pytest.mark.parametrize("terminal", [False, True])
def test_who_waits_for_a_fork_that_looks_back_is_told_that_it_loads(
    terminal: bool, journal: Journal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clew.cli.looking.is_terminal", lambda: terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")
    now = 1000.0
    with Looking(journal.run, "parent") as looking:
        monkeypatch.setattr("clew.cli.looking.time.monotonic", lambda: now)
        looking.started("", journal.run)
        looking.tick()
        now += SILENCE_SECONDS
        looking.tick()
        looking.tick()
        if not terminal:
            assert capsys.readouterr().out == "parent: loading what count needs\n"
            journal.add(event("progress", done=1, total=2, what="samples"))
            looking.tick()
            assert capsys.readouterr().out == "parent: 1 of 2 samples\n"
    if terminal:
        assert "parent: loading what count needs, 0:03" in re.sub(
            r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out
        )
