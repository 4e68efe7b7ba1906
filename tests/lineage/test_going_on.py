"""A run that is resumed differently: what it may, what would alter the past, and that it remains the run it was."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import walks
from walks import ask, attempt, made

from clew import api
from clew.checkpoints import CheckpointStore
from clew.checkpoints.aside import left_aside
from clew.config import explain
from clew.errors import UserError
from clew.followers.push import PushFollowing
from clew.jobs import choices, create_job_run, load_job, load_run_config
from clew.jobs.choices import choice_of, take_up
from clew.jobs.loading import load_run, run_origins
from clew.lineage.fork import Asked, fork
from clew.lineage.going_on import Wish, go_on_with
from clew.lineage.replay import replay
from clew.lineage.stretches import Stretch, first_values, stretches
from clew.remote import PushConfig
from clew.remote.mirror import restore
from clew.runs import Command, JournalWriter, Owner, Run, State, Workspace
from clew.session.live import Refused


def cut_off(workspace: Workspace, name: str = "a", at: int = 8, **config: object) -> Run:
    """A run that was killed at a step."""
    run = made(workspace, name, **config)
    attempt(run, killed_at=at)
    return run


def commands(run: Run) -> list[tuple[str, int, str]]:
    return [(one["verb"], one["at"], one["issuer"]) for one in run.events("command") if one["outcome"] == "applied"]


def numbers(run: Run) -> dict[int, tuple[float, str]]:
    """Position and hash of the state by step, as they count."""
    digests = {event["step"]: event["weights"] for event in run.events("digest")}
    return {event["step"]: (event["values"]["position"], digests[event["step"]]) for event in run.events("metric")}


def saved(run: Run) -> list[int]:
    return sorted(one.step for one in CheckpointStore(run.checkpoints).all())


def everything(run: Run) -> dict[str, bytes]:
    """All files of a run but its journal and its logs."""
    found = [path for path in run.path.rglob("*") if path.is_file() and path.parent.name not in ("journal", "logs")]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in found}


# What counts for no step that is done.


def test_what_counts_for_no_step_is_the_configs_from_the_next_attempt_on(workspace):
    run = cut_off(workspace)
    go_on_with(run, Wish(["every=2"]))
    attempt(run)
    assert load_run_config(run).every == 2
    assert saved(run) == [10, 12]
    (event,) = run.events("changed")
    assert (event["attempt"], event["keys"], event["was"]) == (2, {"every": 2}, {"every": 5})
    assert numbers(run) == numbers(whole(workspace))


def whole(workspace: Workspace, name: str = "whole", **config: object) -> Run:
    run = made(workspace, name, **config)
    attempt(run)
    return run


def test_it_is_explained_with_what_it_was_before(workspace):
    run = cut_off(workspace, every=4)
    go_on_with(run, Wish(["every=3"]))
    attempt(run, killed_at=9)
    go_on_with(run, Wish(["every=2"]))
    text = explain(load_run(run).loaded, "every")
    said = [line.split() for line in text.splitlines()[:5]]
    assert said[0] == ["every", "=", "2"]
    assert [(line[0], line[-2] if line[-1] == "shadowed" else line[-1]) for line in said[1:]] == [
        ("resume", "2"),
        ("resume", "3"),
        ("file", "4"),
        ("default", "5"),
    ]
    assert "clew resume, after attempt 2" in text


def test_the_config_keeps_its_hash_and_reloads_to_itself(workspace):
    run = cut_off(workspace)
    before = run.info
    go_on_with(run, Wish(["every=2", "log_every=3"]))
    assert run.info == before
    loaded = load_job(run.config_path)
    assert loaded.config_hash == before.config_hash
    assert {key: entry["value"] for key, entry in run_origins(run).items()} == {
        key: entry.value for key, entry in loaded.loaded.origins.items()
    }


def test_a_value_that_hash_counts_may_change_where_it_says_so(workspace):
    config = {"job": "pretrain", "name": "p", "task": {"type": "arithmetic", "train_size": 8}}
    run = create_job_run(workspace, load_job(config))
    go_on_with(run, Wish(["runtime.threads=1", "training.validate_every=7", "micro_batch_size=2"]))
    loaded = load_run_config(run)
    assert (loaded.runtime.threads, loaded.training.validate_every, loaded.training.micro_batch_size) == (1, 7, 2)
    assert set(choice_of(run).keys) == {
        "runtime.threads",
        "training.validate_every",
        "training.micro_batch_size",
    }


def test_sections_and_lists_come_and_go(workspace, tmp_path):
    run = cut_off(workspace)
    go_on_with(run, Wish(["track=[{type: tensorboard}]"]))
    assert choice_of(run).was == {"track": []}
    assert [one.type_name for one in map(_named, load_run_config(run).track)] == ["TensorBoard"]
    go_on_with(run, Wish(["track=[]"]))
    assert load_run_config(run).track == []
    assert not any(key.startswith("track.") for key in run_origins(run))
    assert run_origins(run)["track"]["value"] == []


class _named:
    def __init__(self, item: object) -> None:
        self.type_name = type(item).__name__


def test_what_is_so_already_changes_nothing(workspace):
    run = cut_off(workspace)
    before = everything(run)
    go_on_with(run, Wish(["every=5"]))
    assert everything(run) == before


# Numbers of the trainer.


def test_a_number_of_the_trainer_is_set_where_the_attempt_begins(workspace):
    run = cut_off(workspace)
    go_on_with(run, Wish(["lr=0.25", "fade=0.75"]))
    walk = attempt(run)
    assert (walk.lr, walk.fade) == (0.25, 0.75)
    assert commands(run) == [("set", 5, "resume")]
    assert load_run_config(run).lr == 1.0, "the config is what the run began with"
    by_hand = made(workspace, "by-hand")
    ask(by_hand, "set", at=5, lr=0.25, fade=0.75)
    attempt(by_hand)
    assert numbers(run) == numbers(by_hand)


def test_it_holds_again_when_the_run_is_killed_once_more(workspace):
    run = cut_off(workspace)
    go_on_with(run, Wish(["lr_mul=0.5"]))
    attempt(run, killed_at=7)
    assert attempt(run).lr == 0.5
    assert commands(run) == [("set", 5, "resume")]


def test_steps_may_become_more(workspace):
    run = cut_off(workspace)
    go_on_with(run, Wish(["steps=15"]))
    attempt(run)
    assert max(numbers(run)) == 15
    assert [event["total"] for event in run.events("horizon")][-1] == 15


def test_what_is_said_last_holds_though_an_earlier_attempt_is_repeated(workspace):
    run = made(workspace)
    ask(run, "set", at=7, lr=8.0)
    attempt(run, killed_at=8)
    go_on_with(run, Wish(["lr=0.25"]))
    walk = attempt(run)
    assert walk.lr == 0.25
    assert commands(run) == [("set", 7, walks_user()), ("set", 7, "resume")]
    attempts = [event["values"]["position"] for event in run.events("metric") if event["step"] == 7]
    assert attempts == [numbers(whole(workspace))[7][0]], "steps up to there are what they were"


def walks_user() -> str:
    import getpass

    return getpass.getuser()


def test_a_held_child_knows_the_numbers_of_its_parents_trainer(workspace):
    run = whole(workspace, "a")
    child = api.fork(run, at=5, hold=True, name="b", workspace=workspace).child
    go_on_with(child, Wish(["lr=0.25"]))
    assert attempt(child).lr == 0.25


# What is refused.


@pytest.mark.parametrize(
    ("word", "what", "hint"),
    [
        ("decay=0.5", "decay (0.1) cannot change: the steps that are done were made with it", "decay=0.5 makes a"),
        ("seed=4", "seed (0) cannot change", "clew fork a log_every=2 seed=4 makes a child"),
        ("lr=-1", "", ""),
        ("lr=1e400", "lr is a number, not '1e400'", ""),
        ("lr_mul=x", "lr is multiplied by a number, not by 'x'", ""),
        ("wd_mul=2", "a has no weight_decay that wd_mul could multiply", "there is lr, fade, steps"),
        ("lr=quick", "'lr' must be float, not 'quick'", ""),
        ("lr=null", "lr can be set to another value while a run goes on, but not to none", "clew fork a lr=null"),
        ("every=often", "'every' must be int", ""),
        ("evry=2", "there is nothing 'evry' to change in a", "did you mean 'every'?"),
        ("name=b", "there is nothing 'name' to change in a", ""),
        ("job=b", "there is nothing 'job' to change in a", ""),
        ("every", "'every' is not key=value", ""),
    ],
)
def test_what_would_alter_the_past_is_refused_with_the_key_and_what_to_do(workspace, word, what, hint):
    run = cut_off(workspace)
    before = everything(run)
    if not what:  # only the trainer itself knows these bounds
        go_on_with(run, Wish([word]))
        assert choice_of(run).settings == {"lr": "-1"}
        return
    with pytest.raises(UserError) as refused:
        go_on_with(run, Wish(["log_every=2", word]))
    assert what in str(refused.value)
    assert hint in str(refused.value)
    assert everything(run) == before, "nothing of it is done"


def refused(ask_for: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        ask_for()
    return str(error.value)


def test_an_end_that_a_run_has_passed_is_refused_before_anything_starts(workspace):
    run = cut_off(workspace, every=3)
    earlier, last = saved(run)[-2:]
    before = everything(run)
    said = (
        f"a: steps cannot be {last}: {last} steps are done\n  say more than {last}; or "
        f"clew fork a --at {earlier} steps={last} every=2 makes a child that ends there"
    )
    words = [f"steps={last}", "every=2"]
    assert refused(lambda: go_on_with(run, Wish(words))) == said
    assert refused(lambda: api.resume("a", overrides=words, workspace=workspace)) == said
    assert everything(run) == before, "no attempt was begun"


def test_where_no_checkpoint_lies_before_an_end_another_run_is_advised(workspace):
    run = cut_off(workspace, every=3)
    first, last = saved(run)[0], saved(run)[-1]
    another = f"or clew run {run.config_path} steps={{}} --name NAME makes another run"
    assert refused(lambda: go_on_with(run, Wish(["steps=1"]))) == (
        f"a: steps cannot be 1: {last} steps are done\n  say more than {last}; {another.format(1)}"
    )
    assert refused(lambda: go_on_with(run, Wish([f"steps={first}"], at=str(first)))) == (
        f"a: steps cannot be {first}: {first} steps are done\n  say more than {first}; {another.format(first)}"
    )


def test_the_nearest_end_that_is_left_and_the_fork_that_is_advised_are_carried_out(workspace):
    run = cut_off(workspace, every=3)
    earlier, last = saved(run)[-2:]
    overrides = [f"steps={last}"]
    child = api.fork(run, at=earlier, name="b", overrides=overrides, hold=True, workspace=workspace).child
    go_on_with(run, Wish([f"steps={last + 1}"]))
    for one, end in ((run, last + 1), (child, last)):
        attempt(one)
        assert (one.state, max(numbers(one))) == (State.COMPLETED, end)


def test_an_end_that_would_be_set_after_an_earlier_one_lies_behind_that_step(workspace):
    run = made(workspace)
    ask(run, "set", at=8, steps=20)
    attempt(run, killed_at=9)
    assert refused(lambda: go_on_with(run, Wish(["steps=8"]))).startswith("a: steps cannot be 8: 8 steps are done\n")
    go_on_with(run, Wish(["steps=9"]))
    attempt(run)
    assert max(numbers(run)) == 9


def begun(workspace: Workspace, config: dict[str, object], **keys: str) -> Run:
    """A run whose trainer has told what can be set, and the keys of the config that it stands over."""
    run = create_job_run(workspace, load_job({"name": "a", **config}))
    journal = JournalWriter(run.path / "journal", 1)
    journal.write("settings", keys=keys)
    journal.close()
    return run


def test_a_multiple_that_the_config_has_no_room_for_is_refused_at_once(workspace):
    config = {"job": "pretrain", "task": {"type": "arithmetic", "train_size": 8}}
    run = begun(workspace, config, lr="training.lr", weight_decay="training.optimizer.weight_decay")
    for word in ("lr_mul=-1", "lr_mul=0", "wd_mul=-0.5"):
        for ask_for in (
            lambda word=word: go_on_with(run, Wish([word])),
            lambda word=word: fork(run, Asked(words=[word])),
        ):
            key, bounds = ("lr", "float > 0 | null") if "lr" in word else ("optimizer.weight_decay", "float >= 0")
            factor = word.partition("=")[2]
            assert refused(ask_for) == f"a: training.{key} must be {bounds}, so {factor} is no factor"
    go_on_with(run, Wish(["lr_mul=2", "wd_mul=0"]))
    assert choice_of(run).settings == {"lr": "*2", "weight_decay": "*0"}


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("lr=abc", "lr is a number, not 'abc'"),
        ("weight_decay=2x", "weight_decay is a number, not '2x'"),
        ("weight_decay=*y", "weight_decay is multiplied by a number, not by 'y'"),
        ("momentum=true", "momentum is a number, not 'true'"),
        ("batch_size=2.5", "batch_size is a whole number, not '2.5'"),
        ("steps=many", "steps is a whole number, not 'many'"),
    ],
)
def test_a_word_for_a_number_of_a_script_is_refused_at_once(workspace, word, what):
    names = {"lr": "params.lr", "weight_decay": "", "momentum": "", "batch_size": "", "steps": ""}
    run = begun(workspace, {"job": "script", "script": walks.__file__}, **names)
    assert refused(lambda: go_on_with(run, Wish([word]))) == f"a: {what}"
    assert refused(lambda: fork(run, Asked(words=[word]))) == f"a: {what}"
    assert choice_of(run) is None
    assert [path.name for path in workspace.runs.iterdir()] == ["a"]
    go_on_with(run, Wish(["lr=0.5", "weight_decay=*0.5"]))
    assert choice_of(run).settings == {"lr": "0.5", "weight_decay": "*0.5"}


def test_a_run_that_has_saved_nothing_is_another_run_with_another_config(workspace):
    run = made(workspace)
    with pytest.raises(UserError) as refused:
        go_on_with(run, Wish(["decay=0.5"]))
    assert str(refused.value) == (
        "a: decay (0.1) cannot change: it makes the run what it is\n"
        f"  clew run {run.config_path} decay=0.5 --name NAME makes another run"
    )


def test_an_unknown_target_is_told_with_those_that_there_are(workspace):
    run = cut_off(workspace)
    with pytest.raises(UserError, match=r"there is no target 'locl'\n  did you mean 'local'\?"):
        go_on_with(run, Wish(on="locl"))
    go_on_with(run, Wish(on="local"))
    attempt(run)
    assert [(event["target"], event["keys"], event["set"]) for event in run.events("changed")] == [("local", {}, {})]


@pytest.mark.parametrize("words", [["every=2"], ["lr=0.5"]])
def test_a_run_that_somebody_works_on_changes_only_between_two_attempts(workspace, words):
    run = cut_off(workspace)
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    with pytest.raises(UserError, match="it is running, and goes on differently only in its next attempt"):
        go_on_with(run, Wish(words))
    assert choice_of(run) is None


# Going back.


def test_going_back_makes_later_steps_commands_and_checkpoints_count_no_longer(workspace):
    run = made(workspace, steps=14, every=3)
    early = ask(run, "set", at=2, lr=2.0)
    ask(run, "set", at=8, lr=50.0)
    ask(run, "checkpoint", at=12, tag="mine")
    ask(run, "reset", at=12, to=12)
    attempt(run, killed_at=13)
    assert saved(run) == [9, 12]
    assert (run.path / "kept" / "@12").is_dir()
    ask(run, "set", at=13, fade=0.1)
    store = CheckpointStore(run.checkpoints)

    with pytest.raises(UserError, match=r"there is no checkpoint '6'\n  there (is|are) 9, 12, mine"):
        go_on_with(run, Wish(at="6"))
    choice = go_on_with(run, Wish(at="9"))
    assert choice.back == 9
    attempt(run)

    # The course is that of a run which never heard of what came after step 9; what waits for a later step still does.
    other = made(workspace, "other", steps=14, every=3)
    for at, args in ((2, {"lr": 2.0}), (8, {"lr": 50.0}), (13, {"fade": 0.1})):
        ask(other, "set", at=at, **args)
    attempt(other)
    assert numbers(run) == numbers(other)
    assert [(verb, at) for verb, at, _ in commands(run)] == [("set", 2), ("set", 8), ("set", 13)]
    assert early.id in {event["id"] for event in run.events("command")}
    (event,) = run.events("went_back")
    assert (event["attempt"], event["to"], event["aside"]) == (2, 9, "aside/2")
    aside = sorted(path.name for path in (run.path / "aside" / "2").iterdir())
    assert aside == ["@12", "step-00000012", "tags.json"]
    assert (store.tags(), json.loads((run.path / "aside/2/tags.json").read_text())) == ({}, {"mine": 12})
    assert store.newest_good() == (store.all()[0], {})


def test_going_back_to_the_newest_checkpoint_forgets_what_was_asked_for_after_it(workspace):
    run = made(workspace)
    ask(run, "set", at=5, lr=2.0)
    ask(run, "set", at=7, lr=50.0)
    attempt(run, killed_at=8)
    assert saved(run) == [5]
    go_on_with(run, Wish(at="last"))
    attempt(run)
    assert commands(run) == []
    assert numbers(run) == numbers(whole(workspace))


@pytest.mark.parametrize(("every", "lr"), [(4, 2.0), (5, 1.0)])
def test_what_a_checkpoint_contains_stays_when_the_run_goes_back_to_it(workspace, every, lr):
    """One that is due at a step is saved before what is asked for there, and does not contain it."""
    run = made(workspace, every=every)
    ask(run, "set", at=5, lr=2.0)
    ask(run, "stop", at=5)
    attempt(run)
    ask(run, "set", at=6, lr=3.0)
    attempt(run, killed_at=9)
    go_on_with(run, Wish(at="5"))
    assert attempt(run).lr == lr
    assert ("set", 6) not in [(verb, at) for verb, at, _ in commands(run)]


def test_a_damaged_checkpoint_is_not_gone_back_to(workspace):
    run = cut_off(workspace, every=3)
    assert saved(run) == [3, 6]
    (run.checkpoints / "step-00000003" / "walk.json").write_text("{}")
    with pytest.raises(UserError, match=r"the checkpoint of step 3 cannot be used: .*\n  there are 3, 6"):
        go_on_with(run, Wish(at="3"))
    assert saved(run) == [3, 6]


def test_a_command_that_was_settled_and_still_lies_there_is_not_done_in_the_new_course(workspace):
    run = made(workspace)
    left = ask(run, "set", lr=50.0)
    attempt(run, killed_at=8)
    assert commands(run) == [("set", 0, walks_user())]
    run.inbox.post(left)  # its process died before it could take it away
    run2 = made(workspace, "b")
    late = ask(run2, "set", at=7, lr=50.0)
    attempt(run2, killed_at=8)
    run2.inbox.post(late)
    run2.inbox.post(Command("set", {"lr": 50.0}, id=late.id))
    go_on_with(run2, Wish(at="5"))
    assert attempt(run2).lr == 1.0
    assert numbers(run2) == numbers(whole(workspace))


def test_going_back_and_otherwise_together(workspace):
    run = made(workspace)
    ask(run, "set", at=9, lr=50.0)
    attempt(run, killed_at=11)
    assert saved(run) == [5, 10]
    go_on_with(run, Wish(["lr=0.25", "every=2"], at="5"))
    walk = attempt(run)
    assert walk.lr == 0.25
    assert commands(run) == [("set", 5, "resume")]
    assert saved(run) == [10, 12]


def test_what_was_set_aside_can_go_once_a_good_checkpoint_is_there(workspace):
    run = made(workspace)
    attempt(run, killed_at=11)
    go_on_with(run, Wish(at="5"))
    attempt(run, killed_at=7)
    assert saved(run) == [5]
    assert list(left_aside(workspace)) == []
    attempt(run)
    (left,) = left_aside(workspace)
    assert left.path == run.path / "aside" / "2"
    assert left.what == "set aside when the run went back"
    assert left.bytes > 0


def test_copies_elsewhere_of_the_course_that_was_left_do_not_come_back(workspace, tmp_path):
    run = made(workspace)
    attempt(run, killed_at=11)
    place = f"file://{tmp_path}/copies"
    copies = PushFollowing(push=PushConfig(to=place, what=["checkpoints", "run"])).open(run, {})
    copies.send([{"kind": "checkpoint", "step": 10}])
    go_on_with(run, Wish(at="5"))
    number = run.states.queue()
    take_up(run, number)  # and it dies before it has restored anything
    run.states.move(State.INTERRUPTED, attempt=number)
    assert [event["step"] for event in run.events("checkpoint")] == [5]
    assert max(numbers(run)) == 5
    assert restore(run, place).steps == ()
    attempt(run)
    shutil.rmtree(run.checkpoints / "step-00000010")
    copies.send([{"kind": "checkpoint", "step": 12}])
    assert restore(run, place).steps == ()


def test_a_run_is_resumed_as_before_after_it_went_back(workspace):
    run = made(workspace)
    ask(run, "set", at=7, lr=50.0)
    attempt(run, killed_at=8)
    go_on_with(run, Wish(at="5"))
    attempt(run, killed_at=6)
    ask(run, "set", at=8, lr=0.5)
    attempt(run, killed_at=9)
    attempt(run)
    assert [(verb, at) for verb, at, _ in commands(run)] == [("set", 8)]
    by_hand = made(workspace, "by-hand")
    ask(by_hand, "set", at=8, lr=0.5)
    attempt(by_hand)
    assert numbers(run) == numbers(by_hand)


# Whoever asks may die, and so may the worker.


class Died(BaseException):
    """Nothing more happens in this process."""


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Let the process die before its n-th change of a name; returns how many there were."""
    count = 0

    def counted(call):
        def calling(*args, **options):
            nonlocal count
            count += 1
            if count == at:
                raise Died
            return call(*args, **options)

        return calling

    for name in ("rename", "replace", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    return lambda: count


WISH = Wish(["lr=0.25", "every=2", "log_every=3"], at="5", on="local")


def test_wherever_whoever_asks_dies_the_run_goes_on_as_before_or_as_it_was_told(workspace):
    plain, changed = made(workspace, "plain"), made(workspace, "changed")
    for run in (plain, changed):
        ask(run, "set", at=9, lr=50.0)
        attempt(run, killed_at=11)
    go_on_with(changed, WISH)
    attempt(plain)
    attempt(changed)
    expected = {json.dumps(numbers(run)) for run in (plain, changed)}
    assert len(expected) == 2
    seen = set()
    for number in range(1, 100):
        run = made(workspace, f"run{number}")
        ask(run, "set", at=9, lr=50.0)
        attempt(run, killed_at=11)
        with pytest.MonkeyPatch.context() as patch:
            calls = dying(patch, number)
            with suppress(Died):
                go_on_with(run, WISH)
            done = calls() < number
        attempt(run)
        found = json.dumps(numbers(run))
        assert found in expected, f"call {number}"
        seen.add(found)
        config = load_run_config(run)
        assert (config.every, config.log_every) == ((5, 1) if found == json.dumps(numbers(plain)) else (2, 3))
        if done:
            break
    assert seen == expected
    assert number > 3


def test_wherever_the_worker_dies_the_next_one_does_what_was_chosen_once(workspace):
    expected = made(workspace, "expected")
    attempt(expected, killed_at=11)
    go_on_with(expected, WISH)
    attempt(expected)
    for number in range(1, 100):
        run = made(workspace, f"run{number}")
        ask(run, "checkpoint", at=10, tag="mine")
        attempt(run, killed_at=11)
        go_on_with(run, WISH)
        attempt_number = run.states.queue()
        for state in (State.STARTING, State.RUNNING):
            run.states.move(state, attempt=attempt_number, owner=Owner.current())
        with pytest.MonkeyPatch.context() as patch:
            calls = dying(patch, number)
            with suppress(Died):
                take_up(run, attempt_number)
            done = calls() < number
        run.states.move(State.INTERRUPTED, attempt=attempt_number)
        attempt(run)
        assert numbers(run) == numbers(expected), f"call {number}"
        assert commands(run) == [("set", 5, "resume")]
        assert choice_of(run) is None
        aside = sorted(path.name for path in (run.path / "aside").glob("*/step-*"))
        assert aside == ["step-00000010"]
        assert first_values(run) == {"every": 5, "log_every": 1}
        if done:
            break
    assert number > 5


def test_two_wishes_before_an_attempt_are_one(workspace):
    run = cut_off(workspace)
    go_on_with(run, Wish(["every=2", "lr=0.5"]))
    go_on_with(run, Wish(["every=3", "fade=0.75"]))
    walk = attempt(run)
    assert (walk.lr, walk.fade, load_run_config(run).every) == (0.5, 0.75, 3)
    (event,) = run.events("changed")
    assert (event["keys"], event["was"]) == ({"every": 3}, {"every": 5})


def test_what_was_chosen_for_an_attempt_that_went_on_without_it_is_dropped(workspace, monkeypatch):
    run = cut_off(workspace)
    go_on_with(run, Wish(at="5"))
    monkeypatch.setattr(choices, "take_up", lambda run, attempt: None)  # a script that was started by hand
    attempt(run, killed_at=11)
    monkeypatch.undo()
    assert saved(run) == [5, 10]
    attempt(run)
    assert list(run.events("went_back")) == []
    assert choice_of(run) is None
    assert not (run.path / "aside").exists()


# Repeated.


def test_a_run_is_a_course_of_stretches_with_a_config_each(workspace):
    run = cut_off(workspace)
    go_on_with(run, Wish(["every=2"]))
    attempt(run, killed_at=9)
    go_on_with(run, Wish(["log_every=3"]))
    attempt(run, killed_at=9)
    attempt(run)
    assert stretches(run) == [Stretch(0, {}), Stretch(5, {"every": 2}), Stretch(8, {"every": 2, "log_every": 3})]
    assert stretches(run, until=1) == [Stretch(0, {})]
    assert first_values(run) == {"every": 5, "log_every": 1}


@pytest.mark.slow
def test_a_run_that_was_resumed_differently_is_repeated_bit_by_bit(workspace):
    run = made(workspace, steps=20)
    ask(run, "set", at=3, lr=0.5)
    attempt(run, killed_at=8)
    go_on_with(run, Wish(["log_every=3", "lr=0.25"]))
    attempt(run, killed_at=12)
    go_on_with(run, Wish(["every=2", "log_every=4", "steps=24"]))
    attempt(run)
    found = replay(run, name="again")
    assert (found.comparison.difference, found.comparison.steps) == (None, 24)
    again = Run(workspace.runs / "again")
    means = [{event["step"]: event["values"]["mean"] for event in one.events("metric")} for one in (run, again)]
    assert means[0] == means[1]
    assert sorted(means[0]) == [1, 2, 3, 4, 5, 6, 9, 12, 16, 20, 24]
    assert [event["keys"] for event in again.events("changed")] == [event["keys"] for event in run.events("changed")]
    assert load_job(again.config_path).config_hash == run.info.config_hash


@pytest.mark.slow
def test_a_run_that_saves_halfway_is_repeated_bit_by_bit_and_forked_from_there(workspace):
    run = made(workspace, halfway=True)
    ask(run, "reset", at=8, to="last")
    attempt(run, killed_at=11)
    assert [event["result"]["source"] for event in run.events("command")] == ["@7"]
    attempt(run)
    assert ([event["step"] for event in run.events("restore")], saved(run)) == ([0, 10], [5, 10, 12])
    child = api.fork(run, at=12, hold=True, name="child", overrides=["steps=14"], workspace=workspace).child
    attempt(child)
    for one, steps in ((run, 12), (child, 14)):
        found = replay(one)
        assert (found.comparison.difference, found.comparison.steps) == (None, steps), one.id


@pytest.mark.slow
def test_a_run_that_went_back_is_repeated_as_it_counts_and_its_child_as_it_was(workspace):
    run = made(workspace, every=3)
    ask(run, "set", at=4, lr=5.0)
    attempt(run, killed_at=8)
    child = api.fork(run, at=6, hold=True, name="child", workspace=workspace).child
    attempt(child)
    time.sleep(0.002)  # times have four digits in a journal
    go_on_with(run, Wish(["lr=0.25"], at="3"))
    attempt(run)
    for one, steps in ((run, 12), (child, 12)):
        found = replay(one)
        assert (found.comparison.difference, found.comparison.steps) == (None, steps), one.id
    assert api.verify(run, child).difference.step == 7


@pytest.mark.slow
def test_from_python(workspace):
    run = cut_off(workspace)
    result = api.resume("a", overrides=["every=2", "lr=0.25"], workspace=workspace)
    assert result.status == "completed"
    assert commands(run) == [("set", 5, "resume")]
    assert saved(run) == [10, 12]
    assert api.resume("a", workspace=workspace) == result
    with pytest.raises(UserError, match="it has completed, and stays what it is"):
        api.resume(run, overrides=["every=2"])


@pytest.mark.slow
def test_a_run_that_refuses_what_it_is_to_set_is_stopped_and_says_so(workspace):
    run = cut_off(workspace, steps=500, pause=0.01)
    with pytest.raises(Refused, match=r"set rejected: lr must be at least 0, not '-1'\n  it was stopped"):
        api.resume(run, overrides=["lr=-1"])
    assert run.state is State.STOPPED
    assert saved(run)[-1] < 500
