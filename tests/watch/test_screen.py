"""The screen, driven by Textual's pilot. ``CLEW_UPDATE_GOLDEN=1`` writes the expected screens anew; read them then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hands import GOLDEN, Hands, play
from story import Story, command, told

from clew.runs import Command, JournalWriter, Run, RunInfo, State, create_run
from support import wait_until


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The screen shows local times."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("TEXTUAL_THEME", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return told(tmp_path / "runs")


def inbox(run: Run) -> list[Command]:
    return run.inbox.poll()


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
def test_the_screen(story: Story, size: tuple[int, int]) -> None:
    async def body(hands: Hands) -> None:
        await hands.sees_all_of(f"screen-{size[0]}x{size[1]}.txt")

    play(story.run, body, size=size)


def test_the_page_of_the_screen_shows_it_as_it_is() -> None:
    shown = "".join(f"    {line}".rstrip() + "\n" for line in (GOLDEN / "screen-80x24.txt").read_text().splitlines())
    assert shown in (Path(__file__).parents[2] / "docs/watch.md").read_text()


def test_the_screen_follows_its_window(story: Story) -> None:
    async def body(hands: Hands) -> None:
        await hands.sees("tokens_per_second", "0.6667")
        await hands.pilot.resize_terminal(50, 18)
        await hands.pilot.pause()
        assert "tokens_per_second" not in hands.text
        assert all(len(line) <= 50 for line in hands.text.splitlines())
        await hands.sees("0.6667", "step 30/40")

    play(story.run, body)


def test_another_metric_is_drawn(story: Story) -> None:
    async def body(hands: Hands) -> None:
        await hands.sees("0.6667")
        await hands.press("m")
        await hands.sees("0.002 ", "0.001 ")
        await hands.press("down")
        await hands.sees("5030 ", "4006 ")
        await hands.press("M", "M", "l")
        await hands.sees("loss (log)")

    play(story.run, body)


def test_samples_the_log_and_help_are_a_key_away(story: Story) -> None:
    async def body(hands: Hands) -> None:
        await hands.press("2")
        await hands.sees("step 30, exact 0, format 1", "30 + 1 =")
        await hands.press("3")
        await hands.sees("trained 30 steps")
        await hands.press("question_mark")
        await hands.sees("x  save and end", "q  leave; the run goes on")
        await hands.press("escape", "1")
        await hands.sees("pause applied")

    play(story.run, body)


def test_light_and_dark(story: Story) -> None:
    async def body(hands: Hands) -> None:
        assert hands.app.current_theme.dark
        await hands.press("t")
        assert not hands.app.current_theme.dark

    play(story.run, body)


@pytest.mark.parametrize(
    ("keys", "typed", "verb", "args"),
    [
        ("p", [], "pause", {}),
        ("r", [], "resume", {}),
        ("s", ["5"], "step", {"steps": 5}),
        ("c", [""], "checkpoint", {}),
        ("c", ["calm"], "checkpoint", {"tag": "calm"}),
        ("e", ["lr=1e-4 steps=9"], "set", {"lr": "1e-4", "steps": "9"}),
        ("n", ["it goes well"], "note", {"text": "it goes well"}),
        (["s", "enter"], [], "step", {"steps": 1}),
        ("xy", [], "stop", {}),
    ],
)
def test_keys_lead_to_commands_in_the_inbox(keys: str, typed: list[str], verb: str, args, story: Story) -> None:
    async def body(hands: Hands) -> None:
        await hands.press(*keys)
        for text in typed:
            await hands.type(text)
        await hands.sees(f"asked to {verb}")

    play(story.run, body)
    assert [(one.verb, one.args) for one in inbox(story.run)] == [(verb, args)]


def test_what_makes_no_sense_is_said_and_nothing_is_sent(story: Story) -> None:
    async def body(hands: Hands) -> None:
        await hands.press("e")
        await hands.type("lr")
        await hands.sees("'lr' is not key=value")
        await hands.press("e")
        await hands.type("a='")
        await hands.sees("cannot be read")
        await hands.press("s", "x", "enter")
        await hands.sees("is no number of")
        await hands.press("e", "escape", "x", "n")

    play(story.run, body)
    assert inbox(story.run) == []


def test_the_outcome_of_a_command_is_told(story: Story) -> None:
    async def body(hands: Hands) -> None:
        await hands.press("p")
        await hands.sees("asked to pause")
        (sent,) = inbox(story.run)
        answer(story, sent, "rejected: the disk is full")
        await hands.sees("▌ pause rejected: the", "pause rejected: the disk is full")

    play(story.run, body)


def answer(story: Story, sent: Command, outcome: str) -> None:
    """Do what a session does with a command."""
    journal = JournalWriter(story.run.path / "journal", 2)
    journal.write("command", id=sent.id, verb=sent.verb, at=30, outcome=outcome)
    journal.close()
    story.run.inbox.remove(sent)


def test_a_run_that_is_over_takes_no_commands_and_can_be_looked_at(story: Story) -> None:
    story.move(State.STOPPED)

    async def body(hands: Hands) -> None:
        await hands.sees("stopped", "0.6667")
        await hands.press("p")
        await hands.sees("there is nothing to pause")

    play(story.run, body)
    assert inbox(story.run) == []


def test_the_end_is_told_and_who_still_waits_hears_of_it(story: Story) -> None:
    async def body(hands: Hands) -> None:
        await hands.press("p")
        await hands.sees("asked to pause")
        story.move(State.FAILED)
        await hands.sees("the run is over: failed", "the run ended before it")

    play(story.run, body)


def test_a_fork_is_made_by_whoever_makes_forks(story: Story, tmp_path: Path) -> None:
    asked: list[tuple[str, str, Sequence[str]]] = []

    def fork(run: Run, *, name: str, overrides: Sequence[str]) -> str:
        asked.append((run.id, name, overrides))
        return create_run(tmp_path / "runs", RunInfo(name, "sft", parent=run.id, fork_step=30), "", {}).id

    async def body(hands: Hands) -> None:
        await hands.press("f", "b", "tab")
        await hands.type("lr=1")
        await hands.sees("b goes on from a", "forks: b@30 (created)")
        await hands.press("o", "down", "enter")
        await hands.sees("b  created", "forked from a@30", "no metric yet")

    app = play(story.run, body, fork=fork)
    assert asked == [("a", "b", ["lr=1"])]
    assert app.title == "clew watch b"


def test_a_child_that_goes_on_in_the_same_process_is_offered(story: Story, tmp_path: Path) -> None:
    async def body(hands: Hands) -> None:
        child = Story(tmp_path / "runs", "b", parent="a", fork_step=30)
        child.begin().close()
        story.move(State.STOPPED)
        await hands.sees("b goes on from here: o")

    play(story.run, body)


def test_what_happens_while_one_looks_appears(story: Story) -> None:
    async def body(hands: Hands) -> None:
        journal = JournalWriter(story.run.path / "journal", 2)
        command("set", "applied", journal, at=31, args={"lr": "0.5"})
        journal.write_metrics(31, {"fresh": 7.0})
        journal.close()
        await hands.sees("set lr=0.5 applied", "fresh", "step 31/40")

    play(story.run, body)


def test_nothing_is_left_behind_when_one_leaves(story: Story) -> None:
    async def body(hands: Hands) -> None:
        await hands.press("q")

    app = play(story.run, body)
    assert app.return_code == 0
    wait_until(lambda: all(thread.name != "clew-watch" for thread in threading.enumerate()))
