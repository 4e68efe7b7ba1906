"""A script with a session in it is a run: it is made, gone on with, resumed by a worker, and ended, like any other."""

from __future__ import annotations

import contextvars
import signal
import sys
from pathlib import Path

import pytest
from script_support import apart, run_of, run_script, typed, write_script

import clew
from clew import api
from clew.jobs import load_run_config
from clew.jobs.script import ScriptConfig
from clew.live.script import failed_exit, open_session
from clew.runs import Run, RunInfo, State, create_run
from clew.session.attempt import Attempt
from clew.session.lifecycle import claim
from clew.worker import work


class Nothing:
    """A surface without a state."""

    def save(self, directory: Path) -> None:
        (directory / "nothing").touch()

    def load(self, directory: Path) -> None:
        pass


def test_a_script_makes_a_run_with_its_metrics_and_result(tmp_path: Path) -> None:
    done = run_script(write_script(tmp_path), "--fast")
    assert (done.returncode, done.stdout) == (0, "the end\n")
    run = run_of(tmp_path)
    assert done.stderr == f"walk: started, attempt 1 ({run.path})\n  clew watch walk shows it, from another terminal\n"
    config = load_run_config(run)
    assert isinstance(config, ScriptConfig)
    assert (config.script, config.argv, config.folder) == (str(tmp_path / "train.py"), ["--fast"], str(tmp_path))
    result = run.result
    assert result is not None
    assert (result.status, result.metrics, run.state) == ("completed", {"value": 9.0}, State.COMPLETED)
    assert result.environment["data"]["script"]


def test_a_script_may_say_after_how_many_steps_it_saves(tmp_path: Path) -> None:
    script = """
        from clew.live.script import open_session

        with open_session(name="walk", checkpoint=7) as session:
            print(session.config.checkpoint.every)
    """
    done = run_script(write_script(tmp_path, script))
    assert (done.returncode, done.stdout) == (0, "7\n")


def test_a_script_that_has_completed_says_so_and_does_nothing(tmp_path: Path) -> None:
    path = write_script(tmp_path)
    run_script(path)
    again = run_script(path)
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr.startswith("walk: it has completed already, with the same parameters and code\n")
    assert run_of(tmp_path).states.read().attempt == 1


def test_other_parameters_are_another_run(tmp_path: Path) -> None:
    path = write_script(tmp_path)
    run_script(path)
    path.write_text(path.read_text().replace("1.5", "2.5"))
    again = run_script(path)
    assert again.returncode == 1
    assert "a run named 'walk' exists already" in again.stderr
    assert "params.by: 1.5 → 2.5" in again.stderr


def test_a_failure_keeps_its_traceback_and_the_next_start_goes_on(tmp_path: Path) -> None:
    path = write_script(
        tmp_path,
        middle='session.checkpoint(3) if walk.done == 3 else None; 1 / int(walk.done != 4 or "MEND" in os.environ)',
    )
    failed = run_script(path)
    assert failed.returncode == 1
    assert failed.stderr.count("ZeroDivisionError: division by zero") == 1
    result = run_of(tmp_path).result
    assert result is not None and result.failure is not None
    assert (result.status, result.failure.kind) == ("failed", "ZeroDivisionError")
    assert result.failure.log_tail[-1] == "ZeroDivisionError: division by zero"
    mended = run_script(path, MEND="1")
    assert (mended.returncode, mended.stdout) == (0, "the end\n")
    run = run_of(tmp_path)
    assert [event["step"] for event in run.events("restore")] == [0, 3]
    assert [event["values"]["value"] for event in run.events("metric")] == [1.5, 3.0, 4.5, 6.0, 7.5, 9.0]


def test_a_stopped_script_leaves_without_a_traceback(tmp_path: Path) -> None:
    path = write_script(tmp_path, middle='session.run.inbox.send("stop") if walk.done == 2 else None')
    stopped = run_script(path)
    assert (stopped.returncode, stopped.stdout) == (3, "")
    assert stopped.stderr.splitlines()[2:] == [
        "walk: stopped, stop was asked for at step 2",
        "  clew resume walk goes on with it",
    ]
    assert run_of(tmp_path).state is State.STOPPED
    on = run_script(path)
    assert on.stderr.startswith("walk: started, attempt 2 (")
    assert (on.returncode, on.stdout) == (0, "the end\n")


def test_an_interrupted_script_saves_first(tmp_path: Path) -> None:
    path = write_script(tmp_path, middle="os.kill(os.getpid(), signal.SIGINT) if walk.done == 2 else None")
    stopped = run_script(path)
    assert (stopped.returncode, stopped.stdout) == (4, "")
    assert stopped.stderr.splitlines()[2] == "walk: interrupted, received SIGINT at step 2"
    assert (run_of(tmp_path).checkpoints / "step-00000002").is_dir()


@pytest.mark.slow
def test_clew_resume_starts_the_script_in_a_worker(tmp_path: Path) -> None:
    path = write_script(tmp_path, middle='session.run.inbox.send("stop") if walk.done == 2 else None')
    assert run_script(path).returncode == 3
    result = api.attend(run_of(tmp_path))
    assert (result.status, result.metrics, result.attempts) == ("completed", {"value": 9.0}, 2)
    log = run_of(tmp_path).log_path(2).read_text()
    assert "the end" in log


@pytest.mark.slow
def test_a_script_is_killed_and_goes_on_where_it_saved(tmp_path: Path) -> None:
    save = "session.checkpoint(3) if walk.done == 3 else None"
    path = write_script(tmp_path, middle=f'{save}; "K" in os.environ and walk.done == 5 and os.kill(os.getpid(), 9)')
    assert run_script(path, K="1").returncode == -signal.SIGKILL
    assert run_of(tmp_path).state is State.INTERRUPTED
    assert run_script(path).returncode == 0
    assert [event["step"] for event in run_of(tmp_path).events("metric")] == [1, 2, 3, 4, 5, 6]


def test_a_script_may_be_run_by_a_config_with_other_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_script(tmp_path)
    workspace = clew.Workspace(tmp_path)
    loaded = api.read(
        {"job": "script", "script": str(path), "params": {"until": 2, "by": 5}, "name": "n"}, workspace=workspace
    )
    assert isinstance(loaded, api.LoadedJob)
    run = api.submit(loaded, workspace=workspace)
    attempt = started(run)
    before = list(sys.path), list(sys.argv), Path.cwd()
    assert apart(lambda: work(run, attempt)) == 0
    assert run.result is not None
    assert run.result.metrics == {"value": 10.0}
    assert before == (sys.path, sys.argv, Path.cwd())


@pytest.mark.parametrize(("words", "state"), [("sys.exit(0)", "completed"), ("sys.exit(7)", "failed")])
def test_the_exit_of_a_script_counts(tmp_path: Path, words: str, state: str) -> None:
    path = write_script(tmp_path, middle=f"walk.done == 2 and {words}")
    code = run_script(path).returncode
    result = run_of(tmp_path).result
    assert result is not None
    assert (code, result.status) == ((0, state) if state == "completed" else (7, state))
    if result.failure is not None:
        assert result.failure.reason == "the script ended with exit code 7"


def test_an_exit_means_for_a_run_what_it_means_for_a_shell() -> None:
    assert [failed_exit(SystemExit(code)) for code in (None, 0)] == [None, None]
    assert [str(failed_exit(SystemExit(code))) for code in (2, "no data")] == [
        "the script ended with exit code 2",
        "the script ended with no data",
    ]


TWO = """
    from clew.live.script import open_session

    with open_session(name="first"):
        pass
    with open_session(name="second"):
        pass
"""


def test_a_script_has_one_session(tmp_path: Path) -> None:
    done = run_script(write_script(tmp_path, TWO))
    assert done.returncode == 1
    assert "clew.errors.UserError: first: this script has opened a session already" in done.stderr
    assert "a callback, attach_lightning and Trainer open theirs" in done.stderr
    assert not (tmp_path / "runs/second").exists()


def test_a_session_in_a_session_is_refused(tmp_path: Path) -> None:
    def body() -> None:
        with open_session(name="a", workspace=tmp_path, origin=typed(tmp_path)), open_session(name="b"):
            pass

    with pytest.raises(clew.UserError, match="this script has opened a session already"):
        apart(body)


def test_what_is_typed_can_be_gone_on_with_but_not_be_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def cell() -> None:
        with open_session(name="cell", workspace=tmp_path, origin=typed(tmp_path)) as session:
            begin = session.attach(Nothing())
            for step in range(begin + 1, 5):
                seen.append(step)
                if step == 2:
                    session.run.inbox.send("stop")
                session.boundary(step)
        seen.append(0)

    apart(cell)
    assert seen == [1, 2, 0]
    assert capsys.readouterr().err.endswith("open the session again to go on with it\n")
    run = run_of(tmp_path, "cell")
    assert work(run, started(run)) == 1
    assert "there is no script to start" in run.states.read().reason
    apart(cell)
    assert seen == [1, 2, 0, 3, 4, 0]
    with pytest.raises(clew.UserError, match="it has completed already"):
        apart(cell)


def test_a_run_that_is_at_work_is_not_begun_twice(tmp_path: Path) -> None:
    def body() -> None:
        with open_session(name="a", workspace=tmp_path, origin=typed(tmp_path)):
            pass

    with (
        open_session(name="a", workspace=tmp_path, origin=typed(tmp_path)),
        pytest.raises(clew.UserError, match="the run is running already"),
    ):
        contextvars.Context().run(body)


def test_a_process_that_goes_on_as_another_run_ends_both_of_them(tmp_path: Path) -> None:
    """A fork in the same process leaves the parent in the middle, and the attempt at its end as the child's."""
    parent, child = (create_run(tmp_path / "runs", RunInfo(id=name, job="script"), "{}", {}) for name in "ab")
    followed: list[tuple[str, int, str]] = []
    attempt = Attempt(parent, started(parent), lambda run: {})
    attempt.claim()
    with (
        attempt,
        attempt.session("config", lambda run, number, config: followed.append((run.id, number, config))) as it,
    ):
        number = claim(child)
        attempt.left(parent, 1, "b", 7, {})
        attempt.entered(child, number)
        it.run, it.attempt = child, number
    assert (parent.state, child.state) == (State.STOPPED, State.COMPLETED)
    assert parent.result is not None and parent.result.failure is not None
    assert parent.result.failure.reason == "this process goes on as b from step 7"
    assert child.result is not None
    assert followed == [("a", 1, "config"), ("b", 1, "config")]
    assert len(list(child.events("attempt"))) == 1


def started(run: Run) -> int:
    """Queue an attempt that somebody is about to claim."""
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    return attempt


def test_the_origin_of_a_process_is_what_python_was_given(tmp_path: Path) -> None:
    path = write_script(
        tmp_path, "from clew.live.script import Origin\nprint(*Origin.of_process().argv, Origin.of_process())"
    )
    said = run_script(path, "a", "b").stdout
    assert said.startswith("a b Origin(script=PosixPath('") and "module=''" in said
