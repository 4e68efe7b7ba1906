from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import clew
from clew import api
from clew.config.plugins import load_object
from clew.errors import ConfigError, UserError
from clew.runs import JobResult, Run, State
from clew.targets.watching import Silent

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]


class Recorder(Silent):
    """Remembers which runs it was told of."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def started(self, label: str, run: Run) -> None:
        self.labels.append(label)


def test_a_file_is_run(project: Path) -> None:
    watcher = Recorder()
    result = clew.run("count.yaml", overrides=["to=4", "name=a"], workspace=project, watcher=watcher)
    assert isinstance(result, JobResult)
    assert (result.run, result.status, result.metrics) == ("a", "completed", {"loss": 0.25})
    assert watcher.labels == ["a"]


def test_a_mapping_is_run(project: Path) -> None:
    result = clew.run({"job": f"{project}/my_job.py:count", "to": 2}, workspace=clew.Workspace(project))
    assert result.metrics == {"loss": 0.5}


def test_a_config_object_is_run(project: Path) -> None:
    count_config = load_object("my_job.py:CountConfig", project)
    assert clew.run(count_config(to=2, name="a"), workspace=project).status == "completed"


def test_a_failed_run_is_a_result_and_no_exception(project: Path) -> None:
    result = clew.run("count.yaml", overrides=["fail_at=3"], workspace=project)
    assert result.status == "failed"
    assert result.failure is not None
    assert result.failure.cause == "ValueError: boom"


def test_mistakes_are_raised_before_anything_runs(project: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'too'"):
        clew.run("count.yaml", overrides=["too=1"], workspace=project)
    assert not (project / "runs").exists()


def test_the_builtin_jobs_are_found_from_their_configs(project: Path) -> None:
    from clew.builder import as_mapping
    from clew.jobs.eval import EvalConfig
    from clew.tasks.arithmetic import ArithmeticTask

    made = as_mapping(EvalConfig(model="m", task=ArithmeticTask()))
    assert (made["job"], made["task"]["type"]) == ("eval", "arithmetic")


def test_a_config_that_no_job_takes(project: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"a JobConfig alone does not say which job to run: no job in its file takes it"
    ):
        clew.run(clew.JobConfig(), workspace=project)


def test_a_config_that_several_jobs_take(project: Path) -> None:
    text = (project / "my_job.py").read_text()
    (project / "two.py").write_text(text + "\n\n@clew.job\ndef again(session: clew.Session[CountConfig]):\n    pass\n")
    with pytest.raises(ConfigError, match=r"several jobs take it: .*two.py:again"):
        clew.run(load_object("two.py:CountConfig", project)(), workspace=project)


def test_a_pipeline_in_python_is_that_of_the_file(project: Path) -> None:
    job = f"{project}/my_job.py:count"
    pipeline = clew.Pipeline("built")
    pipeline.stage("first", load_object("my_job.py:CountConfig", project)(to=4))
    pipeline.stage("second", {"job": job, "to": 2, "source": "${first.artifacts.number}"})
    pipeline.stage("third", {"job": job, "to": 5}, after=["second"])
    watcher = Recorder()
    result = pipeline.run(workspace=project, watcher=watcher)
    assert (result.run, result.job, result.status) == ("built", "pipeline", "completed")
    assert result.metrics == {"first.loss": 0.25, "second.loss": 0.5, "third.loss": 0.2}
    assert watcher.labels == ["first", "second", "third"]
    path = project / "plans/built" / result.artifacts["first.number"].path
    assert path.read_text() == "4"
    assert str(project / "runs/built.first/artifacts/number") in (project / "runs/built.second/config.yaml").read_text()


def test_a_failing_pipeline_is_a_result(project: Path) -> None:
    result = clew.run("numbers.yaml", overrides=["stages.first.fail_at=2"], workspace=project)
    assert result.status == "failed"
    assert result.failure is not None
    assert result.failure.reason == "stage first (numbers.first): ValueError: boom"
    assert result.failure.log_tail[-1] == "ValueError: boom"
    assert result.notes == {"stages": {"first": "numbers.first"}}


def test_a_stage_cannot_be_added_twice() -> None:
    pipeline = clew.Pipeline("p").stage("a", {"job": "eval"})
    with pytest.raises(UserError, match="there is a stage 'a' already"):
        pipeline.stage("a", {"job": "eval"})


def test_a_script_can_run_its_own_job(project: Path) -> None:
    code = (project / "my_job.py").read_text()
    (project / "script.py").write_text(
        f"{code}\n\nif __name__ == '__main__':\n    print(clew.run(CountConfig(to=4, name='a')).metrics)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=project, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{'loss': 0.25}\n", "")


def test_the_result_of_an_earlier_attempt_does_not_count(project: Path) -> None:
    clew.run("count.yaml", overrides=["fail_at=3", "name=a"], workspace=project)
    run = Run(project / "runs/a")
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.FAILED, attempt=attempt, reason="it fell over")
    result = api.result_of(run, State.FAILED)
    assert (result.attempts, result.failure and result.failure.cause) == (2, "it fell over")
