"""Submitting the same run twice gives the same run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command_line import Cli, Spawn, has_counted, read_until

import clew as library
from clew.errors import UserError
from clew.runs import Run, State
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

HOLD = ("hold_at=7",)
COUNT = ("run", "count.yaml", "--name", "a")


def attempts(project: Path, name: str = "a") -> list[str]:
    return sorted(path.name for path in (project / "runs" / name / "journal").glob("*.jsonl"))


def test_a_completed_run_shows_its_result_and_does_nothing_again(clew: Cli, project: Path) -> None:
    clew(*COUNT)
    again = clew(*COUNT)
    assert (again.code, again.out.splitlines()) == (
        0,
        [
            "a has completed already, with the same config and code; this is its result",
            "metrics: loss 0.1",
            f"number: {project}/runs/a/artifacts/number",
        ],
    )
    assert attempts(project) == ["1-0.jsonl"]
    assert library.run("count.yaml", overrides=["name=a"], workspace=project).metrics == {"loss": 0.1}
    assert attempts(project) == ["1-0.jsonl"]


def test_a_running_one_is_followed(spawn: Spawn, clew: Cli, project: Path) -> None:
    spawn(*COUNT, *HOLD, "--detach").communicate(timeout=60)
    assert clew(*COUNT, *HOLD, "--detach").out == "a is running already, attempt 1\n"
    follower = spawn(*COUNT, *HOLD)
    read_until(follower, "a is running already, attempt 1; following it")
    (project / "gate").touch()
    out, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert "a: completed at step 10" in out
    assert attempts(project) == ["1-0.jsonl"]


def test_values_that_do_not_hold_for_a_run_that_is_there_are_told(clew: Cli, project: Path) -> None:
    assert clew(*COUNT, "fail_at=7", "notes=first").code == 1
    assert clew(*COUNT, "fail_at=7", "notes=by hand").out.splitlines()[1:3] == [
        "a: notes stays 'first', though 'by hand' is said now",
        "  clew stop a, then clew resume a 'notes=by hand' goes on so",
    ]


def test_values_that_are_not_said_again_are_not_told(clew: Cli, project: Path) -> None:
    assert clew(*COUNT, "fail_at=7", "notes=first").code == 1
    assert " stays " not in clew(*COUNT, "fail_at=7").out


@pytest.mark.parametrize("how", ["stopped", "failed", "interrupted"])
def test_one_that_has_ended_goes_on_and_says_so(how: str, spawn: Spawn, clew: Cli, project: Path) -> None:
    words = (*COUNT, "fail_at=7") if how == "failed" else (*COUNT, *HOLD)
    process = spawn(*words)
    if how != "failed":
        read_until(process, "started")
        wait_until(lambda: has_counted(project, "a", 7))
        owner = Run(project / "runs/a").states.read().owner
        assert owner is not None
        os.kill(owner.pid, signal.SIGTERM) if how == "interrupted" else clew("stop", "a")
    process.communicate(timeout=60)
    (project / "gate").touch()
    again = clew(*words)
    first = f"a exists already, with the same config and code, and is {how}; going on with it"
    assert again.out.splitlines()[0] == first
    assert f"a: goes on from step {5 if how == 'failed' else 7}" in again.out
    assert again.code == (1 if how == "failed" else 0)
    assert attempts(project) == ["1-0.jsonl", "2-0.jsonl"]


def test_what_changes_no_result_makes_no_other_run(clew: Cli, project: Path) -> None:
    clew(*COUNT)
    assert clew(*COUNT, "notes=again").code == 0
    assert attempts(project) == ["1-0.jsonl"]


def test_another_config_is_refused_with_what_differs(clew: Cli, project: Path) -> None:
    clew(*COUNT)
    wanted = (
        f"clew: {project}/runs/a: a run named 'a' exists already, with another config\n"
        "    seed: 0 → 5\n"
        "    to: 10 → 3\n"
        "  choose another name, or look at it: clew show a\n"
    )
    for words in ((), ("--dry-run",), ("--detach",)):
        refused = clew(*COUNT, "to=3", "seed=5", "notes=x", *words)
        assert (refused.code, refused.err) == (2, wanted)
    with pytest.raises(UserError, match="to: 10 → 3"):
        library.run("count.yaml", overrides=["name=a", "to=3"], workspace=project)


def test_a_run_that_has_not_completed_may_be_gone_on_with_as_it_is(clew: Cli) -> None:
    clew(*COUNT, "fail_at=2")
    refused = clew(*COUNT)
    assert refused.err.splitlines()[1:] == [
        "    fail_at: 2 → 0",
        "  choose another name, or go on with it as it is: clew resume a",
    ]


def test_other_code_makes_another_run(clew: Cli, project: Path) -> None:
    clew(*COUNT)
    with (project / "my_job.py").open("a") as stream:
        stream.write("\n# edited\n")
    refused = clew(*COUNT)
    assert refused.code == 2
    assert refused.err.splitlines()[0].endswith("a run named 'a' exists already, made by other code")


def test_a_dry_run_says_that_it_is_there(clew: Cli) -> None:
    clew(*COUNT)
    assert clew(*COUNT, "--dry-run").err == (
        "dry run: everything checked, nothing started; the run a is there already\n"
    )


def test_two_at_the_very_same_moment_are_one_run(spawn: Spawn, project: Path) -> None:
    both = [spawn(*COUNT) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0, 0], said
    assert all("metrics: loss 0.1" in text for text in said)
    assert attempts(project) == ["1-0.jsonl"]
    assert Run(project / "runs/a").states.read().attempt == 1


def test_two_that_fail_at_the_same_moment_fail_once(spawn: Spawn, project: Path) -> None:
    both = [spawn(*COUNT, "fail_at=3") for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [1, 1], said
    assert attempts(project) == ["1-0.jsonl"]


def test_runs_without_a_name_stay_distinct(clew: Cli, project: Path) -> None:
    for _ in range(2):
        assert clew("run", "count.yaml").code == 0
    assert len(list((project / "runs").glob("count-*/run.json"))) == 2


def test_a_folder_that_is_no_run_is_in_the_way(clew: Cli, project: Path) -> None:
    (project / "runs/a/logs").mkdir(parents=True)
    refused = clew(*COUNT)
    assert (refused.code, refused.err) == (
        2,
        f"clew: {project}/runs/a: a folder is in the way that is no run: run.json is gone\n"
        "  move it away, or choose another --name\n",
    )


def test_a_pipeline_that_is_at_work_is_followed(spawn: Spawn, clew: Cli, project: Path) -> None:
    words = ("run", "numbers.yaml", "stages.first.hold_at=7")
    spawn(*words, "--detach").communicate(timeout=60)
    wait_until(lambda: has_counted(project, "numbers.first", 7))
    refused = clew("run", "numbers.yaml")
    assert (refused.code, refused.err) == (
        2,
        "clew: numbers: the pipeline is running already, with another config\n"
        "    stages.first.hold_at: 7 → null\n"
        "  clew resume numbers follows it, clew stop numbers ends it\n",
    )
    follower = spawn(*words)
    read_until(follower, "numbers is running already; following it")
    (project / "gate").touch()
    assert follower.wait(timeout=60) == 0
    assert library.run(words[1], overrides=[words[2]], workspace=project).status == State.COMPLETED
    assert attempts(project, "numbers.first") == ["1-0.jsonl"]


def test_two_pipelines_at_the_same_moment_are_one(spawn: Spawn, project: Path) -> None:
    both = [spawn("run", "numbers.yaml") for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert attempts(project, "numbers.first") == ["1-0.jsonl"]
    assert len(list((project / "runs").glob("numbers.*/run.json"))) == 2
