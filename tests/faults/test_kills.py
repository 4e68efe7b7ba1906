"""Process groups of real runs are killed at random moments; ``make faults`` does it 500 times, for all jobs."""

import random

import pytest
from kills import CASES, Killed, differences, finish, kill_once, make, upper_bound

from clew.runs import Workspace

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("case", "kills"), [("pretrain", 2), ("pretrain-2", 1)])
def test_a_run_that_is_killed_at_random_ends_in_the_same_weights(tmp_path, case, kills):
    workspace, moments = Workspace(tmp_path), random.Random(0)
    whole, run = (make(workspace, case, name, steps=80) for name in ("whole", "killed"))
    finish(whole)
    for _ in range(kills):
        found = kill_once(run, CASES[case], moments)
        assert found is None or found.lost <= 2 * CASES[case].every
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
