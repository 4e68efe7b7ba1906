"""From words to a typed config: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_configs import REGISTRIES, AdamW, Base, Job, Muon, NamesAModel, Sums, Training, Validation, Words

from clew.config import Plugin, config, hydrate, load, replace_leaves, section_of, subtree
from clew.config.describe import known_keys
from clew.config.source import read_text
from clew.config.tree import Origin
from clew.errors import ConfigError, UserError

MINIMAL = {"training": {"steps": 5}}


def load_text(text: str, cls: type = Job):
    return hydrate(read_text(text, Origin("file", "a.yaml")), cls, REGISTRIES)[0]


def error_of(text: str, cls: type = Job) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(text, cls)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("  lrr: 1", "a.yaml:3: unknown key 'training.lrr'\n  did you mean 'training.lr'?"),
        ("lr: 1", "a.yaml:3: unknown key 'lr'\n  did you mean 'training.lr'?"),
        ("betas: 1", "a.yaml:3: unknown key 'betas'\n  did you mean 'training.optimizer.betas'?"),
        ("evry: 1", "a.yaml:3: unknown key 'evry'\n  did you mean 'parts.*.every'?"),
        ("  lr: abc", "a.yaml:3: 'training.lr' must be float > 0, not 'abc'"),
        ("  lr: '1'", "a.yaml:3: 'training.lr' must be float > 0, not '1'"),
        ("  lr: -1", "a.yaml:3: 'training.lr' must be float > 0, not -1"),
        ("  lr: .inf", "a.yaml:3: 'training.lr' must be float > 0, not Infinity\n  a number is finite"),
        ("  lr: 1e400", "a.yaml:3: 'training.lr' must be float > 0, not Infinity\n  a number is finite"),
        ("  lr: {a: 1}", "a.yaml:3: 'training.lr' must be float > 0, not {\"a\": 1}"),
        ("  clip: x", "a.yaml:3: 'training.clip' must be float > 0 | null, not 'x'"),
        ("seed: 1e1", "a.yaml:3: 'seed' must be int >= 0, not 10.0\n  write 10"),
        ("seed: true", "a.yaml:3: 'seed' must be int >= 0, not true"),
        ("name: A", "a.yaml:3: 'name' must be str made of small letters, digits and '-', not 'A'"),
        ("name: 1", "a.yaml:3: 'name' must be str made of small letters, digits and '-', not 1"),
        ("dry: yes", "a.yaml:3: 'dry' must be bool, not 'yes'\n  write true or false"),
        (
            "  schedule: cosin",
            "a.yaml:3: 'training.schedule' must be wsd | cosine | constant, not 'cosin'\n  did you mean 'cosine'?",
        ),
        ("weights: {a: x}", 'a.yaml:3: \'weights\' must be mapping[float], not {"a": "x"}'),
        ("validation: 3", "a.yaml:3: 'validation' must be a section, not 3"),
        ("task: sums", "a.yaml:3: 'task' must be a section, not 'sums'\n  write task.type: sums"),
        ("task: {type: sumz}", "a.yaml:3: unknown task 'sumz'\n  did you mean 'sums'?"),
        ("task: {type: 3}", "a.yaml:3: the type of 'task' must be a word, not 3"),
        ("task: {digit: 3}", "a.yaml:3: unknown key 'task.digit'\n  did you mean 'task.digits'?"),
        ("  optimizer: {type: muo}", "a.yaml:3: unknown type 'muo' of 'training.optimizer'\n  did you mean 'muon'?"),
        (
            "  optimizer: {type: muon, betas: [1, 2]}",
            "a.yaml:3: unknown key 'training.optimizer.betas'\n  known: training.optimizer.momentum, "
            "training.optimizer.type",
        ),
        ("mix: 3", "a.yaml:3: 'mix' must be a list of sections, not 3"),
        ("mix: [3]", "a.yaml:3: 'mix.0' must be a section, not 3"),
        ("mix: [{}]", "a.yaml:3: 'mix.0.path' is required (path)\n  Its file."),
        ("parts: 3", "a.yaml:3: 'parts' must be a mapping of sections, not 3"),
        ("parts: {a: {every: 0}}", "a.yaml:3: 'parts.a.every' must be int >= 1, not 0"),
        ("  warmup: 9", "a.yaml:1: 'training': warmup and steps: 9 steps of warmup do not fit into 5"),
    ],
)
def test_one_problem_is_told_with_its_place_and_a_hint(text, error):
    assert error_of(f"training:\n  steps: 5\n{text}\n") == error


def test_all_problems_are_told_together():
    text = "lr: 3\ntraining:\n  steps: 0\n  schedule: wsb\ntask: {type: sumz}\nmix:\n- {weight: 0}\n"
    assert error_of(text) == (
        "6 problems in the config:\n"
        "  a.yaml:1: unknown key 'lr'; did you mean 'training.lr'?\n"
        "  a.yaml:3: 'training.steps' must be int >= 1, not 0\n"
        "  a.yaml:4: 'training.schedule' must be wsd | cosine | constant, not 'wsb'; did you mean 'wsd'?\n"
        "  a.yaml:5: unknown task 'sumz'; did you mean 'sums'?\n"
        "  a.yaml:7: 'mix.0.path' is required (path); Its file.\n"
        "  a.yaml:7: 'mix.0.weight' must be float > 0, not 0"
    )


def test_a_long_value_is_shown_short():
    assert error_of(f"training:\n  steps: {'x' * 99}\n").endswith(f"not '{'x' * 56}...")


def test_a_missing_key_is_told_where_its_section_stands():
    assert error_of("seed: 1\n") == "a.yaml: 'training.steps' is required (int >= 1)\n  Optimizer steps."
    assert error_of("\ntraining:\n  lr: 1\n") == "a.yaml:2: 'training.steps' is required (int >= 1)\n  Optimizer steps."


def test_a_prefix_stands_before_keys_in_errors():
    tree = subtree(
        read_text("stages:\n  sft:\n    lr: 1\n    training: {steps: 1}\n", Origin("file", "p.yaml")), "stages.sft"
    )
    with pytest.raises(ConfigError, match=r"^p.yaml:3: unknown key 'stages.sft.lr'"):
        hydrate(tree, Job, {}, prefix="stages.sft")


def test_unions_and_defaults_of_a_section():
    assert load_text("training: {steps: 1}").training.optimizer == AdamW()
    assert load_text("training: {steps: 1, optimizer: {betas: [0, 1]}}").training.optimizer.betas == (0.0, 1.0)
    muon = load_text("training: {steps: 1, optimizer: {type: muon, momentum: 0}}").training.optimizer
    assert muon == Muon(momentum=0.0)


@config
class Special:
    """A class whose defaults differ from those of its parts."""

    training: Training = Training(steps=3, lr=0.5)
    """Another default."""
    either: AdamW | Muon | None = None
    """Without a default class."""
    more: tuple[Validation, ...] = (Validation(every=4), Validation())
    """Two sections."""
    must: Annotated[Sums, Plugin("task")] | None = None
    """A plug-in of one family."""


def test_the_default_of_the_outer_class_fills_a_partial_section():
    loaded = load({"training": {"warmup": 1}}, root=Special)
    assert loaded.value.training == Training(steps=3, lr=0.5, warmup=1)
    assert loaded.origins["training.lr"].origin.where == "Special"
    assert loaded.origins["training.clip"].origin.where == "Training"


def test_a_default_list_of_sections_is_overridden_by_index():
    loaded = load({}, root=Special, overrides=["more.1.every=7"])
    assert loaded.value.more == (Validation(every=4), Validation(every=7))
    assert loaded.origins["more.0.every"].origin.layer == "default"


def test_a_union_without_a_default_needs_a_type():
    assert (
        error_of("either: {momentum: 0}", Special) == "a.yaml:1: 'either' needs the key 'type'\n  one of: adamw, muon"
    )
    assert error_of("must: {}", Special) == "a.yaml:1: 'must' needs the key 'type'\n  one of: sums, words"
    assert error_of("must: {type: words}", Special) == "a.yaml:1: 'words' is not a Sums\n  derive it from Sums"


@config
class Strict:
    """Rules in several forms."""

    even: Annotated[int, pydantic.AfterValidator(lambda value: _even(value))] = 0
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.high == 99:
            raise UserError("high is too high", hint="take 98")
        if self.low > self.high:
            raise ValueError(f"low and high: {self.low} is above {self.high}")


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


def test_rules_that_a_class_states_are_told():
    assert error_of("even: 3", Strict) == "a.yaml:1: 'even': must be even"
    assert error_of("low: 3", Strict) == "a.yaml: low and high: 3 is above 1"
    assert error_of("high: 99", Strict) == "a.yaml: high is too high\n  take 98"


def test_a_class_without_the_decorator_is_refused():
    class Plain(Base):
        extra: int = 1

    with pytest.raises(TypeError, match="Plain is not decorated with @config"):
        hydrate(section_of({}, Origin("file", "x")), Plain, {})


def test_configs_are_frozen_keyword_only_and_refuse_unknown_keys():
    base = Base(seed=1)
    with pytest.raises(AttributeError):
        base.seed = 2
    with pytest.raises(pydantic.ValidationError):
        Base(sead=1)
    with pytest.raises(pydantic.ValidationError):
        Base("x")
    with pytest.raises(pydantic.ValidationError):
        Base(seed=-1)


def test_a_config_inside_a_mapping_is_refused_since_its_class_would_be_lost():
    with pytest.raises(TypeError, match="a Words stands in a mapping of plain values"):
        load({"training": {"steps": 3}, "task": Words()}, root=Job, registries=REGISTRIES)


def test_leaves_are_replaced_with_their_origins_kept():
    tree = read_text(
        "model: ${a}\ntask: {type: sums, files: ['${b}', c]}\ntraining: {steps: 1}", Origin("file", "a", Path("/x"))
    )
    seen = []

    def fn(value, key, origin):
        seen.append((key, origin.where))
        return {"${a}": "/m", "${b}": "/n"}.get(value, value)

    value, origins = hydrate(replace_leaves(tree, fn), Job, REGISTRIES)
    assert (value.model, value.task.files) == ("/m", ["/n", "/x/c"])
    assert origins["model"].origin.where == "a:1"
    assert ("task.files.1", "a:2") in seen


@given(st.text("abcdefgh_", min_size=1, max_size=8), st.sampled_from(["", "training.", "task.", "training.optimizer."]))
def test_an_unknown_key_is_never_dropped(name, prefix):
    if prefix + name in {*known_keys(Job), "task.digits", "task.files"}:
        return
    with pytest.raises(ConfigError) as caught:
        load(MINIMAL, root=Job, registries=REGISTRIES, overrides=[f"{prefix}{name}=1"])
    assert str(caught.value).startswith(f"command line: unknown key '{prefix}{name}'")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("owner/model", "owner/model"),
        ("run:first-try@best", "run:first-try@best"),
        ("weights", "{base}/weights"),
        ("./missing", "{base}/missing"),
        ("/srv/model", "/srv/model"),
        ("${base.artifacts.model}", "${base.artifacts.model}"),
    ],
)
def test_a_path_or_name_is_a_path_only_where_it_looks_or_exists_as_one(tmp_path, said, expected):
    (tmp_path / "weights").mkdir()
    (tmp_path / "c.yaml").write_text(f"model: '{said}'\n")
    value = load(tmp_path / "c.yaml", root=NamesAModel).value
    assert value.model == expected.replace("{base}", str(tmp_path))
