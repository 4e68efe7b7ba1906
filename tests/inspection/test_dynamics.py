"""The map of training dynamics: mean and variance of each sample's loss over the inspections of a run."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from clew.errors import UserError
from clew.inspection.dynamics import Dynamics, dynamics, write_tables
from clew.inspection.inspecting import Options, inspect
from clew.inspection.plots import DRAWN, Cloud, draw
from clew.inspection.published import inspections
from fake_scorer import FakeScorer


def looks(run, *losses):
    """Inspections of a run, one for each list of losses."""
    for step, loss in enumerate(losses):
        folder = run / "artifacts" / "inspections" / f"step-{step:08}-train"
        inspect(FakeScorer(loss), folder, Options(0, tokens=False), identity={"step": step, "split": "train"})
    return inspections(run, "train")


def test_mean_and_variance_are_over_the_inspections_in_which_a_sample_has_a_loss(tmp_path):
    losses = [[1.0, 4.0, math.nan, 1.0, math.nan], [3.0, 4.0, 2.0, 5.0, 7.0], [5.0, 4.0, 6.0, math.inf]]
    found = dynamics(looks(tmp_path, *losses))
    assert found.ids.tolist() == [0, 1, 2, 3]
    assert found.mean.tolist() == pytest.approx([3, 4, 4, 3])
    assert found.variance.tolist() == pytest.approx([np.var([1, 3, 5]), 0, np.var([2, 6]), np.var([1, 5])])
    assert found.count.tolist() == [3, 3, 2, 2]
    assert found.steps == [0, 1, 2]


def test_a_map_needs_two_inspections(tmp_path):
    with pytest.raises(UserError, match=r"and there are none\n  clew inspect RUN makes one"):
        dynamics([])
    with pytest.raises(UserError, match=r"and there is one\n  clew inspect RUN --at STEP makes one"):
        dynamics(looks(tmp_path / "a", [1.0]))
    with pytest.raises(UserError, match="no sample has a loss in two"):
        dynamics(looks(tmp_path / "b", [1.0, math.nan], [math.nan, 1.0]))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_a_third_is_ambiguous_and_the_rest_easy_or_hard(pairs):
    mean, variance = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    ids = np.arange(len(pairs))
    regions = np.array(Dynamics(ids, mean, variance, ids, []).regions)
    ambiguous = regions == "ambiguous"
    assert ambiguous.sum() == len(pairs) // 3
    if ambiguous.any():
        assert variance[ambiguous].min() >= variance[~ambiguous].max()
    easy, hard = mean[regions == "easy"], mean[regions == "hard"]
    assert len(easy) >= len(hard)
    assert not len(hard) or easy.max() < hard.min()


def test_the_map_is_written_as_parquet_and_csv(tmp_path):
    found = dynamics(looks(tmp_path, [1.0, 4.0, 2.0], [3.0, 4.0, 2.0]))
    files = write_tables(tmp_path, found)
    assert [path.name for path in files] == ["map.parquet", "map.csv"]
    table = parquet.read_table(files[0]).to_pylist()
    assert table[0] == {"id": 0, "mean_loss": 2.0, "variance": 1.0, "inspections": 2, "region": "ambiguous"}
    with files[1].open(newline="") as stream:
        assert [row["region"] for row in csv.DictReader(stream)] == [row["region"] for row in table]


def test_a_cloud_is_the_same_picture_each_time_and_holds_what_can_be_drawn():
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(2, DRAWN + 5))
    y[3] = math.nan
    cloud = Cloud(x, y, y, "loss of $a$", ("x", "y", "nats"))
    picture = draw(cloud)
    assert picture.startswith(b"\x89PNG")
    assert picture == draw(cloud)
    grouped = Cloud(x, y, np.arange(len(x)) % 2.0, "two", ("x", "y", "group"), ("one", "other"))
    assert draw(grouped).startswith(b"\x89PNG")
    nothing = np.array([math.nan])
    assert draw(Cloud(nothing, nothing, nothing, "nothing", ("x", "y", "z"))).startswith(b"\x89PNG")
