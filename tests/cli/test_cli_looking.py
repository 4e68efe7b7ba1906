from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import Cli, Spawn, has_counted, read_until

from clew.cli import text
from clew.cli.latest import latest
from clew.runs import JournalWriter, Owner, Run
from clew.runs.files import read_json, write_json
from clew.runs.following import Record
from clew.runs.states import LEASE_SECONDS
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]


def test_an_empty_workspace(clew: Cli, project: Path) -> None:
    assert clew("ls").out == f"no runs in {project}; clew run FILE starts one\n"
    assert clew("ls", "--json").out == "[]\n"


def test_ls_is_a_plain_table(clew: Cli) -> None:
    clew("run", "count.yaml", "--name", "a")
    clew("run", "count.yaml", "--name", "b", "fail_at=7")
    head, first, second = clew("ls").out.splitlines()
    assert head.split() == ["id", "job", "state", "step", "age", "metric"]
    assert first.split()[:4] == ["a", "my_job.py:count", "completed", "10/10"]
    assert first.endswith("loss 0.1")
    assert second.split()[:4] == ["b", "my_job.py:count", "failed", "7/10"]
    assert "\x1b" not in head + first + second


def test_ls_shows_pipelines_before_their_stages(clew: Cli) -> None:
    clew("run", "numbers.yaml")
    assert [line.split()[0] for line in clew("ls").out.splitlines()[1:]] == [
        "numbers",
        "numbers.first",
        "numbers.second",
    ]


def test_ls_in_a_terminal_has_colours(clew: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    clew("run", "count.yaml", "--name", "a")
    monkeypatch.setattr(text, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    out = clew("ls").out
    assert "my_job.py:count" in out and "completed" in out and "─" in out


def test_ls_for_programs(clew: Cli) -> None:
    clew("run", "count.yaml", "--name", "a")
    (entry,) = json.loads(clew("ls", "--json").out)
    assert (entry["id"], entry["state"], entry["step"], entry["total"]) == ("a", "completed", 10, 10)
    assert entry["metrics"] == {"loss": 0.1}


def test_ls_says_which_runs_are_replays_and_of_what(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a")
    assert clew("fork", "a", "--at", "5", "--name", "b", "--hold").code == 0
    assert clew("resume", "b").code == 0
    assert clew("replay", "b", "--name", "again").code == 0
    jobs = {line.split()[0]: line for line in clew("ls").out.splitlines()[1:]}
    assert {name: line.partition("(")[2].partition(")")[0] for name, line in jobs.items()} == {
        "a": "",
        "b": "",
        "again-of-a": "replay of a",
        "again": "replay of b",
    }
    told = {one["id"]: one["replay_of"] for one in json.loads(clew("ls", "--json").out)}
    assert told == {"a": None, "b": None, "again-of-a": "a", "again": "b"}


def test_a_damaged_run_does_not_hide_the_others(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a")
    clew("run", "count.yaml", "--name", "b")
    (project / "runs/a/run.json").write_text("{")
    clew("run", "numbers.yaml")
    (project / "plans/numbers/state.json").write_text("")
    out = clew("ls").out
    assert out.count("damaged") == 2 and out.count("completed") == 3
    refused = clew("show", "a")
    assert refused.code == 2
    assert refused.err.startswith("clew: a: the run directory is damaged: run.json cannot be read")


def test_show_a_completed_run(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a")
    shown = dict(line.split(maxsplit=1) for line in clew("show", "a").out.splitlines() if not line.startswith(" "))
    assert shown["run"] == "a"
    assert shown["job"] == f"{project}/my_job.py:count"
    assert shown["state"].startswith("completed, ")
    assert shown["config"].startswith(str(project / "runs/a/config.yaml"))
    assert shown["step"] == "10/10"
    assert shown["metrics"] == "loss 0.1"
    assert shown["checkpoints"].endswith("step-00000010")
    assert shown["artifacts"] == f"{project}/runs/a/artifacts/number (2 B)"
    assert "next" not in shown


def is_said_to_be(run: Run, **other: object) -> None:
    """Write into the state of a run what an owner would have written, or left behind."""
    path = run.path / "state.json"
    write_json(path, {**read_json(path), **other})


def test_show_says_when_an_owner_that_is_gone_gave_its_last_sign_of_life(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a")
    run, now = Run(project / "runs/a"), time.time()
    gone = {"host": socket.gethostname(), "pid": 4_000_000, "started": 1}
    is_said_to_be(run, state="running", owner=gone, changed=now - 3000, lease_until=now + LEASE_SECONDS - 300)
    assert "state        interrupted, 5 min ago, attempt 1\n" in clew("show", "a").out
    is_said_to_be(run, changed=now - 120)  # it was killed before it renewed its lease
    assert "state        interrupted, 2 min ago, attempt 1\n" in clew("show", "a").out


@pytest.mark.parametrize(
    ("issuer", "why"),
    [
        ("disk", "the disk is full: nothing could be saved after step 7; make space, then let it go on"),
        ("on_nan", "the loss or its gradient was no longer finite after step 7"),
        ("ann", "ann asked for it after step 7"),
    ],
)
def test_show_says_why_a_run_is_paused(clew: Cli, project: Path, issuer: str, why: str) -> None:
    clew("run", "count.yaml", "--name", "a")
    run = Run(project / "runs/a")
    journal = JournalWriter(run.path / "journal", 2)
    for verb, at, outcome in (("pause", 7, "applied"), ("pause", 9, "rejected: no"), ("set", 9, "applied")):
        journal.write("command", id=verb, verb=verb, issuer=issuer, args={}, at=at, outcome=outcome)
    journal.close()
    is_said_to_be(run, state="paused", owner=asdict(Owner.current()), lease_until=time.time() + LEASE_SECONDS)
    assert f"reason       {why}\nnext         clew resume a lets it go on" in clew("show", "a").out
    journal = JournalWriter(run.path / "journal", 3)
    journal.write("command", id="s", verb="stop", issuer="ann", args={}, at=9, outcome="rejected: no room")
    journal.close()
    assert f"reason       {why}; stop was rejected: no room\nnext" in clew("show", "a").out
    is_said_to_be(run, state="running")
    assert "reason" not in clew("show", "a").out


def test_copies_that_were_never_made_are_told_at_the_end(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a")
    assert clew("run", "count.yaml", "--name", "a").err == ""
    Record("mirror", "push", "given up", error="s4://x: no such thing").save(project / "runs/a")
    done = clew("run", "count.yaml", "--name", "a")
    assert (done.code, "a: mirror: given up: s4://x: no such thing; clew push a URL" in done.err) == (0, True), done
    Record("mirror", "push", "done", 1).save(project / "runs/a")
    assert clew("run", "count.yaml", "--name", "a").err == ""


def test_show_tells_what_is_known_of_some_runs_only(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a")
    path = project / "runs/a/result.json"
    known = {
        "intervals": {"loss": {"low": 0.05, "high": 0.2, "method": "bootstrap"}},
        "remote": {"url": "hf://me/a", "repo": "me/a", "revision": "abc"},
        "energy": {"joules": 1234.4, "meter": "rapl", "estimated": False},
        "instance": "node-7",
        "preempted": True,
    }
    found = json.loads(path.read_text())
    found["environment"]["data"] = {"task.path": "feed" * 16}
    path.write_text(json.dumps({**found, **known}))
    shown = dict(line.split("  ", 1) for line in clew("show", "a").out.splitlines())
    assert {name: shown[name].strip() for name in ("metrics", "data", "pushed to", "machine", "energy")} == {
        "metrics": "loss 0.1 (0.05 to 0.2)",
        "data": "task.path feedfeedfeed",
        "pushed to": "hf://me/a at abc",
        "machine": "node-7, which was taken away",
        "energy": "1,234 J, metered by rapl",
    }


def test_show_a_failed_run_ends_with_its_log(clew: Cli) -> None:
    clew("run", "count.yaml", "--name", "a", "fail_at=7")
    out = clew("show", "a").out
    assert "reason       ValueError: boom\n" in out
    assert "| ValueError: boom\n" in out
    assert out.endswith("next         clew resume a\n")


def test_show_tells_an_error_for_people_in_its_own_words(clew: Cli, project: Path) -> None:
    source = (project / "my_job.py").read_text()
    boom, told = 'raise ValueError("boom")', 'raise clew.UserError("no more apples", where="basket", hint="buy some")'
    (project / "my_job.py").write_text(source.replace(boom, told))
    failed = clew("run", "count.yaml", "--name", "a", "fail_at=7")
    out = clew("show", "a").out
    assert "reason       basket: no more apples (buy some)\n" in out
    assert "a failed: basket: no more apples (buy some); mend that" in failed.out + failed.err


def test_show_a_run_of_a_pipeline(clew: Cli) -> None:
    clew("run", "numbers.yaml")
    assert "pipeline     numbers, stage first\n" in clew("show", "numbers.first").out


def test_show_a_pipeline(clew: Cli, project: Path) -> None:
    clew("run", "numbers.yaml", "stages.second.fail_at=2")
    out = clew("show", "numbers").out
    assert "state        failed, " in out
    assert f"report       {project}/plans/numbers/report.html" in out
    assert [line.split()[2] for line in out.splitlines() if line.startswith(("first", "second"))] == [
        "completed",
        "failed",
    ]
    why = "stage second (numbers.second): ValueError: boom"
    assert out.endswith(f"\nreason       {why}\nnext         clew resume numbers\n")


def test_show_a_live_run_says_how_to_follow_and_stop_it(spawn: Spawn, clew: Cli, project: Path) -> None:
    process = spawn("run", "count.yaml", "--name", "a", "hold_at=7")
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "a", 7))
    out = clew("show", "a").out
    assert "state        running for " in out and ", attempt 1, process " in out
    assert "next         clew resume a follows it, clew stop a ends it\n" in out
    assert clew("pause", "a", "--wait").code == 0
    assert "next         clew resume a lets it go on, clew stop a ends it\n" in clew("show", "a").out
    assert clew("resume", "a", "--detach").code == 0
    (project / "gate").touch()
    process.communicate(timeout=60)


def by_the_job(log: str) -> list[str]:
    """The lines of a log that the job has printed itself."""
    return [line for line in log.splitlines() if " clew." not in line]


def test_logs_are_those_of_the_newest_attempt(clew: Cli) -> None:
    clew("run", "count.yaml", "--name", "a", "fail_at=7")
    assert by_the_job(clew("logs", "a").out)[0] == "counted 1"
    clew("resume", "a")
    assert by_the_job(clew("logs", "a").out)[0] == "counted 6"
    assert by_the_job(clew("logs", "a", "--attempt", "1").out)[0] == "counted 1"
    refused = clew("logs", "a", "--attempt", "3")
    assert (refused.code, refused.err) == (2, "clew: a: there is no log of attempt 3; the newest is 2\n")


def test_logs_of_a_run_that_is_over_do_not_wait(clew: Cli) -> None:
    clew("run", "count.yaml", "--name", "a")
    assert clew("logs", "-f", "a").out == clew("logs", "a").out


def test_followed_logs_end_when_the_run_ends(spawn: Spawn, clew: Cli, project: Path) -> None:
    run = spawn("run", "count.yaml", "--name", "a", "hold_at=7")
    read_until(run, "started")
    logs = spawn("logs", "-f", "a")
    read_until(logs, "counted 7")
    (project / "gate").touch()
    out, _ = logs.communicate(timeout=60)
    assert logs.returncode == 0
    assert by_the_job(out) == ["counted 8", "counted 9", "counted 10"]
    run.communicate(timeout=60)


def test_report_prints_where_it_is(clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a", "fail_at=7")
    assert clew("report", "a").out.splitlines() == [f"{project}/runs/a/report.md", f"{project}/runs/a/report.html"]
    clew("run", "numbers.yaml")
    paths = [Path(line) for line in clew("report", "numbers").out.splitlines()]
    assert all(path.is_file() for path in paths)


def test_a_long_journal_is_read_at_its_ends_only(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path, 1)
    journal.write("horizon", total=5000, unit="step")
    for step in range(1, 4001):
        journal.write("metric", step=step, values={"loss": 1 / step, "text": "0" if step > 3999 else "1" * 200})
    journal.close()
    (tmp_path / "journal").mkdir()
    journal.path.rename(tmp_path / "journal/1-0.jsonl")
    now = latest(Run(tmp_path))
    assert (now.steps, now.metrics["loss"], now.metrics_step) == ("4000/5000", 1 / 4000, 4000)


def test_a_later_attempt_takes_the_step_back(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    for attempt, events in ((1, [("metric", 8)]), (2, [("restore", 5)])):
        journal = JournalWriter(tmp_path / "journal", attempt)
        for kind, step in events:
            journal.write(kind, step=step, values={"loss": 0.5})
        journal.close()
    assert latest(Run(tmp_path)).step == 5


def test_a_checkpoint_that_was_written_meanwhile_takes_nothing_back(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    journal = JournalWriter(tmp_path / "journal", 1)
    journal.write("metric", step=60, values={"loss": 0.5})
    journal.write("checkpoint", step=50)
    journal.close()
    assert latest(Run(tmp_path)).step == 60
