"""An inspection holds what the scorer says of each sample, can be given up and gone on with, and changes nothing."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from clew.errors import UserError
from clew.inspection.inspecting import Options, inspect
from clew.inspection.parts import PART_ROWS
from clew.inspection.projection import Principal
from clew.inspection.published import Inspection, inspection, inspections
from clew.inspection.recipes import parse
from clew.runs.files import tree_digest
from fake_scorer import FakeScorer

SIZE = 2 * PART_ROWS + 700
WHO = {"step": 3, "split": "train"}


def large(size=SIZE, **more):
    draw = np.random.default_rng(0)
    loss = np.where(draw.random(size) < 0.01, math.nan, draw.exponential(1, size))
    embedding = draw.normal(0, 1, (size, 6)) * [1, 5, 2, 1, 1, 1] + np.outer(draw.integers(0, 3, size), [9] * 6)
    return FakeScorer(loss, -loss, embedding, batch_size=300, **more)


def look(scorer, folder, options=Options(), **more):  # noqa: B008 - it is frozen
    inspect(scorer, folder, options, identity=WHO, **more)
    return Inspection(folder, 3, "train")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An inspection that nothing has disturbed."""
    return look(large(), tmp_path_factory.mktemp("run") / "whole")


def test_it_holds_what_the_scorer_says(whole):
    scorer = large()
    assert np.array_equal(whole.numbers("loss"), scorer.loss, equal_nan=True)
    assert np.array_equal(whole.numbers("margin"), scorer.margin, equal_nan=True)
    assert whole.numbers("length").tolist() == [10 + number for number in range(SIZE)]
    ids = np.array([SIZE - 1, 0, PART_ROWS, 5])
    rows = whole.rows(ids)
    assert [row.id for row in rows] == ids.tolist()
    assert [row.text for row in rows] == [scorer.text(number) for number in ids]
    assert [row.tokens for row in rows] == [scorer.targets(number) for number in ids]
    assert [row.token_losses for row in rows] == [scorer.token_losses(number).tolist() for number in ids]
    found = parquet.read_table(whole.path / "parts", columns=["embedding"])["embedding"].to_pylist()
    assert np.array_equal(np.array(found, dtype=np.float32), scorer.embedding)


def test_its_summary_has_the_figures_of_the_whole(whole):
    loss = whole.numbers("loss")
    summary = whole.summary
    assert (summary["step"], summary["split"], summary["samples"]) == (3, "train", SIZE)
    assert summary["loss"]["count"] == np.isfinite(loss).sum()
    assert summary["loss"]["mean"] == pytest.approx(np.nanmean(loss))
    assert summary["loss"]["p95"] == pytest.approx(np.nanquantile(loss, 0.95))
    assert sum(one["samples"] for one in summary["clusters"]) == SIZE
    means = [one["loss"] for one in summary["clusters"]]
    assert means == sorted(means)
    assert len(means) == 8


def test_its_plane_is_that_of_scikit_learn(whole):
    from sklearn.decomposition import PCA

    fitted = PCA(2, svd_solver="full")
    expected = fitted.fit_transform(large().embedding.astype(np.float64))
    x, y, _ = whole.points()
    for found, axis in ((x, 0), (y, 1)):
        sign = np.sign(found[0] * expected[0, axis])
        assert np.allclose(found, sign * expected[:, axis], atol=1e-3)
    assert whole.summary["projection"] == {
        "method": "pca",
        "explained": pytest.approx(fitted.explained_variance_ratio_, abs=1e-5),
    }


def test_its_clusters_are_those_that_can_be_selected(whole):
    chosen = parse("cluster 3/8").select(large()).parts[0].ids
    assert np.array_equal(np.flatnonzero(whole.points()[2] == 3), chosen)


@pytest.mark.parametrize("after", [1, 2500, PART_ROWS, 2 * PART_ROWS + 1, SIZE])
def test_it_is_given_up_and_goes_on_without_looking_twice(after, tmp_path, whole):
    first, second = large(), large()
    with pytest.raises(UserError, match="cancelled"):
        look(first, tmp_path / "i", cancelled=lambda: len(first.scored) >= after)
    assert not (tmp_path / "i" / "summary.json").exists()
    kept = len(list((tmp_path / "i" / "parts").iterdir()))
    # A process that was killed may have left a torn file, and a disk that was full a short part.
    (tmp_path / "i" / "parts" / ".part-00001.parquet.7.tmp").write_bytes(b"half")
    if kept == 2:
        path = tmp_path / "i" / "parts" / "part-00001.parquet"
        path.write_bytes(path.read_bytes()[:-9])
        kept = 1
    look(second, tmp_path / "i")
    assert second.scored == list(range(min(SIZE, kept * PART_ROWS), SIZE))
    assert tree_digest(tmp_path / "i") == tree_digest(whole.path)


@pytest.mark.parametrize(
    ("options", "identity", "looks"),
    [
        (Options(), WHO, 0),
        (Options(limit=900), WHO, 900),
        (Options(tokens=False), WHO, 1000),
        (Options(), {**WHO, "weights": "of another mind"}, 1000),
    ],
)
def test_parts_of_other_weights_or_options_are_not_kept(options, identity, looks, tmp_path):
    look(large(1000), tmp_path / "i")
    scorer = large(1000)
    inspect(scorer, tmp_path / "i", options, identity=identity)
    assert len(scorer.scored) == looks


def test_another_number_of_clusters_costs_no_second_look(tmp_path, whole):
    scorer = large()
    again = look(scorer, tmp_path / "i", Options(clusters=3), before=whole.path)
    assert scorer.scored == []
    assert len(again.summary["clusters"]) == 3
    assert len(whole.summary["clusters"]) == 8


def test_it_tells_how_far_it_is(tmp_path):
    told = []
    look(large(), tmp_path / "i", progress=lambda *said: told.append(said))
    done = [one[0] for one in told]
    assert done == sorted(done)
    assert told[-1] == (SIZE, SIZE, "samples")
    assert 10 < len(told) < 40


IN_A_FRESH_PROCESS = """
import random
from pathlib import Path

import numpy as np
from fake_scorer import FakeScorer

from clew.inspection.inspecting import Options, inspect
from clew.inspection.recipes import parse

random.seed(1)
np.random.seed(1)
before = random.getstate(), np.random.get_state()[1].tolist()
scorer = FakeScorer([1, 2, 3], embedding=[[1, 2], [2, 2], [4, 4]])
parse("cluster 1/2").select(scorer)
inspect(scorer, Path("i"), Options(), identity={})
assert (random.getstate(), np.random.get_state()[1].tolist()) == before
"""


def test_it_draws_nothing_at_random_even_when_libraries_are_first_imported(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    script = [sys.executable, "-c", IN_A_FRESH_PROCESS]
    done = subprocess.run(
        script, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_trainer_without_margins_embeddings_or_losses_is_inspected_as_far_as_it_goes(tmp_path):
    few = look(FakeScorer([1.0, math.inf, math.nan, 3.0]), tmp_path / "few", Options(clusters=5, tokens=False))
    assert few.summary["columns"] == ["id", "loss", "margin", "length", "text", "fields"]
    assert (few.summary["projection"], few.summary["clustered_by"], few.summary["margin"]) == (None, "loss", None)
    assert [one["samples"] for one in few.summary["clusters"]] == [1, 1]
    x, _, cluster = few.points()
    assert np.isnan(x).all()
    assert cluster.tolist() == [1, 0, 0, 2]
    assert few.rows(np.array([2]))[0].loss is None
    none = look(FakeScorer([math.nan] * 3), tmp_path / "none")
    assert (none.summary["loss"], none.summary["clusters"]) == (None, [])
    with pytest.raises(UserError, match="there are no samples to inspect"):
        look(FakeScorer([]), tmp_path / "nothing")


def test_other_fields_of_the_data_come_along_and_long_texts_are_cut(tmp_path):
    rows = [{"source": "wéb", "score": math.nan, "tags": ["a"], "when": {1}}, {"text": "x" * 9000}]
    found = look(FakeScorer([1, 2], rows=rows), tmp_path / "i").rows(np.array([0, 1]))
    assert found[0].fields == {"source": "wéb", "score": "nan", "tags": ["a"], "when": "{1}"}
    assert (found[1].fields, found[1].text) == ({}, "x" * 4000)


def test_it_is_written_as_csv(whole, tmp_path):
    whole.write_csv(tmp_path / "samples.csv")
    with (tmp_path / "samples.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    loss, (x, _, cluster) = whole.numbers("loss"), whole.points()
    assert [int(row["id"]) for row in rows] == list(range(SIZE))
    assert [float(row["loss"] or "nan") for row in rows] == pytest.approx(loss, nan_ok=True)
    assert [float(row["x"]) for row in rows] == pytest.approx(x)
    assert [int(row["cluster"]) for row in rows] == cluster.tolist()
    assert rows[-1]["text"] == large().text(SIZE - 1)


def test_inspections_of_a_run_are_found(tmp_path):
    folder = tmp_path / "r" / "artifacts" / "inspections"
    for step, split in ((20, "train"), (3, "train"), (20, "test")):
        inspect(FakeScorer([1]), folder / f"step-{step:08}-{split}", Options(), identity={"step": step, "split": split})
    (folder / ".making-step-00000099-train").mkdir()
    (folder / "step-00000098-train").mkdir()
    found = [(one.step, one.split) for one in inspections(tmp_path / "r")]
    assert found == [(3, "train"), (20, "test"), (20, "train")]
    assert inspection(tmp_path / "r", "train").step == 20
    assert inspection(tmp_path / "r", "train", 3).summary["samples"] == 1
    with pytest.raises(UserError) as caught:
        inspection(tmp_path / "r", "train", 4)
    assert str(caught.value) == (
        "r: there is no inspection of train at step 4\n  there is train at step 3, 20; test at step 20"
    )
    with pytest.raises(UserError, match="clew inspect other makes one"):
        inspection(tmp_path / "other", "train")
    with pytest.raises(UserError, match="there is no sample 1; this inspection has 1, from 0"):
        inspection(tmp_path / "r", "train").rows(np.array([0, 1]))


@given(
    st.lists(st.lists(st.integers(-50, 50), min_size=3, max_size=3), min_size=2, max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_principal_directions_do_not_depend_on_how_rows_come(rows, cuts):
    points = np.array(rows, dtype=np.float32)
    once, pieces = Principal(), Principal()
    once.add(points)
    for piece in np.split(points, sorted(min(cut, len(points)) for cut in cuts)):
        pieces.add(piece)
    one, other = once.fit(), pieces.fit()
    assert np.allclose(one.mean, other.mean)
    assert np.allclose(one.explained, other.explained, atol=1e-9)
    assert one.explained.sum() <= 1 + 1e-9
    # The variance along a direction is what it is said to explain.
    whole = points.astype(np.float64).var(axis=0).sum()
    along = one.of(points).astype(np.float64).var(axis=0)
    assert np.allclose(along, one.explained * whole, rtol=1e-3, atol=1e-3)


def test_points_of_one_dimension_have_a_plane_too(tmp_path):
    found = look(FakeScorer([1, 2, 3], embedding=[[1], [2], [6]]), tmp_path / "i", Options(clusters=0))
    x, y, cluster = found.points()
    assert x.tolist() == pytest.approx([-2, -1, 3])
    assert y.tolist() == [0, 0, 0]
    assert cluster.tolist() == [0, 0, 0]
    assert json.loads((tmp_path / "i" / "summary.json").read_text())["projection"]["explained"] == [1.0, 0.0]
