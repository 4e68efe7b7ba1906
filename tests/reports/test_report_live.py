"""The sections on what was done to a run while it went on, and on its health."""

from __future__ import annotations

import pytest
from report_workspaces import finish, make_run, make_sft, metric, write_events

from clew.health.verdict import judged
from clew.reports import StageView, write_pipeline_report, write_run_report
from clew.reports.facts import read_facts

DEAD = judged({"step": 20, "activations": {"layers": {"mlp": {"units": 10, "dead": 6, "flat": 0.7}}}})
WELL = judged({"step": None, "losses": None})


def command(verb, at, outcome="applied", **more):
    return {"kind": "command", "verb": verb, "at": at, "outcome": outcome, "issuer": "ada", **more}


def report_of(run):
    return write_run_report(run).markdown.read_text(encoding="utf-8")


def section(text, title):
    """The lines below a heading, up to the next of its rank."""
    assert f"\n## {title}\n" in text
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0].strip()


def made(root, *events, **info):
    run = make_run(root, "a", "pretrain", **info)
    write_events(run, [{"kind": "restore", "step": 0}, *events])
    return finish(run)


def test_a_run_that_was_left_alone_has_neither_section(tmp_path):
    text = report_of(make_sft(tmp_path))
    assert "What was done while it ran" not in text
    assert "## Health" not in text


def test_commands_are_listed_with_step_and_outcome(tmp_path):
    run = made(
        tmp_path,
        command("set", 3, args={"lr": 0.1, "why": "too | slow"}),
        command("evaluate", 5, result={"metrics": {"exact": 0.5}}),
        command("fly", 6, "rejected: not a command"),
    )
    rows = section(report_of(run), "What was done while it ran").splitlines()
    assert len(rows) == 5
    assert [[cell.strip(" `") for cell in row.split(" | ")] for row in (rows[0], rows[3], rows[4])] == [
        ["| step", "command", "with", "by", "outcome", "result |"],
        ["| 5", "evaluate", "–", "ada", "applied", 'metrics={"exact": 0.5}` |'],
        ["| 6", "fly", "–", "ada", "rejected: not a command", "– |"],
    ]
    assert "lr=0.1 why=too" in rows[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training.lr": 0.1, "seed": 3}, "It is a fork of `b` at step 1,200 with `training.lr = 0.1, seed = 3`."),
        ({}, "It is a fork of `b` at step 1,200, with nothing changed."),
    ],
)
def test_a_fork_says_what_it_was_made_from(tmp_path, changes, said):
    run = made(tmp_path, parent="b", fork_step=1200, changes=changes)
    assert section(report_of(run), "What was done while it ran") == said


def test_a_replay_says_of_what(tmp_path):
    run = made(tmp_path, replay_of="b")
    assert section(report_of(run), "What was done while it ran") == "It does `b` once more."


def test_the_newest_report_is_shown_whole_and_those_before_it_in_a_line(tmp_path):
    run = made(
        tmp_path,
        {"kind": "health", "step": 10, "report": WELL},
        {"kind": "health", "step": 20, "report": DEAD},
    )
    text = section(report_of(run), "Health")
    assert text.startswith("At step 20 its health was **look**.")
    assert "| 10 | well | – |" in text
    assert "| 20 | look | 6 of 10 units of mlp are never active over a batch; lower lr, or warm it up |" in text
    assert "a: look, at step 20\n" in text
    assert "dead units  6 of 10" in text


def test_of_a_pipeline_each_stage_has_its_own(tmp_path):
    first = made(tmp_path, command("note", 1, args={"text": "hello"}))
    second = make_sft(tmp_path)
    stages = [StageView("one", "pretrain", first), StageView("two", "sft", second, ("one",))]
    text = write_pipeline_report("p", tmp_path / "plan", stages).markdown.read_text()
    body = section(text, "What was done while it ran")
    assert body.startswith("### `one`")
    assert "### `two`" not in body


def test_a_template_can_hold_them(tmp_path):
    run = made(tmp_path, command("note", 1))
    template = tmp_path / "mine.md"
    template.write_text("# x\n\n{{ commands }}\n\n{{ health }}\n")
    text = write_run_report(run, template=template).markdown.read_text()
    assert "| 1 | `note` |" in text
    assert "The health of this run was not looked at." in text


def test_a_journal_of_many_commands_is_kept_short(tmp_path):
    events = [command("note", step) | {"attempt": 1, "rank": 0, "t": 1.0} for step in range(500)]
    health = [{"kind": "health", "step": s, "report": WELL, "attempt": 1, "rank": 0, "t": 1.0} for s in range(500)]
    facts = read_facts([*events, *health])
    assert (len(facts.interventions), facts.num_interventions, len(facts.checkups)) == (200, 500, 12)
    assert facts.health["step"] == 499
    run = made(tmp_path, *(command("note", step) for step in range(300)))
    assert "These are the first 200 of 300 commands." in report_of(run)


def test_damaged_events_are_left_out(tmp_path):
    run = made(
        tmp_path,
        metric(1, loss=1.0),
        {"kind": "command", "at": "x", "args": [1]},
        {"kind": "health", "step": None, "report": WELL},
        {"kind": "health", "step": 3, "report": "fine"},
    )
    text = report_of(run)
    assert "| – | `None` | – | – | None | – |" in section(text, "What was done while it ran")
    assert "## Health" not in text
