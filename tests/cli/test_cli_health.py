"""A live run is asked how it is doing, from a second terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli, Spawn, has_counted, read_until

from clew.runs import Run
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

HEALTHY = """
class Healthy(Counter):
    def health(self):
        return {
            "verdict": "bad",
            "findings": [{"word": "bad", "area": "losses", "text": "it is ill"}],
            "step": None,
            "losses": {"count": 1, "newest": self.value, "not_finite": 1, "lost": None, "num_spikes": 0, "spikes": [],
                       "recovered": True},
        }
"""


def live(spawn: Spawn, project: Path, name: str) -> Run:
    """A run that stands at its seventh step, ready for commands."""
    process = spawn("run", "count.yaml", "--name", name, "to=10", "hold_at=7")
    read_until(process, "started")
    wait_until(lambda: has_counted(project, name, 7))
    return Run(project / "runs" / name)


@pytest.fixture
def healthy(project: Path) -> Path:
    """The project, whose job says how it is doing."""
    text = (project / "my_job.py").read_text()
    text = text.replace("\n\n@clew.job\ndef count(", f"\n{HEALTHY}\n\n@clew.job\ndef count(")
    (project / "my_job.py").write_text(text.replace("counter = Counter()", "counter = Healthy()"))
    return project


def test_a_live_run_looks_at_itself(healthy: Path, clew: Cli, spawn: Spawn) -> None:
    run = live(spawn, healthy, "a")
    found = clew("health", "a", "--check", "--json")
    report = json.loads(found.out)
    assert (found.code, report["verdict"], report["step"], report["losses"]["newest"]) == (1, "bad", 7, 7)
    (command,) = run.events("command")
    assert (command["verb"], command["outcome"]) == ("health", "applied")
    assert command["result"] == {"verdict": "bad", "findings": ["it is ill"]}
    assert [event["step"] for event in run.events("health")] == [7]
    assert clew("health", "a").code == 0


def test_a_live_run_that_cannot_is_judged_by_its_journal(project: Path, clew: Cli, spawn: Spawn) -> None:
    live(spawn, project, "b")
    found = clew("health", "b")
    assert (found.code, found.out.splitlines()[0]) == (0, "b: well, at step 7")
    why = "b: health rejected: this job does not say how it is doing"
    assert found.err == f"clew: {why}; this is what its journal says\n"
    fresh = clew("health", "b", "--fresh")
    assert (fresh.code, fresh.out, fresh.err) == (2, "", f"clew: {why}\n")
