"""Whatever call to the file system fails, or is the last one: what was promised is there, and the next attempt goes on.

A process is killed before its k-th call and in the middle of it, or the call says that there is no space, that the disk
is broken, or takes half of what it was given. ``make faults`` tries every k; here it is a sample.
"""

import pytest
from enumeration import ALL, every
from scenarios import SCENARIOS
from shimmed import FAULTS

pytestmark = pytest.mark.slow
NEITHER_WRITES = {("prune", "short"), ("prune", "full")}
LONG = ("run", "fork", "back")
CHECKED = [name for name in SCENARIOS if name != "owned"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scenario", CHECKED)
def test_nothing_is_lost_that_was_promised(bench, scenario, fault, record_property):
    hit = every(bench, scenario, FAULTS[fault], sample=3 if scenario in LONG else 5)
    record_property(f"calls, {fault}", hit)
    assert hit > 0 or (scenario, fault) in NEITHER_WRITES


@pytest.mark.parametrize("scenario", CHECKED)
def test_nothing_is_lost_that_was_promised_when_the_power_goes(bench, scenario, record_property):
    tried = bench.lose_power(scenario, sample=8 if scenario in LONG else 40)
    record_property("states after a power loss", tried)
    assert tried > 0


def test_a_sample_is_not_taken_for_all(bench):
    assert every(bench, "state", FAULTS["killed"], sample=2) == (42 if ALL else 2)
