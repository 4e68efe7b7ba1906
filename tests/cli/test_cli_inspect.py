"""``clew inspect``: a live run looks at its samples itself; for one that is over, or was elsewhere, a fork does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Cli, Spawn, has_counted, read_until

from clew.inspection import Scores
from clew.inspection.parts import part_path, table, write_part
from clew.inspection.published import inspections
from clew.runs import Run, State
from clew.runs.files import write_json
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

JOB = '''
"""A job whose losses are its step."""

import time
from pathlib import Path

import numpy as np

import clew
from clew.inspection import Scores


@clew.config
class GuessConfig(clew.JobConfig):
    """Guessing."""

    to: int = 10
    """How far."""
    hold_at: int = 0
    """Stand at this step until the gate is there."""
    lie: bool = False
    """Whether there are no samples."""


class Guesser:
    step = 0
    batch_size = 4

    def __init__(self, lie):
        self.size = 0 if lie else 10

    def save(self, directory: Path) -> None:
        (directory / "step").write_text(str(self.step))

    def load(self, directory: Path) -> None:
        self.step = int((directory / "step").read_text())

    def scorer(self, split):
        if split != "train":
            raise clew.UserError(f"there is no split {split!r}")
        return self

    def __len__(self):
        return self.size

    def score(self, ids, *, tokens=False):
        words = [["yes", " no"] for _ in ids] if tokens else ()
        return Scores(self.step + ids / 10, None, np.stack([ids % 2 * 99, ids], 1).astype(np.float32), words,
                      [np.array([0, 1], np.float32) for _ in ids] if tokens else ())

    def fields(self, ids):
        return [{"text": f"{number}: yes no", "length": 2} for number in ids]


@clew.job
def guess(session: clew.Session[GuessConfig]) -> clew.Outcome:
    """Guess."""
    guesser = Guesser(session.config.lie)
    session.attach(guesser, clew.CheckpointConfig(every=2))
    while guesser.step < session.config.to:
        guesser.step += 1
        session.log(guesser.step, loss=float(guesser.step))
        print("counted", guesser.step)
        session.boundary(guesser.step)
        while guesser.step == session.config.hold_at and not Path("gate").exists():
            session.boundary(guesser.step)
            time.sleep(0.01)
    return clew.Outcome()
'''


SLOW = """

def is_to_stop():
    return any('"stop"' in path.read_text() for path in Path("runs").glob("*/inbox/*"))


def slow(self, ids, *, tokens=False):
    deadline = time.monotonic() + 60
    while not Path("gate").exists() and not is_to_stop():
        assert time.monotonic() < deadline, "nobody opens the gate"
        time.sleep(0.01)
    return self.score_quickly(ids, tokens=tokens)


Guesser.score = slow
"""


@pytest.fixture
def guesses(project: Path) -> Path:
    (project / "guess.py").write_text(JOB)
    (project / "guess.yaml").write_text("job: guess.py:guess\n")
    return project


def seen(project: Path) -> list[tuple[int, float]]:
    """Steps and lowest losses of all inspections of the run ``a``."""
    return [(one.step, one.numbers("loss").min()) for one in inspections(project / "runs" / "a")]


def test_a_live_run_looks_at_its_samples_and_goes_on(guesses: Path, clew: Cli, spawn: Spawn) -> None:
    read_until(spawn("run", "guess.yaml", "--name", "a", "hold_at=7"), "started")
    wait_until(lambda: has_counted(guesses, "a", 7))
    shown = clew("inspect", "a", "--clusters", "2", "--csv")
    assert shown.code == 0, shown.err
    folder = guesses / "runs/a/artifacts/inspections/step-00000007-train"
    assert shown.out.splitlines() == [
        "a: 10 of 10 samples",
        "a: 10 samples of train at step 7",
        "loss: mean 7.45, p05 7.045, p50 7.45, p95 7.855, max 7.9",
        "",
        "clusters by embedding",
        "cluster  samples  loss  margin",
        "1        5        7.4   –",
        "2        5        7.5   –",
        "",
        str(folder),
    ]
    assert (folder / "projection.png").stat().st_size > 1000
    assert (folder / "samples.csv").read_text().startswith("id,loss,margin,length,cluster,x,y,fields,text\n0,7.0,")

    refused = clew("inspect", "a", "--split", "valid")
    assert (refused.code, refused.err) == (2, "clew: a: inspect rejected: there is no split 'valid'\n")

    late = clew("inspect", "a", "--at", "9", "--deadline", "0.1")
    assert (late.code, late.err.partition(";")[0]) == (1, "clew: a: it has not answered within 0.1 s")

    # A step that has passed is looked at by a fork, which disturbs nobody and is gone afterwards.
    assert clew("inspect", "a", "--at", "4", "--no-tokens").code == 0
    assert seen(guesses) == [(4, 4.0), (7, 7.0)]
    assert [path.name for path in (guesses / "runs").iterdir()] == ["a"]
    assert Run(guesses / "runs/a").state is State.RUNNING
    (guesses / "gate").touch()
    wait_until(lambda: Run(guesses / "runs/a").state is State.COMPLETED)


def test_a_run_that_is_over_is_looked_at_by_a_fork(guesses: Path, clew: Cli) -> None:
    assert clew("run", "guess.yaml", "--name", "a").code == 0
    assert clew("inspect", "a", "--limit", "3").code == 0
    assert clew("inspect", "a", "--at", "8").code == 0
    assert clew("inspect", "a", "--at", "8", "--clusters", "0").code == 0
    assert seen(guesses) == [(8, 8.0), (10, 10.0)]
    first, second = inspections(guesses / "runs/a")
    assert (first.summary["clusters"], second.summary["samples"]) == ([], 3)
    lines = clew("samples", "a", "--hardest", "1").out.splitlines()
    assert lines == ["sample 2: loss 10.2, length 2, cluster 3", "  2: yes« no»", ""]
    assert clew("samples", "a", "--map").code == 0
    assert [path.name for path in (guesses / "runs").iterdir()] == ["a"]


def test_a_fork_that_takes_too_long_leaves_what_it_has_seen(guesses: Path, clew: Cli) -> None:
    (guesses / "guess.py").write_text(JOB.replace("    def score(", "    def score_quickly(") + SLOW)
    assert clew("run", "guess.yaml", "--name", "a", "to=4").code == 0
    late = clew("inspect", "a", "--wait", "--no-tokens", "--deadline", "0.1")
    assert late.code == 1
    assert late.err == ("clew: a: it was not done within 0.1 s\n  clew inspect goes on with what was seen until then\n")
    assert [path.name for path in (guesses / "runs").iterdir()] == ["a"]
    assert seen(guesses) == []
    (guesses / "gate").touch()
    assert clew("inspect", "a", "--wait", "--no-tokens", "--deadline", "60").code == 0
    assert seen(guesses) == [(4, 4.0)]


def test_a_fork_goes_on_with_what_the_run_had_seen_of_these_weights(guesses: Path, clew: Cli) -> None:
    assert clew("run", "guess.yaml", "--name", "a", "to=4").code == 0
    folder = guesses / "runs/a/artifacts/inspections/.making-step-00000004-train"
    (folder / "parts").mkdir(parents=True)
    identity = {"step": 4, "split": "train", "samples": 3, "tokens": False}
    write_json(folder / "identity.json", identity)
    # No such loss would be seen anew.
    scores, fields = Scores(np.array([77.0, 78, 79])), [{"text": "", "length": 1}] * 3
    write_part(part_path(folder, 0), [table(np.arange(3), scores, fields)])
    assert clew("inspect", "a", "--limit", "3", "--no-tokens").code == 0
    assert seen(guesses) == [(4, 77.0)]
    assert [path.name for path in folder.parent.iterdir()] == ["step-00000004-train"]


def test_what_cannot_be_looked_at_says_why_and_leaves_nothing(guesses: Path, clew: Cli) -> None:
    assert clew("run", "guess.yaml", "--name", "a", "lie=true", "to=4").code == 0
    refused = clew("inspect", "a")
    assert refused.code == 2
    assert "inspect rejected: there are no samples to inspect" in refused.err
    assert clew("inspect", "a", "--at", "3").code == 2
    assert [path.name for path in (guesses / "runs").iterdir()] == ["a"]
    assert seen(guesses) == []
