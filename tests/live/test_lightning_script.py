"""The example of Lightning: a script that is a run, and its forks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from script_support import run_of, run_script

from clew import api
from clew.runs import State

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

EXAMPLE = Path(__file__).parents[2] / "examples/live/lightning_fit.py"


def test_the_example_is_a_run_that_is_stopped_resumed_by_a_worker_and_forked(tmp_path):
    script = tmp_path / "lightning_fit.py"
    shutil.copy(EXAMPLE, script)
    # Something that stops it in mid-epoch, the first time.
    stop = 'session.run.inbox.post(clew_command("stop", {}, at=60)) if session.attempt == 1 else None'
    text = script.read_text().replace("checkpoint=50):\n", f"checkpoint=50) as session:\n    {stop}\n")
    script.write_text(text.replace("import clew\n", "import clew\nfrom clew.runs import Command as clew_command\n"))
    stopped = run_script(script, CLEW_WORKSPACE=str(tmp_path))
    assert (stopped.returncode, stopped.stderr.splitlines()[-2:]) == (
        3,
        ["rings: stopped, stop was asked for at step 60", "  clew resume rings goes on with it"],
    )
    run = run_of(tmp_path, "rings")
    result = api.attend(run)
    assert (result.status, run.state) == ("completed", State.COMPLETED)
    assert result.metrics["val_accuracy"] > 0.8
    assert [event["step"] for event in run.events("metric")][-1] == 300
    made = api.fork(run, at=300, name="longer", hold=True, workspace=tmp_path)
    assert made.child is not None
    again = api.attend(made.child)
    assert again.status == "completed"
