"""Which layer wins, and what it says about those it won over."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from sample_configs import REGISTRIES, Job, Words

from clew.config import load, load_tree, plain
from clew.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def load_job(source, *overrides, **kwargs):
    reserved = ("extends", "preset", "job")
    return load(source, root=Job, registries=REGISTRIES, overrides=overrides, reserved=reserved, **kwargs)


LAYERS = ("preset", "base", "file", "environment", "command line")


@pytest.mark.parametrize("said", [c for n in range(6) for c in itertools.combinations(LAYERS, n)])
def test_the_highest_layer_that_speaks_wins_and_shadows_the_others_in_order(said):
    value = {"preset": 0.1, "base": 0.2, "file": 0.3, "environment": 0.4, "command line": 0.5}
    write("base.yaml", f"training:\n  steps: 9\n{'  lr: 0.2' if 'base' in said else ''}\n")
    file = write("a.yaml", f"job: x\nextends: base.yaml\n{'training: {lr: 0.3}' if 'file' in said else ''}\n")
    space = write("clew.yaml", f"environment:\n  x: {'{training: {lr: 0.4}}' if 'environment' in said else ''}\n")
    overrides = ["preset=small"] * ("preset" in said) + ["training.lr=0.5"] * ("command line" in said)
    loaded = load_job(file, *overrides, environment=space)
    entry = loaded.origins["training.lr"]
    expected = [*reversed([value[layer] for layer in said]), 3e-4]
    assert loaded.value.training.lr == expected[0]
    assert [entry.value, *(shadow for shadow, _ in entry.shadowed)] == expected
    places = {
        "preset": ("preset", "preset small"),
        "base": ("file", "base.yaml:3"),
        "file": ("file", "a.yaml:3"),
        "environment": ("environment", "clew.yaml:2"),
        "command line": ("command line", "command line"),
    }
    found = [(o.layer, o.where) for o in (entry.origin, *(origin for _, origin in entry.shadowed))]
    assert found == [*reversed([places[layer] for layer in said]), ("default", "Training")]


def test_several_extended_files_lie_over_each_other_in_their_order():
    write("one.yaml", "seed: 1\ntraining: {steps: 1, warmup: 1}\n")
    write("sub/two.yaml", "extends: three.yaml\nseed: 2\n")
    write("sub/three.yaml", "seed: 3\ntraining: {steps: 3}\n")
    value = load_job(write("a.yaml", "extends: [one.yaml, sub/two.yaml]\n")).value
    assert (value.seed, value.training.steps, value.training.warmup) == (2, 3, 1)


def test_a_circle_of_extends_is_an_error_that_shows_it():
    write("a.yaml", "extends: b.yaml\n")
    write("b.yaml", "\nextends: c.yaml\n")
    write("c.yaml", "extends: b.yaml\n")
    with pytest.raises(ConfigError) as caught:
        load_job(Path("a.yaml"))
    assert str(caught.value) == "c.yaml:1: 'extends' goes in a circle: b.yaml -> c.yaml -> b.yaml"


def test_the_same_file_may_be_extended_by_two_files():
    write("base.yaml", "training: {steps: 1}\n")
    write("b.yaml", "extends: base.yaml\n")
    assert load_job(write("a.yaml", "extends: [b.yaml, base.yaml]\n")).value.training.steps == 1


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("extends: nope.yaml\n", "a.yaml:1: 'extends' names 'nope.yaml', which does not exist"),
        ("extends: [1]\n", "a.yaml:1: 'extends' must be a file or a list of files, not 1"),
        ("preset: smal\n", "a.yaml:1: unknown preset 'smal'\n  did you mean 'small'?"),
    ],
)
def test_layers_that_do_not_exist_are_told(text, error):
    with pytest.raises(ConfigError) as caught:
        load_job(write("a.yaml", text))
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("training.lr", "command line: 'training.lr' is not of the form key=value\n  such as training.lr=1e-4"),
        ("a..b=1", "command line: 'a..b=1' is not of the form key=value\n  such as training.lr=1e-4"),
        ("extends=a.yaml", "command line: 'extends' can only stand in a file"),
        (
            "name=[a",
            "command line: name: not valid YAML: expected ',' or ']', but got '<stream end>'\n"
            "  put quotes around the value: 'name=\"[a\"'",
        ),
        ("mix.1.weight=2", "command line: 'mix.1': the list has 1 items\n  write the whole list: mix=[...]"),
        (
            "training.optimizer.betas.2=1",
            "command line: 'training.optimizer.betas.2': the list has 2 items\n"
            "  write the whole list: training.optimizer.betas=[...]",
        ),
        ("traning.lr=1", "command line: unknown key 'traning'\n  did you mean 'training'?"),
    ],
)
def test_overrides_that_cannot_be_applied_are_told(override, error):
    with pytest.raises(ConfigError) as caught:
        load_job({"training": {"steps": 1}, "mix": [{"path": "x"}]}, override)
    assert str(caught.value) == error


def test_items_of_lists_are_overridden_by_index(folder):
    file = write("sub/a.yaml", "training: {steps: 1}\nmix:\n- path: x\n- path: y\ntask: {type: sums, files: [a, b]}\n")
    loaded = load_job(file, "mix.1.weight=3", "task.files.0=c", "training.optimizer.betas.1=0.5")
    assert [source.weight for source in loaded.value.mix] == [1.0, 3.0]
    assert loaded.value.task.files == [str(folder / "c"), str(folder / "sub/b")]
    assert loaded.value.training.optimizer.betas == (0.9, 0.5)
    assert loaded.origins["task.files.0"].origin.where == "command line"
    assert loaded.origins["task.files.1"].origin.where == "sub/a.yaml:5"
    assert loaded.origins["training.optimizer.betas.0"].origin.where == "AdamW"


def test_null_switches_off_an_optional_section_and_unsets_other_values():
    source = {"training": {"steps": 5, "lr": 0.5, "clip": 3.0}, "validation": {"every": 3}}
    loaded = load_job(source, "validation=null", "training.lr=null", "training.clip=null")
    assert loaded.value.validation is None
    assert loaded.value.training.clip is None
    assert loaded.value.training.lr == 3e-4
    entry = loaded.origins["training.lr"]
    assert entry.origin.layer == "default"
    assert [value for value, _ in entry.shadowed] == [None, 0.5]


def test_a_section_that_names_another_type_replaces_the_lower_one():
    source = {"training": {"steps": 5}, "task": {"type": "sums", "digits": 4}}
    loaded = load_job(source, "task.alphabet=xy", "task.type=words")
    assert loaded.value.task == Words(alphabet="xy")
    assert loaded.origins["task.type"].shadowed[0][0] == "sums"


def test_an_override_of_a_whole_section_is_merged():
    value = load_job({"training": {"steps": 5}}, "training={lr: 1e-2}").value
    assert (value.training.steps, value.training.lr) == (5, 0.01)


def test_an_environment_speaks_to_its_job_only():
    space = write("clew.yaml", "environment:\n  x: {seed: 1}\n  y: {seed: 2}\nother: 3\n")
    source = {"training": {"steps": 5}}
    assert load_job({**source, "job": "y"}, environment=space).value.seed == 2
    assert load_job(source, environment=space, job="x").value.seed == 1
    assert load_job({**source, "job": "y"}, "job=x", environment=space).value.seed == 1
    assert load_job({**source, "job": "z"}, environment=space).value.seed == 0
    assert load_job({**source, "job": "x"}, environment=Path("missing.yaml")).value.seed == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("environment: 3\n", "clew.yaml:1: 'environment' must be a mapping of job names"),
        ("environment:\n  x: 3\n", "clew.yaml:2: 'environment.x' must be a section"),
    ],
)
def test_an_environment_of_the_wrong_form_is_told(text, error):
    with pytest.raises(ConfigError) as caught:
        load_job({"job": "x"}, environment=write("clew.yaml", text))
    assert str(caught.value) == error


def test_paths_are_relative_to_the_file_that_says_them(folder):
    write("lib/base.yaml", "training: {steps: 1}\nmodel: m\nmix: [{path: hf://x/y}]\n")
    file = write("run/a.yaml", "extends: ../lib/base.yaml\ntask: {type: sums, files: [../data]}\n")
    value = load_job(file).value
    assert value.model == str(folder / "lib/m")
    assert value.task.files == [str(folder / "data")]
    assert value.mix[0].path == "hf://x/y"
    assert load_job(file, "model=m").value.model == str(folder / "m")


def test_the_root_class_is_picked_from_the_merged_words():
    def pick(words):
        if words.get("job") != "x":
            raise ConfigError(f"unknown job {words.get('job')!r}")
        return Job

    file = write("a.yaml", "job: y\ntraining: {steps: 1}\n")
    assert load(file, root=pick, overrides=["job=x"], reserved=("job",)).value.training.steps == 1
    with pytest.raises(ConfigError, match=r"^a\.yaml: unknown job 'y'$"):
        load(file, root=pick)


def test_a_tree_keeps_references_and_unknown_keys_until_it_is_hydrated():
    tree = load_tree(write("a.yaml", "stages:\n  sft: {model: '${stages.pre.model}', odd: 1}\n"), overrides=["n=1"])
    assert plain(tree) == {"stages": {"sft": {"model": "${stages.pre.model}", "odd": 1}}, "n": 1}


def test_a_merged_tree_loads_like_its_file_with_the_same_origins():
    file = write("a.yaml", "preset: small\ntraining: {lr: 1e-3}\nmodel: m\n")
    once, twice = load_job(file, "seed=3"), load_job(load_tree(file, overrides=["seed=3"]))
    assert twice.value == once.value
    assert dict(twice.origins) == dict(once.origins)
