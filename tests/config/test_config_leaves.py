"""Every leaf of every shipped schema: one origin, an override that round-trips, an error that says what is allowed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field
from shipped import SHIPPED, leaf_fields, load_plain, plain_config

from clew.config import InputPath, PathOrName, Spelled, config, leaves, load, section_of, template
from clew.config.layers import from_layer
from clew.config.leaf import type_text
from clew.config.template import example
from clew.config.tree import Origin
from clew.errors import ConfigError
from clew.jobs import load_job, resolve_job
from clew.jobs.loading import RESERVED, registries


def leaf_annotations(value: Any) -> Iterator[tuple[str, Any]]:
    """Every leaf of a config that can be reached by a dotted key, with its annotation."""
    return ((key, spec.annotation) for key, spec, _ in leaf_fields(value))


@pytest.mark.parametrize(("job", "task"), SHIPPED)
def test_every_leaf_has_exactly_one_origin(job, task):
    loaded = load_plain(job, plain_config(job, task))
    written = [key for key, _ in leaves(section_of(loaded.plain, Origin("file", "x")))]
    none = {key for key, _ in leaf_annotations(loaded.value)} - set(written)
    assert sorted(loaded.origins) == sorted([*written, *none])
    assert {entry.origin.layer for entry in loaded.origins.values()} == {"default", "file"}


@pytest.mark.parametrize(("job", "task"), SHIPPED)
def test_an_override_of_every_leaf_round_trips(job, task):
    """Every value goes out as JSON and comes back from the command line, over the file and the default."""
    before = load_plain(job, plain_config(job, task))
    values = {key: before.origins[key].value for key, _ in leaf_annotations(before.value)}
    after = load_plain(job, plain_config(job, task), *(f"{key}={json.dumps(value)}" for key, value in values.items()))
    assert after.value == before.value
    for key, value in values.items():
        entry = after.origins[key]
        assert (entry.value, entry.origin.layer, entry.shadowed[-1][0]) == (value, "command line", value), key
    again = load_plain(job, {"job": job, **after.plain})
    assert (again.value, again.plain) == (after.value, after.plain)


@pytest.mark.parametrize(("job", "task"), SHIPPED)
def test_a_wrong_value_of_every_leaf_names_the_key_the_place_and_the_type(job, task):
    annotations = dict(leaf_annotations(load_job(plain_config(job, task)).config))
    # The parameters of a script may be anything that has names.
    wrong = {key: kind for key, kind in annotations.items() if not key.endswith("type") and key != "params"}
    with pytest.raises(ConfigError) as caught:
        load_plain(job, plain_config(job, task), *(f"{key}={{odd: [1]}}" for key in wrong))
    lines = str(caught.value).splitlines()[1:]
    for key, annotation in wrong.items():
        start = f"  command line: '{key}' must be {type_text(annotation)}, not {{\"odd\": "
        assert any(line.startswith(start) for line in lines), key


@pytest.mark.parametrize("value", ["{odd: 1}", "[1]", "3"])
def test_a_type_that_is_no_word_is_told(value):
    with pytest.raises(ConfigError, match=r"^command line: unknown type .* of 'tokenizer'"):
        load_plain("pretrain", plain_config("pretrain", "arithmetic"), f"tokenizer.type={value}")
    with pytest.raises(ConfigError, match=r"^command line: the type of 'task' must be a word, not "):
        load_plain("pretrain", plain_config("pretrain", "arithmetic"), f"task.type={value}")


@pytest.mark.parametrize(("job", "task"), SHIPPED)
def test_a_wrong_key_beside_every_leaf_is_told(job, task):
    sections = {key.rpartition(".")[0] for key, _ in leaf_annotations(load_job(plain_config(job, task)).config)}
    for section in sections:
        key = f"{section}.sedd".lstrip(".")
        with pytest.raises(ConfigError, match=rf"^command line: unknown key '{key}'\n  (did you mean|known:) "):
            load_plain(job, plain_config(job, task), f"{key}=1")


@pytest.mark.parametrize(("job", "task"), SHIPPED)
def test_the_template_of_every_shipped_job_loads(job, task, tmp_path):
    cls = resolve_job(job).config
    (tmp_path / "a.yaml").write_text(
        template(cls, head={"job": job, **({"task": {"type": task}} if task else {})}, registries=registries())
    )
    assert load_plain(job, tmp_path / "a.yaml").value.seed == 0


# Precedence over all layers, for every subset of them and every kind of value.


@config
class Inner:
    """A section."""

    depth: int = 0
    """A number."""


@config
class All:
    """One of each kind of value."""

    number: float = 0.0
    """A number."""
    word: str = "default"
    """A word."""
    maybe: int | None = None
    """A number, or nothing."""
    items: list[int] = Field(default_factory=lambda: [0, 0])
    """Numbers."""
    inner: Inner = Inner()
    """A section."""

    presets: ClassVar[dict[str, Any]] = {
        "p": {"number": 2.0, "word": "w2", "maybe": 2, "items": [2, 2], "inner": {"depth": 2}}
    }


LAYERS = ("from", "preset", "base", "file", "environment", "command line")
KINDS: dict[str, Any] = {
    "number": lambda n: float(n),
    "word": lambda n: f"w{n}",
    "maybe": lambda n: n,
    "items": lambda n: [n, n],
    "inner.depth": lambda n: n,
}


def values_of(layer: str) -> dict[str, Any]:
    """What a layer says: values made of the layer's number."""
    made: dict[str, Any] = {key: value(LAYERS.index(layer) + 1) for key, value in KINDS.items() if "." not in key}
    return {**made, "inner": {"depth": LAYERS.index(layer) + 1}}


@pytest.mark.parametrize("names", [c for n in range(7) for c in itertools.combinations(LAYERS, n)])
def test_the_highest_layer_wins_whatever_else_speaks(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = {layer: values_of(layer) if layer in names else {} for layer in LAYERS}
    Path("base.yaml").write_text(json.dumps(said["base"]))
    Path("a.yaml").write_text(json.dumps({"job": "x", "extends": "base.yaml", **said["file"]}))
    Path("clew.yaml").write_text(json.dumps({"environment": {"x": said["environment"]}}))
    overrides = ["preset=p"] * ("preset" in names)
    if "command line" in names:
        overrides += [f"{key}={json.dumps(value(6))}" for key, value in KINDS.items()]
    below = from_layer(section_of(said["from"], Origin("file", "old.yaml:1")), {}) if "from" in names else None
    options: dict[str, Any] = {"environment": Path("clew.yaml"), "below": below, "reserved": RESERVED}
    loaded = load(Path("a.yaml"), root=All, overrides=overrides, **options)
    defaults = {"number": 0.0, "word": "default", "maybe": None, "items": [0, 0], "inner.depth": 0}
    for key, value in KINDS.items():
        entry = loaded.origins[key]
        expected = [value(LAYERS.index(layer) + 1) for layer in reversed(names)]
        assert [entry.value, *(value for value, _ in entry.shadowed)] == [*expected, defaults[key]]
        layers = [origin.layer for origin in (entry.origin, *(origin for _, origin in entry.shadowed))]
        assert layers == [*("file" if layer == "base" else layer for layer in reversed(names)), "default"]


@pytest.mark.parametrize("null_at", LAYERS[2:])
def test_null_cuts_off_everything_below_it(null_at, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = {layer: "number: null\n" if layer == null_at else "" for layer in LAYERS}
    Path("base.yaml").write_text(text["base"])
    Path("a.yaml").write_text(f"job: x\nextends: base.yaml\npreset: p\n{text['file']}")
    Path("clew.yaml").write_text(f"environment:\n  x:\n    {text['environment']}\n")
    below = from_layer(section_of({"number": 1.0}, Origin("file", "old.yaml:1")), {})
    overrides = ["number=null"] * (null_at == "command line")
    options: dict[str, Any] = {"environment": Path("clew.yaml"), "below": below, "reserved": RESERVED}
    loaded = load(Path("a.yaml"), root=All, overrides=overrides, **options)
    assert loaded.value.number == 0.0
    assert [value for value, _ in loaded.origins["number"].shadowed] == [None, 2.0, 1.0]


# Types in words, and examples.


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (InputPath, "path"),
        (PathOrName | None, "path | null"),
        (list[InputPath], "list[path]"),
        (list[InputPath] | None, "list[path] | null"),
        (tuple[InputPath, ...], "list[path]"),
        (dict[str, InputPath], "mapping[path]"),
        (list[str], "list[str]"),
        (dict[str, list[InputPath]], "mapping[list[path]]"),
        (Annotated[str, Field(min_length=1)], "str of at least 1 character"),
        (Annotated[str, Field(min_length=2, max_length=5)], "str of at least 2 characters, of at most 5 characters"),
        (Annotated[list[int], Field(min_length=1)], "list[int] of at least 1 item"),
        (Annotated[InputPath, Field(min_length=1)] | None, "path of at least 1 character | null"),
        (Annotated[str, Spelled("^[a-z]+$", "made of a to z")], "str made of a to z"),
        (Annotated[str, Spelled("^[a-z]+$", "made of a to z")] | None, "str made of a to z | null"),
        (Annotated[str, Field(pattern="^[a-z]+$")], "str matching ^[a-z]+$"),
        (tuple[int, float], "list[int, float]"),
        (Literal["a", 1], "a | 1"),
    ],
)
def test_types_are_said_in_words(annotation, text):
    assert str(type_text(annotation)) == text


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "change-me"),
        (Annotated[str, Field(pattern=r"^[a-z]+$")], "changeme"),
        (Annotated[str, Field(pattern=r"^[A-Z]{1}[a-z]+[A-Z][a-z]$")], "ChangeMe"),
        (Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")], "2000-01-01"),
        (Annotated[str, Field(pattern=r"^[A-Z_]+$")], "CHANGE_ME"),
        (Annotated[str, Field(pattern="^[ab]$", max_length=1)], "a"),
        (Annotated[str, Field(min_length=12)], "xxxxxxxxxxxx"),
        (Annotated[str, Field(max_length=3, pattern="^[a-z]+$")], "cha"),
        (Annotated[str, Field(pattern="^q7$", examples=["q7"])], "q7"),
        (Annotated[str, Field(pattern="^qqq$")], "change-me"),
        (Annotated[list[int], Field(min_length=2)], [1, 1]),
        (tuple[int, str], [1, "change-me"]),
        (Annotated[int, Field(ge=3)] | None, 3),
        (bool, False),
        (dict[str, int], {}),
        (Literal["x", "y"], "x"),
    ],
)
def test_a_required_key_of_a_template_holds_a_value_that_fits(annotation, value):
    assert example(annotation) == value
