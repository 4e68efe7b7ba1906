"""What is known of a run from its directory."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest
from story import Story, told

from clew.cli.screen.kin import Kin
from clew.cli.screen.log_tail import LINES, LogTail
from clew.cli.screen.reader import Reader
from clew.cli.screen.telling import tell
from clew.cli.screen.watched import Look, Watched
from clew.runs import RunInfo, State, create_run
from support import wait_until


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path / "runs")


def events(story: Story, *lines: dict[str, object]) -> None:
    with (story.run.path / "journal/1-0.jsonl").open("a") as stream:
        stream.writelines(json.dumps({"t": 1.0, **line}) + "\n" for line in lines)


def metric(step: int, **values: object) -> dict[str, object]:
    return {"kind": "metric", "step": step, "values": values}


def test_a_look_says_how_the_run_stands(tmp_path: Path) -> None:
    look = Watched(told(tmp_path / "runs").run).look()
    assert (look.state, look.attempt, look.step) == (State.PAUSED, 2, 30)
    assert look.standing == ("step 30/40 (75 %)",)
    assert look.metrics == {"loss": 4 / 30, "lr": 2e-3, "tokens_per_second": 5030.0, "val_loss": 0.25}
    assert (look.chosen, str(look.parent)) == ("loss", "base@5")
    assert [(one.step, one.prompt, one.completion, one.scores) for one in look.samples[:2]] == [
        (30, "30 + 1 =", " 31", "exact 0, format 1"),
        (29, "29 + 1 =", " 30", "exact 1, format 1"),
    ]
    assert look.log == ("loading", "trained 30 steps")


def test_a_run_that_goes_on_says_how_quick_it_is(story: Story) -> None:
    journal = story.begin()
    journal.write("horizon", total=100, unit="batch")
    journal.write("restore", step=0)
    for step in range(1, 11):
        journal.write_metrics(step, {"loss": 1.0, "tokens_per_second": 1234.5})
    journal.flush()
    assert Watched(story.run).look().standing == ("batch 10/100 (10 %)", "1 batch/s", "1,234 tokens/s", "1:30 left")
    journal.close()


def test_each_look_reads_only_what_is_new(story: Story) -> None:
    watched = Watched(story.run)
    events(story, metric(1, loss=2.0), {"kind": "checkpoint", "step": 1})
    first = watched.look()
    events(story, metric(2, loss=1.0))
    second = watched.look()
    assert [line.text for line in first.news] == ["checkpoint saved"]
    assert (second.news, second.lines) == ((), first.lines)
    assert (first.points, second.points) == (((1, 2.0),), ((1, 2.0), (2, 1.0)))


def test_a_run_that_loads_what_it_needs_says_so(tmp_path: Path) -> None:
    story = Story(tmp_path / "runs")
    journal = story.begin()
    journal.flush()
    watched = Watched(story.run)
    standing = watched.look().standing
    assert [part.partition(", ")[0] for part in standing if "loading" in part] == ["loading what sft needs"]
    journal.write("restore", step=0)
    journal.close()
    assert not any("loading" in part for part in watched.look().standing)


def test_what_a_later_attempt_does_again_is_forgotten(tmp_path: Path) -> None:
    watched = Watched(told(tmp_path / "runs").run)
    watched.wanted = "lr"
    points = watched.look().points
    assert [step for step, _ in points] == list(range(6, 31))
    assert {step for step, value in points if value == 2e-3} == set(range(21, 31))


def test_a_long_journal_is_read_piece_by_piece_into_little_memory(story: Story) -> None:
    events(story, *(metric(step, loss=1000.0 if step == 7777 else 1 / step) for step in range(1, 20_001)))
    watched = Watched(story.run, batch=6000)
    looks = [watched.look() for _ in range(5)]
    assert [look.is_behind for look in looks] == [True, True, True, False, False]
    points = looks[-1].points
    assert len(points) < 2000
    assert (7777, 1000.0) in points
    assert (points[0], points[-1]) == ((1, 1.0), (20_000, 1 / 20_000))


def test_values_that_are_not_finite_are_shown_as_what_they_are(story: Story) -> None:
    events(story, metric(1, loss=1.0), metric(2, loss="nan"))
    look = Watched(story.run).look()
    assert math.isnan(look.metrics["loss"])
    assert [math.isnan(value) for _, value in look.points] == [False, True]


def test_nonsense_in_a_journal_is_left_out(story: Story) -> None:
    nonsense: list[dict[str, object]] = [
        {"kind": 7},
        {"kind": "metric", "step": 1, "values": None},
        {"kind": "metric", "step": 1, "values": {"loss": []}},
        {"kind": "restore"},
        {"kind": "restore", "step": "x"},
        {"kind": "horizon"},
        {"kind": "command"},
        {"kind": "rollout", "rewards": 7},
        {},
    ]
    events(story, *nonsense, metric(3, loss=0.5))
    look = Watched(story.run).look()
    assert (look.step, look.metrics) == (3, {"loss": 0.5})


def test_a_text_that_would_drive_the_terminal_is_spelled_out(story: Story) -> None:
    events(story, {"kind": "rollout", "step": 1, "prompt": "\x1b[2Jx", "completion": "\x07", "reward": 1.0})
    events(story, {"kind": "failure", "error": "E", "reason": "\x1b]0;title\x07"})
    look = Watched(story.run).look()
    assert (look.samples[0].prompt, look.samples[0].completion) == ("\\u001b[2Jx", "\\u0007")
    assert look.lines[-1].text == "E: \\u001b]0;title\\u0007"


@pytest.mark.parametrize(
    ("event", "text", "tone"),
    [
        (
            {"kind": "command", "verb": "note", "args": {"a": 1}, "outcome": "applied"},
            "note a=1 applied",
            "good",
        ),
        (
            {"kind": "command", "verb": "evaluate", "outcome": "applied", "result": {"val_loss": 0.123456}},
            "evaluate applied; val_loss=0.1235",
            "good",
        ),
        ({"kind": "command", "verb": "stop", "outcome": "expired: late"}, "stop expired: late", "bad"),
        ({"kind": "artifact", "name": "adapter", "bytes": 1500}, "artifact adapter, 1.5 kB", "plain"),
        ({"kind": "checkpoint_bad", "problem": "torn"}, "the checkpoint cannot be used: torn", "bad"),
        ({"kind": "checkpoint_failed", "reason": "no disk"}, "the state could not be saved: no disk", "bad"),
        ({"kind": "disk_full", "reason": "no room"}, "the state could not be saved: no room", "bad"),
        ({"kind": "health", "verdict": "well"}, "health: well", "plain"),
        ({"kind": "trouble", "reason": "loss is nan", "on_nan": "pause"}, "loss is nan; on_nan: pause", "bad"),
        ({"kind": "switched", "child": "b"}, "its process goes on as b", "plain"),
        ({"kind": "progress", "done": 3, "total": 9, "what": "samples"}, "3/9 samples", "plain"),
        ({"kind": "metric", "values": {"loss": 1.0, "eval_loss": 0.5}}, "evaluated: eval_loss 0.5", "plain"),
    ],
)
def test_events_are_told_in_a_line(event: dict[str, object], text: str, tone: str) -> None:
    line = tell({"t": 0.0, "attempt": 1, "rank": 0, **event})
    assert line is not None
    assert (line.text, line.tone) == (text, tone)


@pytest.mark.parametrize("kind", ["digest", "horizon", "rollout", "my_own", None])
def test_other_events_are_not_told(kind: object) -> None:
    assert tell({"kind": kind, "t": 0.0, "attempt": 1, "rank": 0}) is None
    assert tell({"kind": "metric", "t": 0.0, "values": {"loss": 1.0}}) is None


def test_the_end_of_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path, tail = tmp_path / "log", LogTail()
    assert tail.read(path) == ()
    path.write_text("one\nhalf")
    assert tail.read(path) == ("one",)
    with path.open("a") as stream:
        stream.write(" a line\r10 %\r20 %\n\x1b[1mthree\x1b[0m\r\n")
    assert tail.read(path) == ("one", "20 %", "three")
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    lines = tail.read(path)
    assert (len(lines), lines[-1]) == (LINES, "line 99999")
    other = tmp_path / "other"
    other.write_text("new attempt\n")
    assert tail.read(other) == ("new attempt",)


def test_the_family_is_found_and_new_children_appear(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    story = Story(runs, "base")
    child = create_run(runs, RunInfo("b", "sft", parent="base", fork_step=7), "", {})
    kin = Kin(story.run)
    assert kin.parent is None
    assert [(str(one), one.state) for one in kin.children()] == [("b@7", State.CREATED)]
    create_run(runs, RunInfo("c", "sft", parent="base", fork_step=9), "", {})
    create_run(runs, RunInfo("stranger", "sft"), "", {})
    assert [str(one) for one in kin.children()] == ["b@7", "c@9"]
    assert str(Kin(child).parent) == "base@7"


def test_a_disk_that_hiccups_is_looked_at_again(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, looks = Watched(story.run), iter([OSError("stale"), OSError("stale"), Watched(story.run).look()])

    def look() -> Look:
        if isinstance(found := next(looks), OSError):
            raise found
        return found

    monkeypatch.setattr(watched, "look", look)
    seen = threading.Event()
    reader = Reader(watched, lambda look: seen.set(), interval=60.0)
    reader.start()
    for _ in range(2):
        reader.choose("loss")  # looks at once
    wait_until(lambda: seen.is_set() or bool(reader.choose("loss")))
    reader.close()
