"""Laws of the configs of everything that ships, for values that nobody thought of."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from shipped import EACH, leaf_fields, load_plain, other_value, plain_config, values_of

from clew.config import config_hash, dump, to_yaml
from clew.config.source import read_text
from clew.config.tree import Origin, plain
from clew.errors import ConfigError
from clew.jobs.loading import registries


@pytest.mark.parametrize(("job", "task"), EACH)
@settings(max_examples=6, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_other_values_of_some_leaves_round_trip_together(job, task, data):
    """They come from the command line, win over what the file says, and go out to a file that loads to the same."""
    said = plain_config(job, task)
    before = load_plain(job, said)
    leaves = [leaf for leaf in leaf_fields(before.value) if not leaf[0].endswith("type")]
    chosen = data.draw(st.lists(st.sampled_from(leaves), max_size=4, unique_by=lambda leaf: leaf[0]))
    values = {key: data.draw(values_of(spec.annotation), label=key) for key, spec, _ in chosen}
    try:
        after = load_plain(job, said, *(f"{key}={json.dumps(value)}" for key, value in values.items()))
    except ConfigError:
        assume(False)  # a rule across fields
    for key, value in values.items():
        if value is not None:
            assert (after.origins[key].value, after.origins[key].origin.layer) == (value, "command line")
            assert after.origins[key].shadowed[-1][0] == before.origins[key].value
    written = plain(read_text(to_yaml({"job": job, **after.plain}), Origin("file", "x")))
    again = load_plain(job, written)
    assert (again.value, again.plain) == (after.value, after.plain)
    assert load_plain(job, {"job": job, **dump(after.value, registries())}).value == after.value
    assert config_hash(again.value) == config_hash(after.value)


@pytest.mark.parametrize(("job", "task"), EACH)
def test_each_leaf_changes_the_hash_exactly_if_it_can_change_results(job, task):
    said = plain_config(job, task)
    before = load_plain(job, said)
    old_hash, changed = config_hash(before.value), 0
    for key, spec, hashed in leaf_fields(before.value):
        value = None if key.endswith("type") else other_value(spec.annotation, before.origins[key].value)
        try:
            after = load_plain(job, said, *([] if value is None else [f"{key}={json.dumps(value)}"]))
        except ConfigError:
            continue  # a rule across fields
        assert (config_hash(after.value) != old_hash) is (hashed and value is not None), key
        changed += value is not None
    assert changed >= 4
