"""Recipes are read, written and carried out; what is wrong with one is said, and where."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clew.errors import UserError
from clew.inspection.recipes import parse, request
from fake_scorer import FakeScorer

LOSS = [0.5, 3.0, 1.0, math.nan, 3.0, 0.1, 2.0, 1.0]
ROWS = [{"source": source} for source in ("web", "book", "web", "web", "web", "book", "web", "book")]


@pytest.fixture
def scorer():
    return FakeScorer(LOSS, margin=[-value for value in LOSS], rows=ROWS)


def chosen(text, scorer, order="shuffled", **options):
    return [part.ids.tolist() for part in parse(text, order).select(scorer, **options).parts]


@pytest.mark.parametrize(
    ("recipe", "ids"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("hardest 1", [1]),
        ("hardest 3", [1, 4, 6]),
        ("hardest 25%", [1, 4]),
        ("easiest 3", [0, 2, 5]),
        ("easiest 100%", [0, 1, 2, 4, 5, 6, 7]),
        ("region 1..2", [2, 6, 7]),
        ("region 2.5..", [1, 4]),
        ("region ..0.1", [5]),
        ("where \"length>14 and source=='web'\"", [6]),
        ("where source == 'web' and loss < 2", [0, 2]),
        ("where 'web' == source", [0, 2, 3, 4, 6]),
        ("where margin >= -0.5", [0, 5]),
        ("where loss != 1", [0, 1, 4, 5, 6]),
        ("where not loss < 100 or source == 'book'", [1, 5, 7]),
        ("where source in ['book', 'pile'] and startswith(text, 'What is 5')", [5]),
        ("ids [6, 0]", [6, 0]),
        ("cluster 1/3 by loss", [0, 2, 5, 7]),
        ("cluster 3/3 by margin", [1, 4]),
    ],
)
def test_a_recipe_chooses(recipe, ids, scorer):
    assert chosen(recipe, scorer) == [ids]


@given(
    st.lists(st.one_of(st.floats(0, 9), st.sampled_from([1.0, 2.0, math.nan, math.inf])), min_size=1, max_size=40),
    st.integers(1, 1000),
)
@example([1.0] * 100, 150)
def test_a_percentage_is_a_quantile_and_equal_losses_go_by_number(loss, permille):
    scorer = FakeScorer(loss)
    having = [number for number, value in enumerate(loss) if not math.isnan(value)]
    for word, sign in (("hardest", -1), ("easiest", 1)):
        recipe = f"{word} {permille / 10}%"
        if not having:
            with pytest.raises(UserError, match="chooses none"):
                chosen(recipe, scorer)
            continue
        (ids,) = chosen(recipe, scorer)
        assert len(ids) == -(-permille * len(having) // 1000)
        # The numbers of the sorted losses: what is left out has no better (loss, number) than anything chosen.
        assert sorted(ids) == sorted(sorted(having, key=lambda number: (sign * loss[number], number))[: len(ids)])


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, math.nan]), min_size=1, max_size=30))
def test_an_order_by_loss_rises_or_falls_and_has_the_rest_last(loss):
    scorer = FakeScorer(loss)
    for order, sign in (("easy-first", 1), ("hard-first", -1)):
        selection = parse("all", order).select(scorer)
        keys = [
            (math.isnan(loss[number]), 0 if math.isnan(loss[number]) else sign * loss[number], number)
            for number in selection.parts[0].ids.tolist()
        ]
        assert keys == sorted(keys)
        assert not selection.shuffled


def test_a_mixture_has_its_shares(scorer):
    selection = parse("0.7 hardest 25% + 0.3 all").select(scorer)
    assert [(part.ids.tolist(), part.share) for part in selection.parts] == [([1, 4], 0.7), (list(range(8)), 0.3)]
    assert selection.recipe == {"text": "0.7 hardest 25% + 0.3 all", "order": "shuffled"}
    assert selection.shuffled
    assert [part.share for part in parse("all + ids [1] + where 'length > 3'").select(scorer).parts] == [1, 1, 1]


def test_samples_are_scored_once_and_only_where_it_is_needed(scorer):
    parse("0.5 hardest 2 + 0.5 easiest 2", "hard-first").select(scorer)
    assert scorer.scored == list(range(8))
    for text in ("all", "where length > 3", "ids [1]"):
        chosen(text, scorer, "given")
    assert scorer.scored == list(range(8))
    assert chosen("ids [7, 1]", None) == [[7, 1]]
    assert parse("ids [7]").needs == frozenset()
    assert parse("all").is_everything
    assert not parse("all", "given").is_everything


def test_clusters_are_the_same_each_time_and_counted_by_their_mean_loss():
    draw = np.random.default_rng(3)
    centres = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9], [5, 5, 5]])
    belongs = draw.integers(0, 4, 200)
    loss = np.array([2.0, 0.5, 3.0, 1.0])[belongs] + draw.normal(0, 0.01, 200)
    scorer = FakeScorer(loss, embedding=centres[belongs] + draw.normal(0, 0.1, (200, 3)), batch_size=7)
    for number, centre in enumerate((1, 3, 0, 2), start=1):
        expected = np.flatnonzero(belongs == centre).tolist()
        assert chosen(f"cluster {number}/4", scorer) == chosen(f"cluster {number}/4", scorer) == [expected]


def test_clusters_of_points_that_are_few_equal_or_no_numbers():
    same = FakeScorer([3, 1, 2, math.nan], embedding=[[1, 1], [1, 1], [1, 1], [math.nan, 1]])
    assert chosen("cluster 1/2", same) == [[0, 1, 2]]
    with pytest.raises(UserError, match="cluster 2/2 by embedding chooses none of the 4 samples"):
        chosen("cluster 2/2", same)
    with pytest.raises(UserError, match="there are 3 samples to make 4 clusters of"):
        chosen("cluster 1/4", same)
    with pytest.raises(UserError, match="this trainer gives no embedding of its samples"):
        chosen("cluster 1/2", FakeScorer([1, 2]))
    with pytest.raises(UserError, match="this trainer gives no margin of its samples"):
        chosen("where margin > 1", FakeScorer([1, 2]))


def test_many_points_are_sorted_into_clusters_by_some_of_them(monkeypatch):
    monkeypatch.setattr("clew.inspection.clusters.FIT_POINTS", 50)
    draw = np.random.default_rng(0)
    belongs = draw.integers(0, 2, 9000)
    scorer = FakeScorer(belongs + draw.normal(0, 0.1, 9000), batch_size=1000)
    assert chosen("cluster 2/2 by loss", scorer) == [np.flatnonzero(scorer.loss > 0.5).tolist()]


@pytest.mark.parametrize(
    ("recipe", "error"),
    [
        ("region 50..60", "region 50.0..60.0 chooses none of the 8 samples\n  losses lie between 0.1 and 3"),
        ("where length > 999", 'where "length > 999" chooses none of the 8 samples'),
        ("hardest 8", "hardest 8 is more than there are: 7 samples have a loss"),
        ("where lenght > 3", "sample 0: there is no field 'lenght'\n  did you mean 'length'?"),
        ("where soruce == 3", "no sample has a field 'soruce'\n  there is length, loss, margin, source, text"),
        ("where length + source > 3", "sample 0: 'length + source > 3' cannot be decided: 'web' is no number"),
        ("ids [3, 8]", "ids: there is no sample 8; there are 8, from 0"),
        ("ids [3, 3]", "ids: sample 3 stands there twice"),
    ],
)
def test_what_cannot_be_chosen_says_why(recipe, error, scorer):
    with pytest.raises(UserError) as caught:
        chosen(recipe, scorer)
    assert str(caught.value) == error


def test_a_split_without_samples_or_losses_gives_nothing():
    for recipe in ("all", "hardest 10%", "cluster 1/2 by loss", "where length > 3"):
        with pytest.raises(UserError, match="chooses none of the 0 samples"):
            chosen(recipe, FakeScorer([]))
    with pytest.raises(UserError, match="\n  none has a loss"):
        chosen("region 0..1", FakeScorer([math.nan]))


def test_it_can_be_watched_and_given_up(scorer):
    told = []
    chosen("where loss > 1", scorer, progress=lambda *said: told.append(said))
    assert told == [(3, 8, "samples"), (6, 8, "samples"), (8, 8, "samples")] + [
        (done, 8, "conditions") for done in (3, 6, 8)
    ]
    with pytest.raises(UserError, match="cancelled"):
        chosen("hardest 1", scorer, cancelled=lambda: len(scorer.scored) > 12)
    assert len(scorer.scored) == 8 + 6


@pytest.mark.parametrize(
    "text",
    [
        "all",
        "hardest 15%",
        "easiest 200",
        "region 0.5..2",
        "region ..2",
        "region -1..",
        "cluster 2/8",
        "cluster 1/4 by loss",
        "where length>200 and source=='web'",
        "where \"a == 'x'\" + all",
        "ids [3, 4]",
        "0.7 hardest 0.5% + 0.123456789 all",
        "ids 'a b.txt' + all",
    ],
)
def test_a_recipe_written_out_is_the_same_recipe(text):
    recipe = parse(text)
    assert parse(str(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "recipe, character 1: a choice is missing"),
        ("harest 3", "recipe, character 1: 'harest' is no choice; did you mean 'hardest'?"),
        ("hardest", "recipe, character 8: hardest takes a count or a percentage"),
        ("hardest much", "recipe, character 9: hardest takes a count or a percentage, not 'much'"),
        ("hardest 0", "recipe, character 9: a count is a whole number from 1, not 0"),
        ("hardest 1.5", "recipe, character 9: a count is a whole number from 1, not 1.5"),
        ("easiest 101%", "recipe, character 9: a percentage is above 0 and up to 100, not 101"),
        ("easiest -1%", "recipe, character 9: a percentage is above 0 and up to 100, not -1"),
        ("region 2", "recipe, character 9: region takes two bounds with '..' between them"),
        ("region ..", "recipe, character 10: region takes at least one bound"),
        ("region 2..1", "recipe, character 12: nothing lies between 2 and 1"),
        ("cluster 2", "recipe, character 10: cluster takes two whole numbers with '/' between them"),
        ("cluster 9/8", "recipe, character 12: there is no cluster 9 of 8; they count from 1, and are 2 to 1000"),
        ("cluster 1/1", "recipe, character 12: there is no cluster 1 of 1; they count from 1, and are 2 to 1000"),
        ("cluster 1/3 by hue", "recipe, character 16: clusters are by embedding, loss or margin, not by hue"),
        ("ids", "recipe, character 4: ids takes a file, or a list"),
        ("ids [1, -2]", "recipe, character 5: sample numbers are whole numbers from 0"),
        ("ids [1, ", "recipe, character 5: this is no list of numbers"),
        ("all all", "recipe, character 5: 'all' is too much"),
        ("0.5 all +", "recipe, character 10: a choice is missing"),
        ("0 all + 1 all", "recipe, character 1: a weight is a number above 0, not 0"),
        ("1e999 all + 1 all", "recipe, character 1: a weight is a number above 0, not 1e999"),
        ("0.5 all + all", "some parts have a weight and others have none"),
        ("all + where 'x.y'", "recipe, character 14: 'x.y' cannot stand in a condition"),
        ("all + where x.y", "recipe, character 13: 'x.y' cannot stand in a condition"),
        ("+".join(["all"] * 101), "a mixture has at most 100 parts"),
        ("ids " + "9" * 100_000, "a recipe has at most 100000 characters"),
    ],
)
def test_a_mistake_in_a_recipe_has_a_place(text, error):
    with pytest.raises(UserError) as caught:
        parse(text)
    assert str(caught.value).partition("\n")[0] == error


def test_an_order_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"there is no order 'shufled'\n  did you mean 'shuffled'\?"):
        parse("all", "shufled")


@given(st.text("all hrdest15%+.\"'[],/by wn", max_size=30))
def test_any_text_is_a_recipe_or_a_mistake(text):
    try:
        recipe = parse(text)
    except UserError:
        return
    assert parse(str(recipe)) == recipe


def test_a_file_of_ids_is_read_line_by_line_or_as_json(tmp_path, scorer, monkeypatch):
    (tmp_path / "lines.txt").write_text("7\n\n 0\n2\n")
    (tmp_path / "list.json").write_text("[7, 0,\n 2]")
    monkeypatch.chdir(tmp_path)
    assert chosen("ids lines.txt", scorer, "given") == chosen("ids list.json", scorer) == [[7, 0, 2]]
    recipe = str(parse("ids lines.txt"))
    monkeypatch.chdir("/")
    assert chosen(recipe, scorer) == [[7, 0, 2]]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"1\ntwo\n", "{path}:2: 'two' is no sample number"),
        (b"1\n-2\n", "{path}:2: '-2' is no sample number"),
        (b"1\n1\n", "{path}: sample 1 stands there twice"),
        (b"\n", "{path}: there are no sample numbers"),
        (b"[]", "{path}: there are no sample numbers"),
        (b"[1, true]", "{path}: True is no sample number; they are whole and begin at 0"),
        (b"[1, 2", "{path}: this is no JSON: "),
        (b"\xff", "{path}: this is no text"),
        (b"9\n", "{path}: there is no sample 9; there are 8, from 0"),
        (b"99999999999999999999\n", "{path}:1: '99999999999999999999' is no sample number"),
        (None, "{path}: the list of ids cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_list_of_ids_says_where(content, error, tmp_path: Path, scorer):
    path = tmp_path / "ids"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        chosen(f"ids {path}", scorer)
    assert str(caught.value).startswith(error.format(path=path))


def test_what_is_sent_can_be_read_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert request("0.5 ids a.txt + 0.5 all") == {"recipe": f'0.5 ids "{tmp_path}/a.txt" + 0.5 all'}
    assert request("all", "given") == {"recipe": "all", "order": "given"}
    for nonsense in (("harest 3", ""), ("all", "odd")):
        with pytest.raises(UserError):
            request(*nonsense)
