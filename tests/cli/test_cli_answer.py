from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Cli, Spawn, read_until

from clew.plans import Plan
from clew.runs import State
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

WAITING = """\
pipeline: asking
on_failure: wait
stages:
  first: {job: my_job.py:count, to: 10, fail_at: 7}
  second: {job: my_job.py:count, to: 5, after: first}
"""
ANSWER = "clew answer asking first resume|restart|continue|abort"


@pytest.fixture
def plan(project: Path) -> Plan:
    (project / "asking.yaml").write_text(WAITING)
    return Plan(project / "plans/asking")


def is_paused(plan: Plan) -> bool:
    return (plan.path / "plan.json").exists() and plan.state is State.PAUSED


def test_an_answer_from_elsewhere_reaches_a_pipeline_that_waits(spawn: Spawn, clew: Cli, plan: Plan) -> None:
    process = spawn("run", "asking.yaml")
    said = read_until(process, "clew answer")
    assert said.endswith(f"first has failed and waits for an answer: ValueError: boom\n  {ANSWER}\n")
    wait_until(lambda: is_paused(plan))
    shown = clew("show", "asking").out
    assert "first   my_job.py:count  waits for an answer" in shown
    assert f"\nasks         first: ValueError: boom\nanswer       {ANSWER}\n" in shown
    answered = clew("answer", "asking", "first", "continue")
    assert (answered.code, answered.out) == (0, "asking: first: continue (go on with what does not need it)\n")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "second: skipped (first has failed)\n" in out
    assert "second  my_job.py:count  skipped" in out
    assert "\nskipped      second: first has failed\n" in clew("show", "asking").out


def test_an_answer_while_nobody_is_there_is_taken_by_resume(spawn: Spawn, clew: Cli, plan: Plan) -> None:
    process = spawn("run", "asking.yaml")
    wait_until(lambda: is_paused(plan))
    process.kill()
    process.communicate(timeout=60)
    answered = clew("answer", "asking", "first", "abort")
    assert answered.out.endswith("  nobody carries the pipeline out just now; clew resume asking takes the answer\n")
    resumed = clew("resume", "asking")
    assert resumed.code == 1
    assert "first: abort\n" in resumed.out


def test_ctrl_c_while_it_waits_stops_the_pipeline(spawn: Spawn, clew: Cli, plan: Plan) -> None:
    process = spawn("run", "asking.yaml")
    wait_until(lambda: is_paused(plan))
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.splitlines()[-1].startswith("clew: asking stopped: ")
    assert set(plan.questions()) == {"first"}


def test_answers_that_make_no_sense(clew: Cli, project: Path, plan: Plan) -> None:
    clew("run", "numbers.yaml")
    assert clew("answer", "numbers", "first", "abrot").err == ("clew: 'abrot' is no answer\n  did you mean 'abort'?\n")
    assert clew("answer", "numbers", "frist", "abort").err == (
        "clew: numbers: there is no stage 'frist'\n  did you mean 'first'?\n"
    )
    assert clew("answer", "numbers", "first", "abort").err == (
        "clew: numbers: nothing is asked about the stage 'first'\n  clew show numbers shows how it stands\n"
    )
    refused = clew("answer", "numbers.first", "first", "abort")
    assert (refused.code, refused.err) == (2, "clew: numbers.first: a run asks nothing; only pipelines do\n")


# At a terminal.


class Terminal:
    """A command line in a terminal of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.descriptor, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "clew.cli", *words],
            cwd=folder,
            stdin=other,
            stdout=other,
            stderr=other,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "150"},
            start_new_session=True,
        )
        os.close(other)

    def read(self, text: str = "") -> str:
        """Read up to a text, or to the end; the last one answers what was said since the last call."""
        said = ""
        while not text or text not in said:
            try:
                more = os.read(self.descriptor, 4096)
            except OSError:  # the other end is closed
                more = b""
            if not more:
                assert not text, f"{text!r} was never said:\n{said}"
                break
            said += more.decode()
        return said

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())


@pytest.fixture
def terminal(project: Path, plan: Plan) -> Iterator[Terminal]:
    made = Terminal(project, "run", "asking.yaml")
    yield made
    made.process.kill()
    made.process.wait()
    os.close(made.descriptor)


QUESTION = "first: resume, restart, continue, abort? "


def test_the_terminal_asks_until_it_is_answered(terminal: Terminal) -> None:
    said = terminal.read(QUESTION)
    assert "restart   begin it again from nothing" in said
    for nonsense in ("\n", "what\n", "re\n"):  # "re" could be two of them
        terminal.type(nonsense)
        terminal.read(QUESTION)
    terminal.type("cont\n")
    said = terminal.read()
    assert "second: skipped (first has failed)" in said
    assert terminal.process.wait(timeout=60) == 1


def test_end_of_file_at_the_terminal_ends_the_pipeline_as_stopped(terminal: Terminal, plan: Plan) -> None:
    terminal.read(QUESTION)
    terminal.type("\x04")
    said = terminal.read()
    assert said.count(QUESTION) == 0, "it does not ask again"
    assert "no more input: the pipeline is stopped, and clew resume asks again" in said
    assert terminal.process.wait(timeout=60) == 1
    assert (plan.state, set(plan.questions())) == (State.STOPPED, {"first"})


def test_ctrl_c_at_the_terminal_ends_the_pipeline_as_stopped(terminal: Terminal, plan: Plan) -> None:
    terminal.read(QUESTION)
    terminal.process.send_signal(signal.SIGINT)
    terminal.read()
    assert terminal.process.wait(timeout=60) == 1
    assert plan.state is State.STOPPED
