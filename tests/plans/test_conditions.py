import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_support import Outcome, stage

from clew.config import Origin
from clew.config.tree import Leaf
from clew.errors import ConfigError, RunFailed
from clew.plans import load_pipeline
from clew.plans.conditions import read_condition
from clew.runs import State, Workspace

VALUES = {"e.metrics.x": 0.5, "e.metrics.n": 3.0, "e.run": "run:p.e", "e.metrics.nan": float("nan")}


def condition(text):
    return read_condition(Leaf(text, Origin("file", "p.yaml:7")))


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("${e.metrics.x} < 0.9", True),
        ("${e.metrics.x} >= 0.9", False),
        ("0.1 < ${e.metrics.x} < 0.4", False),
        ("${e.metrics.x} == 0.5 and ${e.metrics.n} != 3", False),
        ("${e.metrics.x} > 1 or not ${e.metrics.n} < 2", True),
        ("not (${e.metrics.x} > 1 or ${e.metrics.n} < 2)", True),
        ("${e.metrics.x} > -1", True),
        ("${e.run} == 'run:p.e'", True),
        ("${e.metrics.x} < 1\n  and ${e.metrics.n} > 2", True),
        ("true", True),
        (False, False),
    ],
)
def test_what_holds(text, holds):
    assert condition(text).holds(VALUES.__getitem__) is holds


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_comparisons_are_those_of_numbers(left, right):
    found = condition("${e.metrics.x} < ${e.metrics.n}").holds({"e.metrics.x": left, "e.metrics.n": right}.__getitem__)
    assert found is (left < right)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${e.metrics.x}", "it compares nothing"),
        ("${e.metrics.x} < 1 and 3", "it compares nothing"),
        ("${e.metrics.x} < good", "'good' is no reference, and a text needs quotes"),
        ("${e.metrics.x} in [1, 2]", "it may hold references, numbers and texts only"),
        ("'a' in 'abc'", "it may compare by < <= > >= == != only"),
        ("__import__('os').system('true') == 0", "it may hold references, numbers and texts only"),
        ("open('x') == 1", "it may hold references, numbers and texts only"),
        ("${e.metrics.x}.real == 1", "it may hold references, numbers and texts only"),
        ("2 ** 10 ** 10 > 1", "it may hold references, numbers and texts only"),
        ("(lambda: 1)() == 1", "it may hold references, numbers and texts only"),
        ("f'{1}' == '1'", "it may hold references, numbers and texts only"),
        ("'${e.run}' == 'run:p.e'", "a reference stands inside quotes"),
        ("-'a' == 1", "a minus may stand before numbers only"),
        ("${e.metrics.x} <", "it cannot be read"),
        ("a = 1", "it cannot be read"),
        ("1 < 2; 3 < 4", "it cannot be read"),
        ("(" * 400 + "1 < 2" + ")" * 400, "it cannot be read"),
    ],
)
def test_anything_else_is_refused_with_its_place(text, reason):
    with pytest.raises(ConfigError) as error:
        condition(text)
    assert error.value.where == "p.yaml:7"
    assert error.value.what.endswith(reason)


@pytest.mark.parametrize("value", [3, None, [], "", "x" * 1001])
def test_what_is_no_text_is_no_condition(value):
    with pytest.raises(ConfigError, match=r"p\.yaml:7"):
        condition(value)


def test_text_and_numbers_cannot_be_compared():
    with pytest.raises(RunFailed, match=r"p\.yaml:7: when: a text and a number cannot be compared: 'run:p\.e' and 1"):
        condition("${e.run} < 1").holds(VALUES.__getitem__)


def test_a_number_that_is_none_decides_nothing():
    with pytest.raises(RunFailed, match=r"when: \$\{e\.metrics\.nan\} is nan, which cannot be compared"):
        condition("${e.metrics.nan} < 1").holds(VALUES.__getitem__)


# In a pipeline.


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "ws")


def with_condition(text):
    return {
        "eval": stage(score=0.5),
        "more": stage(when=text),
        "takes": stage(source="${more.artifacts.out}"),
        "after": stage(after="more"),
        "later": stage(after="takes"),
    }


def test_a_condition_that_holds_changes_nothing(workspace):
    done = Outcome(workspace, with_condition("${eval.metrics.score} < 0.9"))
    assert (done.state, len(done.launched), done.skips()) == (State.COMPLETED, 5, {})


def test_without_it_the_stage_is_skipped_with_those_that_take_its_outputs_but_not_those_after_it(workspace):
    done = Outcome(workspace, with_condition("${eval.metrics.score} > 0.9"))
    assert done.state is State.COMPLETED
    assert done.launched == ["p.eval", "p.after", "p.later"]
    assert done.skips() == {"more": "not ${eval.metrics.score} > 0.9", "takes": "more was skipped"}
    assert "more: skipped (not ${eval.metrics.score} > 0.9)" in done.person.notes


def test_a_stage_that_is_skipped_now_has_no_run_any_more(workspace):
    Outcome(workspace, with_condition("${eval.metrics.score} < 0.9"))
    done = Outcome(workspace, with_condition("${eval.metrics.score} > 0.9"))
    assert set(done.plan.chosen_runs()) == {"eval", "after", "later"}
    back = Outcome(workspace, with_condition("${eval.metrics.score} < 0.9"))
    assert (back.launched, back.plan.skipped()) == ([], {})


def test_a_condition_is_an_edge(tmp_path):
    pipeline = load_pipeline({"stages": {"b": stage(when="${a.metrics.score} < 1"), "a": stage()}})
    assert pipeline.stages["b"].needs == ("a",)
    with pytest.raises(ConfigError, match="there is no stage 'c'"):
        load_pipeline({"stages": {"b": stage(when="${c.metrics.score} < 1")}})


def test_the_name_of_a_stage_may_hold_dots(workspace):
    stages = {"lr-0.1": stage(score=0.5), "b": stage(when="${lr-0.1.metrics.score} < 1", source="${lr-0.1.run}")}
    done = Outcome(workspace, stages)
    assert (done.state, done.launched, done.skips()) == (State.COMPLETED, ["p.lr-0.1", "p.b"], {})


def test_a_condition_that_cannot_be_said_fails_its_stage(workspace):
    done = Outcome(workspace, {"a": stage(), "b": stage(when="${a.metrics.scroe} < 1")})
    assert done.state is State.FAILED
    assert "the stage has no 'metrics.scroe'\n  did you mean 'score'?" in str(done.results["b"].error)
