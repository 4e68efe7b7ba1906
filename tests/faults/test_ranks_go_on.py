"""Real runs of two ranks that are killed, or go on in other numbers of processes: as if nothing had been."""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from dataclasses import replace
from itertools import zip_longest

import kills
import numpy as np
import pytest

from clew.data.feed import Feed
from clew.jobs import create_job_run, load_job
from clew.jobs.layout import choose
from clew.runs import Command, Run, State, Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED, BATCH, STEPS = 3, 6, 16
RECORDER = """
import json, os, sys
if "clew.worker" in sys.orig_argv:
    import clew.data.packing as packing
    words = sys.orig_argv[sys.orig_argv.index("clew.worker") + 1 :]
    rank = words[words.index("--rank") + 1] if "--rank" in words else "0"
    take = packing.Windows.batch
    def noted(self, ids):
        with open(os.path.join(os.environ["NOTED_IDS"], f"{words[1]}-{rank}"), "a") as file:
            file.write(json.dumps([len(self), ids.tolist()]) + "\\n")
        return take(self, ids)
    packing.Windows.batch = noted
"""
"""Put before everything that a worker does: each process notes which samples it reads, by attempt and rank."""


def test_two_ranks_that_share_their_weights_are_killed_and_end_in_the_same_bits(tmp_path, monkeypatch):
    two = kills.CASES["pretrain-2"]
    case = replace(two, config={**two.config, "mesh": {"preset": "fsdp"}}, imports=0.4)
    monkeypatch.setitem(kills.CASES, "fsdp", case)
    workspace, moments = Workspace(tmp_path), random.Random(1)
    whole, run = (kills.make(workspace, "fsdp", name, steps=150) for name in ("whole", "killed"))
    kills.finish(whole)
    assert any(kills.kill_once(run, case, moments) for _ in range(3)), "the run came to its end before it was killed"
    kills.finish(run)
    assert run.states.read().attempt > 1
    assert kills.differences(whole, run) == []


def test_a_run_that_changes_its_ranks_amid_epochs_sees_the_samples_of_an_undisturbed_one(tmp_path, monkeypatch):
    patch, workspace = tmp_path / "patch", Workspace(tmp_path)
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(RECORDER)
    monkeypatch.setenv("PYTHONPATH", f"{patch}:{os.environ.get('PYTHONPATH', '')}")
    whole, run = (made(workspace, name) for name in ("whole", "changed"))
    noted = {}
    for one, legs in ((whole, [(2, STEPS)]), (run, [(2, 5), (1, 11), (2, STEPS)])):
        folder = tmp_path / f"noted-{one.id}"
        folder.mkdir()
        monkeypatch.setenv("NOTED_IDS", str(folder))
        for ranks, until in legs:
            choose(one, ranks=ranks)
            if until < STEPS:
                one.inbox.post(Command("stop", at=until))
            ended = follow(LocalTarget().launch(one), Silent())
            assert ended is (State.COMPLETED if until == STEPS else State.STOPPED), one.result
        noted[one.id] = read(folder)
    size, ids = noted["changed"]
    assert noted["whole"] == (size, ids)
    assert size < BATCH * STEPS < 10 * size
    assert all(BATCH * step % size for step in (5, 11)), "a change at the end of an epoch shows less"
    assert ids == Feed(size, SEED, BATCH).take(BATCH * STEPS).tolist()
    assert [event["ranks"] for event in run.events("layout")] == [2, 1, 2]
    assert losses(run) == pytest.approx(losses(whole), abs=1e-5)


def made(workspace: Workspace, name: str) -> Run:
    config = {
        "job": "pretrain",
        "name": name,
        "seed": SEED,
        "task": {"type": "arithmetic", "max_operand": 30, "train_size": 60, "validation_size": 10, "test_size": 10},
        "model": {"depth": 1},
        "data": {"seq_len": 16},
        "training": {"steps": STEPS, "batch_size": BATCH, "log_every": 1, "validate_every": None},
        "runtime": {"device": "cpu", "threads": 1, "ranks": 2},
        "mesh": {"preset": "fsdp"},
    }
    return create_job_run(workspace, load_job(config))


def read(folder) -> tuple[int, list[int]]:
    """The number of samples that there are, and the ids in the order in which they were trained on.

    A batch is what the ranks of an attempt have read for the same step, one after the other.
    """
    by_attempt: dict[int, dict[int, list]] = defaultdict(dict)
    for path in folder.iterdir():
        attempt, rank = map(int, path.name.split("-"))
        by_attempt[attempt][rank] = [json.loads(line) for line in path.read_text().splitlines()]
    sizes, ids = set(), []
    for _, ranks in sorted(by_attempt.items()):
        for parts in zip_longest(*(lines for _, lines in sorted(ranks.items()))):
            sizes |= {size for size, _ in parts}
            ids += np.concatenate([part for _, part in parts]).tolist()
    (size,) = sizes
    return size, ids


def losses(run: Run) -> list[float]:
    return [event["values"]["loss"] for event in run.events("metric") if "loss" in event["values"]]
