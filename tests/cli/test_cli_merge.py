"""``clew merge``: what its words become, and what is refused before anything is sent or made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clew.checkpoints import CheckpointStore
from clew.cli.main import main
from clew.config import load_tree, plain
from clew.runs import Owner, Run, RunInfo, State, create_run


class Nothing:
    """Makes checkpoints of a step and nothing else."""

    def __init__(self, step: int) -> None:
        self.step = step

    def save(self, directory: Path) -> None:
        (directory / "state").write_text(str(self.step))


def make(folder: Path, name: str, *steps: int, config: str = "job: own\n", tag: str = "", live: bool = False) -> Run:
    run = create_run(folder / "runs", RunInfo(id=name, job="own"), config, {})
    store = CheckpointStore(run.checkpoints)
    for step in steps:
        store.save(step, Nothing(step).save, metric=1 / step)
    if tag:
        store.tag(tag, steps[0])
    if live:
        number = run.states.queue()
        for state in (State.STARTING, State.RUNNING):
            run.states.move(state, attempt=number, owner=Owner.current())
    return run


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "a", 10, 20, 30, tag="early")
    make(tmp_path, "b", 5)
    make(tmp_path, "none")
    make(tmp_path, "live", 7, live=True)
    return tmp_path


def sent(project):
    """The arguments of the one command in the live run's inbox."""
    (command,) = Run(project / "runs" / "live").inbox.poll()
    assert command.verb == "merge"
    return command


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["a@10", "b", "."], {"sources": ["a@10", "b@last", "."]}),
        (["run:a@best", "live", "a@early"], {"sources": ["a@best", ".", "a@early"]}),
        (["live@7", ".", "--weights", "1,3"], {"sources": ["live@7", "."], "weights": [1.0, 3.0]}),
        (["a", "--method", "swa"], {"sources": ["a@10", "a@20", "a@30"], "method": {"type": "swa"}}),
        (["a", "--method", "swa", "steps=[10,30]"], {"sources": ["a@10", "a@30"], "method": {"type": "swa"}}),
        (
            [".", "b", "--method", "ties", "density=0.5", "scale=2", "--base", "a@10", "seed=4"],
            {"method": {"type": "ties", "density": 0.5, "scale": 2.0}, "base": "a@10", "seed": 4},
        ),
        ([".", "b", "--optimizer", "keep"], {"optimizer": "keep", "method": {"type": "average"}}),
    ],
)
def test_words_become_the_arguments_of_a_command(words, args, project, capsys):
    assert main(["merge", *words, "--into", "live", "--at", "9"]) == 0
    command = sent(project)
    assert command.at == 9
    assert {"optimizer": "reset", **args}.items() <= {**command.args, "method": _short(command, args)}.items()
    assert capsys.readouterr().out.startswith("live: asked to merge; it goes on with the merged weights from its next")


def _short(command, args):
    """The method as far as the case says it: in the command it has all of its options."""
    said = command.args["method"]
    return {name: said[name] for name in args.get("method", {"type": ""})}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["b", "--into", "live"], "a merge needs at least two models, not 1\n  the live run's own weights are '.'"),
        (["b", ".", "--into", "liv"], "there is no run or pipeline 'liv'\n  did you mean 'live'?"),
        (["b", ".", "--into", "a"], "there is nothing to merge: "),
        (["c", ".", "--into", "live"], "there is no run 'c'"),
        (["none", ".", "--into", "live"], "none: there is no checkpoint 'last'\n  it has saved none yet"),
        (["a@11", ".", "--into", "live"], "a: there is no checkpoint '11'"),
        (["a@erly", ".", "--into", "live"], "there is no checkpoint 'erly'\n  did you mean 'early'?"),
        (["b", ".", "--into", "live", "--method", "tise"], "unknown method 'tise'\n  did you mean 'ties'?"),
        (["b", ".", "--into", "live", "--method", "ties", "densty=1"], "did you mean 'method.density'?"),
        (["b", ".", "--into", "live", "--weights", "1,x"], "--weights must be numbers with commas between them"),
        (["b", ".", "--into", "live", "--weights", "1"], "--weights: 1 weights for 2 models"),
        (["b", ".", "--into", "live", "--weights", "1,-1"], "none may be negative"),
        (["b", ".", "--into", "live", "--base", "a@10"], "this method uses no base\n  leave --base out"),
        (["b", ".", "--into", "live", "--method", "ties", "--base", "a@9"], "there is no checkpoint '9'"),
        (["a", "--into", "live", "--method", "swa", "steps=[10]"], "a merge needs at least two models, not 1"),
        (["b", ".", "--into", "live", "--task", "arithmetic"], "--task is for a new run"),
        (["b", ".", "--into", "live", "--detach"], "--detach is for a new run"),
        (["b", ".", "--into", "live", "dtype=float32"], "dtype=float32 is for a new run"),
        (["b", ".", "--into", "live", "weights=[1,2]"], "weights has a place of its own on this command line"),
        (["a", "b", "--into", "live", "--new", "x"], "not allowed with argument"),
        (["a@10", ".", "--new", "x"], "'.' is a live run's own weights\n  name the run: --into RUN"),
        (["a@10", "aa@3"], "there is no run 'aa'"),
        (["a@10", "run:bb"], "there is no run 'bb'"),
        (["a@10", "livee"], "there is no run 'livee'\n  did you mean 'live'?"),
        (["a@10", "b@5", "--optimizer", "keep"], "--optimizer is for a live run"),
        (["none@best", "b@5"], "none: there is no checkpoint 'best'"),
        (["a@10", "b@5", "--method", "slerp", "t=1"], "unknown key 'method.t'"),
        (["none", "--method", "swa"], "run:none: this run has no checkpoints to average"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_sent_or_made(words, message, project, capsys):
    before = sorted(path.name for path in (project / "runs").iterdir())
    assert main(["merge", *words]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in (project / "runs").iterdir()) == before
    assert not Run(project / "runs" / "live").inbox.poll()


def save_model(folder: Path, width: int) -> None:
    """A checkpoint with a model of a width: its config, and the head of its weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": width}))
    head = {"up.weight": {"dtype": "U8", "shape": [width], "data_offsets": [0, width]}}
    text = json.dumps(head).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(width))


def test_models_that_differ_are_refused_before_there_is_a_run_and_nothing_is_loaded_for_it(project):
    for name, width in (("small", 2), ("large", 3)):
        run = make(project, name)
        store = CheckpointStore(run.checkpoints)
        store.save(10, lambda folder, width=width: save_model(folder / "model", width))
    before = sorted(path.name for path in (project / "runs").iterdir())
    code = (
        "import sys; from clew.cli.main import main; code = main(['merge', 'small', 'large', '--new', 'soup']); "
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "2 False\n"
    assert done.stderr == (
        "clew: run:small@10 and run:large@10 cannot be merged: hidden_size is 2 and 3; "
        "the shape of up.weight is [2] and [3]\n"
    )
    assert sorted(path.name for path in (project / "runs").iterdir()) == before


@pytest.fixture
def submitted(monkeypatch):
    """The job that would be run."""
    found = []
    monkeypatch.setattr("clew.cli.run.submit", lambda work, workspace, *, detach: found.append((work, detach)) or 0)
    return found


def new(submitted, *words):
    assert main(["merge", *words]) == 0
    work, _ = submitted.pop()
    return work


def test_a_new_run_names_the_steps_that_its_words_mean_now(project, submitted):
    (project / "runs" / "b" / "artifacts" / "model").mkdir(parents=True)
    work = new(submitted, "a@best", "a", "a@early", "run:a@20", "b", "--weights", "1,2,3,4,5", "--new", "soup")
    assert work.config.models == ["run:a@30", "run:a@30", "run:a@10", "run:a@20", "run:b"]
    assert (work.config.weights, work.config.name) == ([1, 2, 3, 4, 5], "soup")


def test_options_of_the_method_and_keys_of_the_job_are_told_apart(project, submitted):
    work = new(submitted, "a@10", "b@5", "--method", "ties", "density=0.3", "dtype=bfloat16", "runtime.threads=1",
               "--base", "a@20")  # fmt: skip
    config = work.config
    assert (config.method.density, config.dtype, config.runtime.threads) == (0.3, "bfloat16", 1)
    assert config.base == "run:a@20"


def test_fisher_is_estimated_on_the_task_of_the_first_run_or_on_the_one_that_is_named(project, submitted):
    task = {"type": "arithmetic", "max_operand": 7}
    make(project, "taught", 3, config=json.dumps({"job": "sft", "task": task}))
    work = new(submitted, "a@10", "taught@3", "--method", "fisher", "samples=5")
    assert (work.config.task.max_operand, work.config.method.samples) == (7, 5)
    work = new(submitted, "a@10", "taught@3", "--method", "fisher", "--task", "arithmetic", "task.max_operand=3")
    assert work.config.task.max_operand == 3


def test_the_trajectory_of_a_run_is_settled_when_it_is_asked_for(project, submitted):
    work = new(submitted, "a", "--method", "swa")
    assert (work.config.method.trajectory, work.config.method.steps) == ("run:a", [10, 20, 30])
    assert plain(load_tree(work.plain))["method"]["steps"] == [10, 20, 30]
    few = new(submitted, "a", "--method", "swa", "steps=[10, 30]")
    assert few.config.method.steps == [10, 30]
    before = work.config_hash
    CheckpointStore(Run(project / "runs" / "a").checkpoints).save(40, Nothing(40).save)
    again = new(submitted, "a", "--method", "swa")
    assert again.config.method.steps == [10, 20, 30, 40]
    assert len({before, few.config_hash, again.config_hash}) == 3


def test_the_help_does_not_need_torch(project, capsys):
    assert main(["merge", "--help"]) == 0
    assert "RUN[@STEP]" in capsys.readouterr().out
