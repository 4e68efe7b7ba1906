"""A sweep becomes a pipeline with a stage for each choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from clew.cli.main import main
from clew.config import explain
from clew.errors import ClewError, ConfigError
from clew.jobs import LoadedJob, load_job
from clew.plans import Pipeline
from clew.runs import Workspace
from clew.sources import check, read, resolved

JOB = '''
"""A job without a model."""
from typing import ClassVar, Literal
import clew

@clew.config
class Pace:
    """How fast."""
    lr: float = 1.0
    """The rate."""
    mode: Literal["a", "b"] = "a"
    """The mode."""

@clew.config
class CountConfig(clew.JobConfig):
    """Counting."""
    presets: ClassVar = {"far": {"to": 1000}, "near": {"to": 1}}
    to: int
    """How far."""
    pace: Pace = Pace()
    """How fast."""
    other: Pace = Pace()
    """How fast otherwise."""
    sizes: tuple[int, ...] = ()
    """Some numbers."""

@clew.job
def count(session: clew.Session[CountConfig]) -> clew.Outcome:
    """Count."""
    for step in range(1, session.config.to + 1):
        session.log(step, loss=session.config.pace.lr / step)
    return clew.Outcome(metrics={"loss": session.config.pace.lr})
'''


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    Path("jobs.py").write_text(JOB)
    return Workspace(tmp_path)


def sweep(space: Workspace, text: str, *overrides: str, to: str = "to: 3", **options: str) -> Pipeline:
    Path("tries.yaml").write_text(f"job: jobs.py:count\n{to}\n{text}")
    work = read("tries.yaml", overrides, workspace=space, **options)
    assert isinstance(work, Pipeline)
    return work


def configs(pipeline: Pipeline) -> dict[str, object]:
    return {name: load_job(stage.tree).config for name, stage in pipeline.stages.items()}


def test_a_grid_makes_every_combination(space):
    work = sweep(space, "sweep:\n  grid: {pace.lr: [0.1, 1e-5], seed: [0, 1]}\n  max_parallel: 2\n")
    assert (work.name, work.max_parallel) == ("tries", 2)
    found = {name: (c.pace.lr, c.seed, c.to) for name, c in configs(work).items()}  # type: ignore[attr-defined]
    assert found == {
        "lr-0.1-seed-0": (0.1, 0, 3),
        "lr-0.1-seed-1": (0.1, 1, 3),
        "lr-1e-05-seed-0": (1e-5, 0, 3),
        "lr-1e-05-seed-1": (1e-5, 1, 3),
    }


def test_a_list_makes_its_choices(space):
    work = sweep(space, "sweep:\n  list:\n  - {seed: 4, pace: {mode: b}}\n  - pace.lr: 7\n")
    found = {name: (c.pace.lr, c.pace.mode, c.seed) for name, c in configs(work).items()}  # type: ignore[attr-defined]
    assert found == {"seed-4-mode-b": (1.0, "b", 4), "lr-7": (7.0, "a", 0)}


def test_keys_of_one_name_are_told_apart(space):
    work = sweep(space, "sweep: {grid: {pace.lr: [1], other.lr: [2, 3]}}\n")
    assert list(work.stages) == ["pace-lr-1-other-lr-2", "pace-lr-1-other-lr-3"]


def test_lists_sections_words_and_presets_can_be_swept(space):
    work = sweep(space, "sweep: {grid: {sizes: [[1, 2], []], pace: [{lr: 1}, {mode: b}]}}\n")
    assert list(work.stages) == ["sizes-1-2-lr-1", "sizes-1-2-mode-b", "sizes-empty-lr-1", "sizes-empty-mode-b"]
    assert [c.sizes for c in configs(work).values()] == [(1, 2), (1, 2), (), ()]  # type: ignore[attr-defined]
    work = sweep(space, "sweep: {grid: {preset: [far, near]}}\n", to="")
    assert {name: c.to for name, c in configs(work).items()} == {  # type: ignore[attr-defined]
        "preset-far": 1000,
        "preset-near": 1,
    }


def test_a_required_key_may_be_swept(space):
    work = sweep(space, "sweep: {grid: {to: [1, 2]}}\n", to="")
    assert [c.to for c in configs(work).values()] == [1, 2]  # type: ignore[attr-defined]


def test_the_origin_of_a_swept_value_is_its_line_in_the_sweep(space):
    work = sweep(space, "sweep:\n  grid:\n    pace.lr: [0.1]\n")
    text = explain(load_job(work.stages["lr-0.1"].tree).loaded, "pace.lr")
    assert text.startswith("pace.lr = 0.1\n  sweep    tries.yaml:5  0.1\n  default  Pace          1.0  shadowed\n")


def test_the_environment_lies_below_what_is_swept(space):
    Path("clew.yaml").write_text("environment:\n  jobs.py:count: {pace: {lr: 5, mode: b}}\n")
    work = sweep(space, "sweep: {grid: {pace.lr: [0.1, 0.2]}}\n")
    assert [(c.pace.lr, c.pace.mode) for c in configs(work).values()] == [  # type: ignore[attr-defined]
        (0.1, "b"),
        (0.2, "b"),
    ]


def test_the_command_line_may_change_the_sweep_and_other_values(space):
    text = "sweep: {grid: {pace.lr: [0.1, 0.2]}}\n"
    work = sweep(space, text, "sweep.grid.pace.lr=[3]", "to=9", "sweep.max_parallel=4")
    assert (list(work.stages), work.max_parallel) == (["lr-3"], 4)
    assert [c.to for c in configs(work).values()] == [9]  # type: ignore[attr-defined]
    work = sweep(space, "", "sweep.grid.seed=[1,2]")
    assert list(work.stages) == ["seed-1", "seed-2"]


def test_names_come_from_the_option_the_config_or_the_file(space):
    text = "sweep: {grid: {seed: [1, 2]}}\n"
    assert sweep(space, text, name="mine").name == "mine"
    assert sweep(space, f"name: ours\n{text}").name == "ours"
    assert all(c.name == "" for c in configs(sweep(space, f"name: ours\n{text}")).values())  # type: ignore[attr-defined]
    said = {"job": f"{space.root}/jobs.py:count", "to": 1, "sweep": {"grid": {"seed": [1]}}}
    assert read(said, workspace=space).name == "sweep"  # type: ignore[union-attr]


def test_a_sweep_may_lie_above_another_config(space):
    Path("old.yaml").write_text("job: jobs.py:count\nto: 50\npace: {lr: 9, mode: b}\nsweep: {grid: {seed: [7]}}\n")
    work = sweep(space, "sweep: {grid: {seed: [1, 2]}}\n", to="", below="old.yaml")
    found = [(c.to, c.pace.mode, c.seed) for c in configs(work).values()]  # type: ignore[attr-defined]
    assert found == [(50, "b", 1), (50, "b", 2)]


def test_a_preset_of_a_sweep_lies_above_another_config(space):
    Path("old.yaml").write_text("job: jobs.py:count\nto: 50\n")
    Path("tries.yaml").write_text("job: jobs.py:count\npreset: far\nsweep: {grid: {seed: [1]}}\n")
    work = read("tries.yaml", workspace=space, below="old.yaml")
    assert isinstance(work, Pipeline)
    assert [c.to for c in configs(work).values()] == [1000]  # type: ignore[attr-defined]
    Path("tries.yaml").write_text("job: jobs.py:count\nsweep: {grid: {preset: [far]}}\n")
    with pytest.raises(ConfigError, match=r"^tries\.yaml:2: 'preset' cannot be swept above the config of --from$"):
        read("tries.yaml", workspace=space, below="old.yaml")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("sweep: 3\n", "tries.yaml:3: 'sweep' must be a section, not 3\n  such as grid: {training.lr: [1e-3, 1e-4]}"),
        ("sweep: {gird: {seed: [1]}}\n", "tries.yaml:3: unknown key 'sweep.gird'\n  did you mean 'grid'?"),
        (
            "sweep: {max_parallel: 2}\n",
            "tries.yaml:3: 'sweep' needs either 'grid' or 'list'\n  such as grid: {training.lr: [1e-3, 1e-4]}",
        ),
        ("sweep: {grid: {seed: 1}}\n", "tries.yaml:3: 'sweep.grid.seed' must be a list of values, not 1"),
        ("sweep: {grid: {seed: []}}\n", "tries.yaml:3: 'sweep.grid.seed' must be a list of values, not []"),
        (
            "sweep: {grid: {}}\n",
            "tries.yaml:3: 'sweep.grid' must say key: [values]\n  such as grid: {training.lr: [1e-3, 1e-4]}",
        ),
        (
            "sweep: {list: [1, 2]}\n",
            "tries.yaml:3: 'sweep.list' must be a list of `key: value` mappings, not [1, 2]\n"
            "  such as list: [{seed: 1, training.lr: 1e-3}]",
        ),
        (
            "sweep: {list: [{seed: 1}, {}]}\n",
            "tries.yaml:3: an item of 'sweep.list' must be a `key: value` mapping, not {}",
        ),
        ("sweep: {list: [{seed: 1}, {seed: 1}]}\n", 'tries.yaml:3: the sweep holds a choice twice: {"seed": 1}'),
        (
            "sweep:\n  grid:\n    pace.lr: [1]\n    pace: {lr: [2]}\n",
            "tries.yaml:6: the key 'pace.lr' stands twice, first at tries.yaml:5",
        ),
        (
            "sweep:\n  grid:\n    pace.lrr: [1, 2, 3]\n",
            "tries.yaml:5: unknown key 'pace.lrr'\n  did you mean 'pace.lr'?",
        ),
        (
            "sweep:\n  grid:\n    seeds: [1, 2]\n    pace.mode: [a, c]\n",
            "tries: 2 problems in the sweep:\n"
            "  tries.yaml:5: unknown key 'seeds'; did you mean 'seed'?\n"
            "  tries.yaml:6: 'pace.mode' must be a | b, not 'c'; known: a, b",
        ),
        (
            "sweep:\n  grid: {seeds: [1]}\n  max_parallel: 0\n",
            "tries: 2 problems in the pipeline:\n"
            "  tries.yaml:5: 'max_parallel' must be int >= 1, not 0\n"
            "  tries.yaml:4: unknown key 'seeds'; did you mean 'seed'?",
        ),
        (
            "sweep: {grid: {seed: [1]}, max_parallel: 0}\n",
            "tries.yaml:3: 'max_parallel' must be int >= 1, not 0",
        ),
    ],
)
def test_sweeps_that_make_no_sense_are_told(space, text, error):
    with pytest.raises(ClewError) as caught:
        sweep(space, text)
    assert str(caught.value) == error


def test_a_swept_key_that_the_command_line_sets_is_told(space):
    with pytest.raises(ConfigError) as caught:
        sweep(space, "sweep: {grid: {pace.lr: [1, 2]}}\n", "pace.lr=3")
    assert str(caught.value) == (
        "tries.yaml:3: 'pace.lr' is swept, and the command line sets it\n"
        "  leave that out, or say there what to sweep, such as sweep.grid.KEY=[...]"
    )


def test_check_lists_the_runs_of_a_sweep(space, capsys):
    work = sweep(space, "sweep: {grid: {pace.lr: [0.1, 0.2]}}\n")
    assert all(isinstance(job, LoadedJob) for job in check(work, workspace=space).values())
    assert main(["check", "tries.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok: pipeline tries, 2 stages, 1 at a time"
    assert [line.partition(":")[0] for line in lines[1:]] == ["  lr-0.1", "  lr-0.2"]
    assert main(["explain", "tries.yaml", "stages.lr-0.1.pace.lr"]) == 0
    assert capsys.readouterr().out.startswith("pace.lr = 0.1\n")


def test_a_resolved_sweep_reloads_as_the_pipeline_that_it_became(space):
    work = sweep(space, "sweep: {grid: {pace.lr: [0.1, 0.2]}}\n")
    again = read(resolved(work), workspace=space)
    assert resolved(again) == resolved(work)
    assert configs(again) == configs(work)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_sweep_runs(space, capsys):
    sweep(space, "sweep: {grid: {pace.lr: [0.5, 0.25]}, max_parallel: 2}\n")
    assert main(["run", "tries.yaml"]) == 0
    capsys.readouterr()
    assert main(["diff", "tries.lr-0.5", "tries.lr-0.25"]) == 0
    text = capsys.readouterr().out
    assert "config: 1 of " in text
    assert "metrics.loss  0.5" in text
    assert main(["diff", "tries", "tries.yaml"]) == 0
    assert "config: the same" in capsys.readouterr().out
