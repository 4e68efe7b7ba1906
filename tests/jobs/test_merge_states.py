"""Merging checkpoints of a trainer of the user's own, which hold weights and no model that loads by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tuning_support import Echo, attempt, new_run

from clew.checkpoints import CheckpointStore
from clew.checkpoints.state import save_state
from clew.errors import UserError
from clew.jobs.loading import load_job
from clew.jobs.merge import MergeConfig, merge
from clew.jobs.settling import settled
from clew.live.torch_parts import gathered
from clew.live.torch_surface import TorchSurface
from clew.merging.methods.fisher import Fisher
from clew.merging.methods.swa import Swa
from clew.merging.methods.task_arithmetic import TaskArithmetic
from clew.runs import RunInfo, create_run


def network(seed, width=3):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
    model(torch.randn(9, 2) * (seed + 1))
    return model


def save(folder: Path, name: str, *models, whole: bool) -> None:
    """A run whose checkpoints hold its weights as one state, or within one."""
    run = create_run(folder / "runs", RunInfo(id=name, job="script"), "job: script\n", {})
    for step, model in enumerate(models, 1):

        def write(directory, model=model):
            state = model.state_dict()
            save_state(directory, "model", state) if whole else save_state(directory, "trainer", {"model": state})

        CheckpointStore(run.checkpoints).save(step * 10, write, metric=1 / step)


def run_merge(folder: Path, **said):
    run = new_run(folder, "merge")
    outcome = attempt(merge, run, MergeConfig(**said))
    return load_file(run.artifacts / "weights" / "model.safetensors"), outcome


@pytest.mark.parametrize("whole", [True, False])
def test_weights_are_merged_under_their_names_and_load_into_the_model(whole, tmp_path):
    models = [network(seed) for seed in range(2)]
    save(tmp_path, "s", *models, whole=whole)
    merged, outcome = run_merge(tmp_path, models=["run:s@10", "run:s@best"], weights=[3, 1])
    fresh = network(5)
    fresh.load_state_dict(merged)
    expected = 0.75 * models[0][0].weight + 0.25 * models[1][0].weight
    assert torch.allclose(fresh[0].weight, expected)
    mean = 0.75 * models[0][1].running_mean + 0.25 * models[1][1].running_mean
    assert torch.allclose(fresh[1].running_mean, mean) and fresh[1].num_batches_tracked.item() == 1
    assert [one["share"] for one in outcome.notes["shares"]] == [0.75, 0.25]
    assert outcome.metrics == {"models": 2.0, "parameters": float(sum(one.numel() for one in merged.values()))}


@pytest.mark.parametrize("kind", ["session", "trainer"])
def test_programs_of_ones_own_are_merged_under_the_names_of_their_model(kind, tmp_path):
    models = [network(seed) for seed in range(2)]
    for name, model in zip("ab", models, strict=True):
        run = create_run(tmp_path / "runs", RunInfo(id=name, job="script"), "job: script\n", {})

        def write(directory, model=model):
            if kind == "session":
                surface = TorchSurface(gathered(model, torch.optim.Adam(model.parameters())))
                surface.save(directory)
            else:  # Hugging Face's Trainer, of a module that is none of Transformers
                save_file(model.state_dict(), directory / "model.safetensors")

        CheckpointStore(run.checkpoints).save(10, write)
    merged, _ = run_merge(tmp_path, models=["run:a@10", "run:b@10"])
    fresh = network(5)
    fresh.load_state_dict(merged)
    assert torch.allclose(fresh[0].weight, (models[0][0].weight + models[1][0].weight) / 2)


def test_a_base_and_the_way_of_a_run_work_as_with_models(tmp_path):
    models = [network(seed) for seed in range(3)]
    save(tmp_path, "s", *models, whole=True)
    merged, _ = run_merge(tmp_path, models=["run:s@20", "run:s@30"], method=TaskArithmetic(scale=0.5), base="run:s@10")
    expected = 0.5 * (models[1][0].weight + models[2][0].weight)
    assert torch.allclose(merged["0.weight"], expected, atol=1e-6)
    said = {"job": "merge", "method": {"type": "swa", "trajectory": "run:s"}}
    loaded = settled(load_job(said), tmp_path / "runs")
    assert loaded.config.method == Swa(trajectory="run:s", steps=[10, 20, 30])


def test_a_job_with_nothing_open_is_left_as_it_was(tmp_path):
    loaded = load_job({"job": "merge", "models": ["run:s@10", "run:s@20"]})
    assert settled(loaded, tmp_path) is loaded


def test_what_does_not_fit_is_refused_before_the_start_or_with_the_differences(tmp_path):
    save(tmp_path, "s", network(0), network(1), network(2, width=4), whole=True)
    runs = tmp_path / "runs"
    differ = "run:s@10 and {} cannot be merged: the shape of 0.weight is [3, 2] and [4, 2], and 6 more differ"
    two = ["run:s@10", "run:s@20"]
    for said, message in [
        ({"models": ["run:s@10", "run:s@30"]}, differ.format("run:s@30")),
        ({"models": two, "method": TaskArithmetic(), "base": "run:s@30"}, differ.format("the base run:s@30")),
        (
            {"models": two, "method": TaskArithmetic(), "base": "gpt2"},
            "base: gpt2 is no checkpoint with a trainer's own state, as the others are",
        ),
        ({"models": ["run:s@10", "gpt2"]}, "gpt2 is a model, and others are a trainer's own state"),
        ({"models": ["run:s@10", "run:s@11"]}, "there is no checkpoint '11'"),
        (
            {"models": ["run:s@10", "run:s@20"], "method": Fisher(), "task": Echo()},
            "which estimates it on its own data",
        ),
        ({"models": ["run:s@10", "run:s@20"], "method": TaskArithmetic()}, "name it: base=..."),
    ]:
        with pytest.raises(UserError) as caught:
            merge.check(MergeConfig(**said), runs)
        assert message in str(caught.value)


@pytest.mark.parametrize("stem", ["program", "trainer"])
def test_shapes_are_known_by_the_names_under_which_the_weights_are_opened(stem, tmp_path):
    """Of a program with one model they have no prefix, so that they fit those that another trainer has saved."""
    program = create_run(tmp_path / "runs", RunInfo(id="p", job="script"), "job: script\n", {})
    surface = TorchSurface(gathered(network(0), torch.optim.Adam(network(0).parameters())))
    CheckpointStore(program.checkpoints).save(10, surface.save)
    save(tmp_path, "s", network(1), whole=stem != "trainer")
    check = MergeConfig(models=["run:p@10", "run:s@10"])
    merge.check(check, tmp_path / "runs")
    save(tmp_path, "wide", network(1, width=4), whole=stem != "trainer")
    with pytest.raises(
        UserError, match=r"run:p@10 and run:wide@10 cannot be merged: the shape of 0.weight is \[3, 2\]"
    ):
        merge.check(MergeConfig(models=["run:p@10", "run:wide@10"]), tmp_path / "runs")
