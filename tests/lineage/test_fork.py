"""Children of runs: they begin where their parent is or was, and go on by themselves."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
import walks
from walks import ask, attempt

from clew.errors import RunFailed, UserError
from clew.jobs import load_run_config
from clew.lineage.compare import compare
from clew.lineage.fork import Asked, fork
from clew.runs import Run, State
from clew.session.live import Refused
from clew.session.steering import Steering
from support import wait_until


@pytest.fixture
def parent(workspace):
    return walks.made(workspace)


def values(run: Run, name: str = "position") -> dict[int, float]:
    return {event["step"]: event["values"][name] for event in run.events("metric") if name in event["values"]}


def outcomes(run: Run) -> list[tuple[str, int, str]]:
    return [(event["verb"], event["at"], event["outcome"]) for event in run.events("command")]


def beside(body) -> threading.Thread:
    thread = threading.Thread(target=body)
    thread.start()
    return thread


def forked_while_it_walks(parent: Run, asked: Asked, **config: object):
    """Ask from another thread, as from a second terminal."""
    found: list[object] = []

    def ask_for_it() -> None:
        wait_until(lambda: parent.state is State.PAUSED)
        try:
            found.append(fork(parent, asked, wait=30.0))
        except Exception as error:
            found.append(error)
        ask(parent, "resume")

    ask(parent, "pause", at=7, save=False)
    thread = beside(ask_for_it)
    attempt(parent)
    thread.join(30)
    return found[0]


def test_a_fork_that_changes_nothing_is_its_parent_bit_by_bit(parent):
    made = forked_while_it_walks(parent, Asked(name="b"))
    child = made.child
    assert (child.info.parent, child.info.fork_step, child.state) == ("a", 7, State.CREATED)
    attempt(child)
    assert values(child) == {step: value for step, value in values(parent).items() if step > 7}
    found = compare(parent, child)
    assert (found.difference, found.steps) == (None, 12)
    assert found.digests == 5


def test_a_finished_run_is_forked_from_any_of_its_checkpoints(parent):
    attempt(parent)
    for at, step in (("5", 5), ("10", 10), ("last", 10), ("", 10)):
        child = fork(parent, Asked(at=at)).child
        assert child.info.fork_step == step
        attempt(child)
        assert values(child) == {one: value for one, value in values(parent).items() if one > step}


def test_what_was_set_in_the_parent_holds_in_its_child_but_its_config_is_the_users(parent):
    ask(parent, "set", at=3, lr=0.25)
    attempt(parent)
    child = fork(parent, Asked(at="10")).child
    assert load_run_config(child).lr == 1.0
    assert attempt(child).lr == 0.25
    assert values(child) == {step: value for step, value in values(parent).items() if step > 10}


def test_what_a_fork_says_anew_wins_over_what_was_set_in_its_parent(parent):
    ask(parent, "set", at=3, lr=0.25)
    attempt(parent)
    child = fork(parent, Asked(at="5", words=["lr=3"])).child
    assert (attempt(child).lr, load_run_config(child).lr, child.info.changes) == (3.0, 3.0, {"lr": 3.0})
    origins = json.loads((child.path / "origins.json").read_text())
    assert origins["lr"]["where"] == "command line"
    assert [shadow["value"] for shadow in origins["lr"]["shadowed"]] == [1.0, 1.0]


@pytest.mark.parametrize("switch", [False, True])
def test_what_a_fork_says_anew_wins_though_its_parents_config_says_the_same(parent, switch):
    ask(parent, "set", at=3, lr=0.25)
    child = forked_while_it_walks(parent, Asked(name="b", words=["lr=1.0"], switch=switch)).child
    assert child.info.changes == {"lr": 1.0}
    if not switch:
        attempt(child)
    unlike = fork(parent, Asked(at="7", name="c")).child
    attempt(unlike)
    assert values(unlike)[12] != values(child)[12]
    by_hand = fork(parent, Asked(at="7", name="d")).child
    ask(by_hand, "set", at=7, lr=1.0)
    attempt(by_hand)
    assert values(by_hand) == values(child)


def test_multiples_are_of_what_is_in_force_in_the_parent(parent):
    ask(parent, "set", at=3, lr=0.5)
    attempt(parent)
    child = fork(parent, Asked(at="5", words=["lr_mul=0.5", "steps=8"])).child
    assert attempt(child).lr == 0.25
    assert max(values(child)) == 8


def test_a_child_trains_on_its_selection_from_its_very_first_batch(parent):
    attempt(parent)
    child = fork(parent, Asked(at="5", select="hardest 25%")).child
    walk = attempt(child)
    assert {number for batch in walk.taken for number in batch} == {15, 16, 17, 18, 19}
    assert outcomes(child) == [("select", 5, "applied")]


def test_the_process_goes_on_as_the_child_and_the_parent_can_still_be_gone_on_with(parent, workspace):
    made = forked_while_it_walks(parent, Asked(name="b", words=["lr=0.125"], switch=True))
    child = made.child
    assert (parent.state, child.state) == (State.STOPPED, State.COMPLETED)
    assert parent.states.read().successor == "b"
    assert (list(values(parent)), list(values(child))) == (list(range(1, 8)), list(range(8, 13)))
    # As if it had been forked into a process of its own.
    twin = fork(parent, Asked(at="7", words=["lr=0.125"])).child
    attempt(twin)
    assert values(twin) == values(child)
    attempt(parent)
    assert list(values(parent)) == list(range(1, 13))
    assert values(parent)[12] != values(child)[12]


def test_a_child_that_a_process_goes_on_as_is_resumed_like_any_other(parent):
    (staged,) = [forked_while_it_walks(parent, Asked(name="b", switch=True, words=["steps=11"]))]
    child = staged.child
    twin = fork(parent, Asked(at="7", name="c", words=["steps=11"])).child
    attempt(twin, killed_at=9)
    attempt(twin)
    assert values(twin) == values(child)


def test_a_switch_that_needs_another_process_is_rejected_and_nothing_is_left(parent, workspace):
    refused = forked_while_it_walks(parent, Asked(name="b", words=["decay=0.2"], switch=True))
    assert isinstance(refused, Refused)
    assert "decay cannot change in a process that goes on" in str(refused)
    assert sorted(path.name for path in workspace.runs.iterdir()) == ["a"]
    assert list(values(parent)) == list(range(1, 13))


def test_commands_for_the_child_that_wait_are_carried_out_by_the_process_that_goes_on(parent):
    made = forked_while_it_walks(parent, Asked(name="b", select="easiest 4", switch=True))
    firsts = values(made.child, "first")
    assert all(number < 4 for number in firsts.values())
    assert outcomes(made.child) == [("select", 7, "applied")]


def test_a_command_of_the_same_boundary_that_came_before_the_fork_is_in_the_child(parent):
    ask(parent, "set", at=5, lr=0.25)  # the state of this step is saved before
    ask(parent, "pause", at=5, save=False)
    made: list[object] = []

    def ask_for_it() -> None:
        wait_until(lambda: parent.state is State.PAUSED)
        made.append(fork(parent, Asked(name="b"), wait=30.0).child)
        ask(parent, "set", lr=9.0)
        ask(parent, "resume")

    thread = beside(ask_for_it)
    attempt(parent)
    thread.join(30)
    child = made[0]
    assert attempt(child).lr == 0.25
    (command,) = [event["id"] for event in parent.events("command") if event["verb"] == "set" and event["at"] == 5][:1]
    assert child.info.inherited[:1] == [command]


def test_many_children_from_one_boundary_by_several_issuers(parent, workspace):
    made: list[object] = []

    def ask_for_it(number: int) -> None:
        made.append(fork(parent, Asked(name=f"c{number}", words=[f"lr={number}"]), wait=30.0).child)

    def all_of_them() -> None:
        wait_until(lambda: parent.state is State.PAUSED)
        threads = [beside(lambda number=number: ask_for_it(number)) for number in range(1, 6)]
        for thread in threads:
            thread.join(30)
        ask(parent, "resume")

    ask(parent, "pause", at=6, save=False)
    thread = beside(all_of_them)
    attempt(parent)
    thread.join(60)
    assert sorted(child.id for child in made) == ["c1", "c2", "c3", "c4", "c5"]
    assert {child.info.fork_step for child in made} == {6}


def test_a_child_takes_no_space_of_its_own_and_outlives_its_parents_checkpoint(parent):
    attempt(parent)
    child = fork(parent, Asked(at="5")).child
    theirs, own = (run.checkpoints / "step-00000005" / "walk.json" for run in (parent, child))
    assert theirs.stat().st_ino == own.stat().st_ino
    for path in (parent.checkpoints / "step-00000005").iterdir():
        path.unlink()
    attempt(child)
    assert max(values(child)) == 12


def test_a_fork_waits_for_a_later_step_of_a_live_parent(parent):
    ask(parent, "pause", at=2)
    made: list[object] = []

    def ask_for_it() -> None:
        wait_until(lambda: parent.state is State.PAUSED)
        made.append(fork(parent, Asked(at="9", name="later"), wait=False))
        ask(parent, "resume")

    thread = beside(ask_for_it)
    attempt(parent)
    thread.join(30)
    assert made[0].child is None
    child = Run(parent.path.parent / "later")
    assert child.info.fork_step == 9


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (Asked(at="3"), "there is no checkpoint '3'"),
        (Asked(at="calm"), "there is no checkpoint 'calm'"),
        (Asked(words=["speed=2"]), "there is nothing 'speed' to change in a"),
        (Asked(words=["lr"]), "'lr' is not key=value"),
        (Asked(words=["lr=much"]), "lr"),
        (Asked(words=["lr=1e400"]), "'lr' must be float, not Infinity"),
        (Asked(words=["lr_mul=x"]), "lr is multiplied by a number, not by 'x'"),
        (Asked(words=["lr=2", "lr_mul=x"]), "lr is multiplied by a number, not by 'x'"),
        (Asked(words=["wd_mul=2"]), "a has no weight_decay that wd_mul could multiply\n  there is lr, fade, steps"),
        (Asked(words=["steps=0"]), "steps cannot be 0: 10 steps are done where the child begins"),
        (Asked(at="5", words=["steps=5"]), "steps cannot be 5: 5 steps are done where the child begins"),
        (Asked(at="best", words=["steps=12"]), "there is no checkpoint 'best'"),
        (Asked(select="hardest"), "hardest"),
        (Asked(name="a"), "a run named 'a' exists already"),
        (Asked(name="../b"), "name"),
        (Asked(switch=True), "only a live run can go on as its child"),
    ],
)
def test_nonsense_is_told_and_leaves_nothing(parent, workspace, asked, reason):
    attempt(parent)
    with pytest.raises(UserError, match=r".*") as caught:
        fork(parent, asked)
    assert reason in str(caught.value)
    assert [path.name for path in workspace.runs.iterdir()] == ["a"]


def test_an_end_before_a_childs_beginning_is_refused_with_the_fork_that_ends_there(parent, workspace):
    attempt(parent)
    asked = Asked(name="b", words=["steps=10", "lr_mul=0.5"], select="hardest 50%")
    another = f"clew run {parent.config_path} steps=4 --name NAME makes another run"
    for words, instead in [
        (asked, "clew fork a --at 5 --name b --select 'hardest 50%' steps=10 lr_mul=0.5 makes a child that ends there"),
        (Asked(words=["steps=4"]), another),
    ]:
        with pytest.raises(UserError) as caught:
            fork(parent, words)
        assert caught.value.hint == f"say more than 10; or {instead}"
    child = fork(parent, replace(asked, at="5")).child
    attempt(child)
    assert (child.state, max(values(child))) == (State.COMPLETED, 10)


@pytest.mark.parametrize(("at", "end", "begin"), [("", 6, 7), ("", 7, 7), ("9", 8, 9)])
@pytest.mark.parametrize("switch", [False, True])
def test_a_live_parent_is_not_asked_for_a_child_that_is_at_its_end(parent, workspace, switch, at, end, begin):
    refused = forked_while_it_walks(parent, Asked(at=at, name="b", words=[f"steps={end}"], switch=switch))
    assert f"a: steps cannot be {end}: {begin} steps are done where the child begins" in str(refused)
    assert [verb for verb, *_ in outcomes(parent)] == ["pause", "resume"]
    assert [path.name for path in workspace.runs.iterdir()] == ["a"]


def test_a_parent_that_ends_before_it_comes_to_it_leaves_nothing(parent, workspace):
    ask(parent, "pause", at=2)
    ask(parent, "stop", at=8)
    errors: list[Exception] = []

    def ask_for_it() -> None:
        wait_until(lambda: parent.state is State.PAUSED)
        ask(parent, "resume")
        try:
            fork(parent, Asked(at="12", name="never"), wait=30.0)
        except (UserError, RunFailed) as error:
            errors.append(error)

    thread = beside(ask_for_it)
    attempt(parent)
    thread.join(30)
    assert errors
    assert "never" not in {path.name for path in workspace.runs.iterdir()}


def test_a_step_to_which_a_live_parent_never_comes_is_not_waited_for(parent, workspace):
    refused = forked_while_it_walks(parent, Asked(at="99", name="never"))
    assert isinstance(refused, UserError)
    assert "the run ends at step 12, and never comes to step 99" in str(refused)
    assert [path.name for path in workspace.runs.iterdir()] == ["a"]


def test_a_child_that_was_born_before_its_parent_could_say_so_is_not_born_twice(parent, monkeypatch):
    ask(parent, "pause", at=6)

    def ask_for_it() -> None:
        wait_until(lambda: parent.state is State.PAUSED)
        fork(parent, Asked(name="b"), wait=False)
        wait_until(lambda: (parent.path.parent / "b" / "run.json").exists())

    journalled = Steering._settle

    def dying(self, command, *args, **options):
        if command.verb == "fork":
            raise walks.Killed
        journalled(self, command, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Steering, "_settle", dying)
        thread = beside(ask_for_it)
        attempt(parent)
        thread.join(30)
    ask(parent, "resume", at=6)
    attempt(parent)
    told = [event for event in parent.events("command") if event["verb"] == "fork"]
    assert [(event["outcome"], event["result"]["child"]) for event in told] == [("applied", "b")]
    child = Run(parent.path.parent / "b")
    attempt(child)
    assert values(child) == {step: value for step, value in values(parent).items() if step > 6}


def test_a_command_for_a_child_that_nobody_prepared_is_rejected(parent):
    ask(parent, "fork", at=2)
    ask(parent, "fork", at=3, staging=".new-x")
    ask(parent, "fork", at=4, staging="../../etc")
    attempt(parent)
    assert [outcome for *_, outcome in outcomes(parent)] == [
        "rejected: a fork needs a child that was prepared for it (ask for it by clew fork)",
        "rejected: the child that was prepared for it is gone",
        "rejected: a fork needs a child that was prepared for it (ask for it by clew fork)",
    ]
