"""Process groups of real runs are killed at random moments; ``make faults`` does it 500 times, for all jobs."""

import random
from dataclasses import replace

import counting
import pytest
from kills import CASES, Killed, Nursery, differences, finish, kill_once, make, upper_bound
from telling import report

from clew.runs import Workspace

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("case", "kills"), [("pretrain", 1), ("pretrain-2", 1)])
def test_a_run_that_is_killed_at_random_ends_in_the_same_weights(tmp_path, case, kills):
    workspace, moments = Workspace(tmp_path), random.Random(0)
    whole, run = (make(workspace, case, name, steps=80) for name in ("whole", "killed"))
    finish(whole)
    assert (counting.finished(whole, 1), counting.finished(whole, 2)) == (80, 0)
    for _ in range(kills):
        found = kill_once(run, replace(CASES[case], imports=0.4), moments)
        assert found is None or (found.problems, found.lost <= CASES[case].every) == ((), True)
    finish(run)
    assert differences(whole, run) == []


def test_workers_of_a_process_that_has_imported_everything_are_killed_like_any_other(tmp_path):
    workspace = Workspace(tmp_path)
    whole, run = (make(workspace, "pretrain-sync", name, steps=60) for name in ("whole", "killed"))
    finish(whole)
    with Nursery() as nursery:
        found = [kill_once(run, CASES["pretrain-sync"], random.Random(seed), nursery) for seed in (3, 4)]
    assert [one.problems for one in found if one] == [()] * sum(one is not None for one in found)
    assert any(found)
    finish(run)
    assert differences(whole, run) == []


def test_what_is_lost_is_what_is_not_in_the_newest_checkpoint():
    assert Killed(step=17, safe=10, when="training").lost == 7
    assert Killed(step=0, safe=10, when="starting").lost == 0


def test_a_bound_is_stated_for_what_never_happened():
    assert upper_bound(0, 500) == pytest.approx(0.005974, abs=1e-6)
    assert upper_bound(0, 500) < 3 / 500
    with pytest.raises(ValueError, match="never happened"):
        upper_bound(1, 500)


def test_the_page_says_what_was_lost_and_what_may_be(tmp_path):
    kills = [
        {"case": "pretrain-sync", "run": "a", "lost": 10, "when": "training"},
        {"case": "pretrain", "run": "b", "lost": 7, "when": "training"},
        {"case": "pretrain", "run": "b", "lost": 0, "when": "starting"},
    ]
    runs = [{"case": "pretrain", "run": "b", "different": []}]
    counted = tmp_path / "faults.xml"
    counted.write_text(
        """<testsuites><testsuite name="pytest" errors="0" failures="1" tests="3" time="90">
        <testcase><properties><property name="calls, killed" value="40" /></properties></testcase>
        <testcase><properties><property name="calls, killed" value="2" /></properties></testcase>
        </testsuite></testsuites>"""
    )
    text, is_well = report({"kills": kills, "runs": runs, "seconds": 120.0}, counted)
    assert is_well
    assert "| pretrain | 2 | 1 | 1 | 10 | 7 |" in text
    assert "| pretrain-sync | 1 | 0 | 0 | 10 | 10 |" in text
    assert "3 kills in 2 minutes" in text
    assert "0 of 3 kills did harm: less than 63.16 % do" in text
    assert "- calls, killed: 42" in text
    assert "1 of the tests have failed" in text


def test_the_page_names_the_runs_that_came_to_harm(tmp_path):
    runs = [{"case": "sft", "run": "sft-0-1", "different": ["the weights differ"]}]
    text, is_well = report({"kills": [], "runs": runs, "seconds": 0.0}, tmp_path / "none.xml")
    assert not is_well
    assert "- sft-0-1: the weights differ" in text
    assert "did harm" not in text
