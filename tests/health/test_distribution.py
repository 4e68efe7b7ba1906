"""Ranks beside each other: gathered in one collective, or left out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import distributed, nn

from clew.errors import UserError
from clew.health.clock import StepClock
from clew.health.distribution import _section
from clew.health.report import health_report

NAN = float("nan")

RANK = """
import json, sys
import torch
from torch import distributed, nn
from clew.health.clock import StepClock
from clew.health.report import health_report

rank, place = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
now = [0.0]
clock = StepClock(clock=lambda: now[0])
clock.step_done()
for _ in range(4):
    with clock.data():
        now[0] += 3.0 * rank
    now[0] += 1.0
    clock.step_done()
torch.manual_seed(0)
print(json.dumps(health_report(nn.Linear(2, 2), timings=clock)))
distributed.destroy_process_group()
"""


@pytest.fixture
def alone(tmp_path):
    """A process group of one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_without_a_process_group_there_is_no_distribution():
    assert health_report(nn.Linear(2, 2))["distribution"] is None


def test_a_rank_that_asks_alone_waits_for_nobody(alone, monkeypatch):
    monkeypatch.setattr(distributed, "all_gather", lambda *_: pytest.fail("it waits for the others"))
    assert health_report(nn.Linear(2, 2), timings=StepClock(), together=False)["distribution"] is None


def test_a_rank_that_takes_no_time_has_none(alone):
    assert health_report(nn.Linear(2, 2))["distribution"] == {
        "ranks": 1,
        "median_seconds": [None],
        "p95_seconds": [None],
        "data_share": [None],
        "slowest": None,
        "skew": None,
    }


def test_all_figures_come_in_one_collective(alone, monkeypatch):
    calls = []
    gather = distributed.all_gather
    monkeypatch.setattr(distributed, "all_gather", lambda *args: calls.append(1) or gather(*args))
    health_report(nn.Linear(2, 2), timings=StepClock())
    assert calls == [1]


def test_the_slowest_rank_is_named_with_its_distance():
    section = _section([1.0, 2.0, 0.1, 1.0, 2.0, 0.1, 1.5, 2.0, 0.1], 3)
    assert (section["slowest"], section["skew"], section["data_share"]) == (2, 1.5, [0.1, 0.1, 0.1])


def test_one_rank_without_a_time_leaves_the_slowest_open():
    section = _section([1.0, 2.0, 0.1, NAN, NAN, NAN], 2)
    assert (section["median_seconds"], section["slowest"], section["skew"]) == ([1.0, None], None, None)


def test_the_norm_of_a_shard_does_not_pass_for_that_of_a_layer(alone):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    model = nn.Linear(2, 2, bias=False)
    mesh = init_device_mesh("cpu", (1,))
    model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [Shard(0)]))
    with pytest.raises(UserError, match="the weights are sharded over ranks"):
        health_report(model)


@pytest.mark.slow
def test_two_ranks_see_the_same_and_the_straggler(tmp_path):
    place = tmp_path / "rendezvous"
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(place)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    assert said[0]["distribution"] == said[1]["distribution"]
    assert said[0]["distribution"]["median_seconds"] == [1.0, 4.0]
    assert said[0]["distribution"]["data_share"] == [0.0, 0.75]
    assert said[0]["verdict"] == "look"
    assert "rank 1 waits for data 75% of a step, and the others for it; look at its disk" in [
        finding["text"] for finding in said[0]["findings"]
    ]


def test_the_gathered_figures_are_on_the_device_of_the_model(alone):
    clock = StepClock()
    report = health_report(nn.Linear(2, 2).to(torch.float64), timings=clock)
    assert report["distribution"]["ranks"] == 1
