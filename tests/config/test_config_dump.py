"""What is written reloads to itself; the hash sees what matters."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_configs import REGISTRIES, AdamW, Job, Muon, Source, Sums, Training, Validation, Words

from clew.config import config_hash, dump, load, section_of, to_yaml
from clew.config.source import read_text
from clew.config.tree import Origin, leaves, plain

numbers = st.floats(min_value=1e-9, max_value=1e9)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
paths = st.text("abc/.", min_size=1, max_size=6).map(lambda text: f"/data/x{text}x".replace("..", "."))
clean = paths.map(lambda text: "/" + "/".join(part for part in text.split("/") if part not in ("", ".", "..")))
trainings = st.builds(
    Training,
    steps=st.integers(100, 10**12),
    lr=numbers,
    warmup=st.integers(0, 100),
    schedule=st.sampled_from(["wsd", "cosine", "constant"]),
    optimizer=st.builds(AdamW, betas=st.tuples(numbers, numbers)) | st.builds(Muon, momentum=st.floats(0, 0.99)),
    clip=st.none() | numbers,
)
jobs = st.builds(
    Job,
    name=st.from_regex(r"[a-z0-9-]{0,6}", fullmatch=True),
    seed=st.integers(0, 2**70),
    training=trainings,
    task=st.builds(Sums, digits=st.integers(1, 9), files=st.lists(clean, max_size=3))
    | st.builds(Words, alphabet=texts),
    validation=st.none() | st.builds(Validation, every=st.integers(1, 9)),
    mix=st.lists(st.builds(Source, path=clean, weight=numbers), max_size=3),
    parts=st.dictionaries(texts, st.builds(Validation, every=st.integers(1, 9)), max_size=3),
    weights=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    model=st.none() | clean,
    dry=st.booleans(),
)


@given(jobs)
def test_a_dumped_config_loads_back_to_itself(job):
    loaded = load(dump(job), root=Job, registries=REGISTRIES)
    assert loaded.value == job
    text = to_yaml(loaded.plain)
    assert plain(read_text(text, Origin("file", "x"))) == loaded.plain
    assert load(loaded.plain, root=Job, registries=REGISTRIES).value == job
    assert config_hash(loaded.value) == config_hash(job)


EXAMPLE = Job(
    training=Training(steps=50),
    validation=Validation(),
    mix=[Source(path="/x"), Source(path="/y")],
    parts={"p": Validation()},
    weights={"w": 1.0},
    model="/m",
)
OTHER = {str: "z", int: 7, bool: True, float: 0.125}


def sample_leaves() -> dict[str, object]:
    source = load(dump(EXAMPLE, REGISTRIES), root=Job, registries=REGISTRIES)
    return {key: entry.value for key, entry in source.origins.items() if not key.endswith("type")}


@pytest.mark.parametrize("key", [*sample_leaves(), "training.optimizer.betas.1"])
def test_every_leaf_can_be_overridden_and_round_trips(key):
    before = {**sample_leaves(), "training.optimizer.betas.1": 0.95}[key]
    special = {"training.schedule": "wsd", "training.optimizer.betas": [0.1, 0.2], "task.files": ["/q"]}
    value = special.get(key, "/z" if isinstance(before, str) and before.startswith("/") else OTHER.get(type(before)))
    loaded = load(dump(EXAMPLE), root=Job, registries=REGISTRIES, overrides=[f"{key}={json.dumps(value)}"])
    assert loaded.origins[key].value == value
    assert loaded.origins[key].origin.layer == "command line"
    assert loaded.origins[key].shadowed[0][0] == before
    assert load(loaded.plain, root=Job, registries=REGISTRIES).value == loaded.value


@given(jobs)
def test_each_leaf_of_a_config_has_exactly_one_origin(job):
    loaded = load({"training": dump(job)["training"]}, root=Job, registries=REGISTRIES)
    written = {key for key, _ in leaves(section_of(loaded.plain, Origin("file", "x")))}
    empty = {"parts", "weights"}
    assert {key for key in loaded.origins if key not in empty} == written


def test_the_hash_ignores_names_and_sees_values():
    one = config_hash(EXAMPLE)
    assert one == config_hash(dataclasses.replace(EXAMPLE, name="other"))
    assert one != config_hash(dataclasses.replace(EXAMPLE, seed=1))
    assert one != config_hash(dataclasses.replace(EXAMPLE, task=Words()))
    assert len(one) == 64


def test_a_path_counts_by_its_content(tmp_path):
    def hash_of(path) -> str:
        return config_hash(dataclasses.replace(EXAMPLE, model=str(path)))

    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    assert hash_of(tmp_path / "a") == hash_of(tmp_path / "b")
    (tmp_path / "b").write_text("y")
    assert hash_of(tmp_path / "a") != hash_of(tmp_path / "b")
    assert hash_of(tmp_path / "none") != hash_of(tmp_path / "nothing")


def test_a_folder_counts_by_its_files_and_their_names(tmp_path):
    def hash_of(name: str) -> str:
        return config_hash(dataclasses.replace(EXAMPLE, mix=[Source(path=str(tmp_path / name))]))

    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub/file").write_text("x")
    assert hash_of("a") == hash_of("b")
    (tmp_path / "b/sub/file").rename(tmp_path / "b/sub/other")
    assert hash_of("a") != hash_of("b")


def test_origins_are_written_as_json():
    loaded = load({"training": {"steps": 5}}, root=Job, registries=REGISTRIES, overrides=["seed=3"])
    text = json.loads(json.dumps(loaded.origins.plain()))
    assert text["seed"] == {
        "value": 3,
        "layer": "command line",
        "where": "command line",
        "shadowed": [{"value": 0, "layer": "default", "where": "Job"}],
    }
