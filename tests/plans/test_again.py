import pytest
from plan_support import Outcome, stage

from clew.errors import ConfigError, UserError
from clew.plans import load_pipeline, open_plan, start_from
from clew.runs import Run, State, Workspace

STAGES = {"a": stage(), "b": stage(after="a"), "c": stage(source="${b.run}"), "other": stage(score=0.7)}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "ws")


def again(workspace, name):
    start_from(open_plan(workspace, "p"), load_pipeline({"stages": STAGES}), workspace, name)


def test_a_stage_and_what_needs_it_are_done_again(workspace):
    Outcome(workspace, STAGES)
    again(workspace, "b")
    done = Outcome(workspace, STAGES)
    assert done.launched == ["p.b.2", "p.c.2"]
    assert done.state is State.COMPLETED
    assert Outcome(workspace, STAGES).launched == []


def test_a_crash_in_between_does_not_make_it_more_than_one_run(workspace):
    Outcome(workspace, STAGES)
    again(workspace, "b")
    broken = {**STAGES, "c": stage(source="${b.artifacts.nothing}")}
    assert Outcome(workspace, broken).launched == ["p.b.2"]
    assert Outcome(workspace, STAGES).launched == ["p.c.2"]


def test_a_stage_that_is_not_there(workspace):
    with pytest.raises(ConfigError, match="pipeline: there is no stage 'd'"):
        again(workspace, "d")


def test_a_stage_that_is_still_at_work_is_left_alone(workspace):
    Outcome(workspace, STAGES)
    run = Run(workspace.runs / "p.c")
    state = run.states.path.read_text()
    from clew.runs import Owner

    (run.path / "state.json").write_text(state.replace('"completed"', '"failed"'))
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    with pytest.raises(UserError, match=r"p\.c: this stage is still at work\n  clew stop p\.c ends it"):
        again(workspace, "a")
