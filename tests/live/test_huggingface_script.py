"""``clew.callback``: a script with a Hugging Face trainer is a run, is steered like one, and goes on after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_support import Recorder, numbers_trainer
from script_support import apart, run_of, run_script, typed, write_script

import clew
from clew.checkpoints import CheckpointStore
from clew.errors import UserError
from clew.runs import Command, State
from clew.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

EXAMPLE = Path(__file__).parents[2] / "examples/live/huggingface_trainer.py"


def trained(folder, recorder, *, orders=(), name="numbers", validates=False, **arguments):
    """Train as a script would in a process of its own; orders wait for it at its first boundary."""
    given = {"save_strategy": "steps", "save_steps": 3} | arguments
    trainer = numbers_trainer(folder, recorder, **given)
    trainer.eval_dataset = trainer.train_dataset if validates else None
    callback = clew.callback(trainer, name=name, workspace=folder, origin=typed(folder))
    trainer.add_callback(callback)
    attach = Session.attach

    def ordered(self, *args, **options):
        for verb, said, at in orders:
            self.run.inbox.post(Command(verb, said, at=at))
        return attach(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "attach", ordered)
        apart(trainer.train)
    return trainer


def test_a_script_is_a_run_that_completes_with_its_metrics_and_checkpoints(tmp_path):
    recorder = Recorder()
    trained(tmp_path, recorder)
    run = run_of(tmp_path, "numbers")
    assert run.state is State.COMPLETED
    assert [event["step"] for event in run.events("metric")] == list(range(1, 9))
    assert run.result.metrics["loss"] == list(run.events("metric"))[-1]["values"]["loss"]
    assert [one.step for one in CheckpointStore(run.checkpoints).all()] == [8, 6], "as save_steps says, and the last"
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_stopped_script_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    order = ("set", {"lr": "*2", "batch_size": 8}, 2)
    whole, first, second = Recorder(), Recorder(), Recorder()
    straight = trained(tmp_path / "a", whole, orders=[order])
    trained(tmp_path / "b", first, orders=[order, ("stop", {}, 4)])
    run = run_of(tmp_path / "b", "numbers")
    assert run.state is State.STOPPED
    again = trained(tmp_path / "b", second)
    assert run.state is State.COMPLETED
    assert first.steps + second.steps == whole.steps
    assert again.model.weight.tolist() == straight.model.weight.tolist()


def test_the_callback_may_be_left_to_be_added_by_itself(tmp_path):
    trainer = numbers_trainer(tmp_path, Recorder())
    callback = clew.callback(trainer, name="numbers", workspace=tmp_path, origin=typed(tmp_path))
    apart(trainer.train)
    assert trainer.callback_handler.callbacks.count(callback) == 1
    assert run_of(tmp_path, "numbers").state is State.COMPLETED


def test_the_trainer_can_be_used_before_and_after(tmp_path):
    trainer = numbers_trainer(tmp_path, Recorder())
    trainer.eval_dataset = trainer.train_dataset
    clew.callback(trainer, name="numbers", workspace=tmp_path, origin=typed(tmp_path))
    before = trainer.evaluate()["eval_loss"]
    apart(trainer.train)
    assert trainer.evaluate()["eval_loss"] < before
    assert not any("eval_loss" in event["values"] for event in run_of(tmp_path, "numbers").events("metric"))


def test_samples_of_any_model_are_scored_and_chosen_by_the_trainers_own_loss(tmp_path):
    recorder = Recorder()
    order = ("select", {"recipe": "hardest 25%"}, 3)
    trained(tmp_path, recorder, orders=[order], learning_rate=0.0)
    (event,) = run_of(tmp_path, "numbers").events("command")
    assert event["outcome"] == "applied"
    # With w = 0 the loss of the number x is its square. What was scored went through the collator before.
    next_batch = recorder.steps[3][-4:]
    assert {number for step in [next_batch, *recorder.steps[4:]] for number in step} == {12, 13, 14, 15}


@pytest.mark.parametrize("verb", ["evaluate", "health"])
def test_looking_at_a_trainer_changes_nothing(verb, tmp_path):
    ends = []
    for name, orders in (("quiet", []), ("asked", [(verb, {}, 3)])):
        ends.append(trained(tmp_path, Recorder(), orders=orders, name=name, validates=True).model.weight.tolist())
    (event,) = run_of(tmp_path, "asked").events("command")
    assert ends[0] == ends[1]
    assert event["outcome"] == "applied"


@pytest.mark.parametrize("method", ["average", {"type": "fisher", "samples": 4}])
def test_a_merge_with_itself_changes_nothing(method, tmp_path):
    ends = []
    for name, orders in (("quiet", []), ("merged", [("merge", {"sources": [".", "3"], "method": method}, 3)])):
        trainer = trained(tmp_path, Recorder(), orders=orders, name=name, optim="sgd")
        ends.append(trainer.model.weight.tolist())
    (event,) = run_of(tmp_path, "merged").events("command")
    assert event["outcome"] == "applied"
    assert ends[0] == ends[1]


def test_the_example_runs(tmp_path):
    path = write_script(tmp_path, EXAMPLE.read_text().replace("max_steps=300", "max_steps=20"))
    ended = run_script(path, OMP_NUM_THREADS="1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("loss on sums that it has not seen: ")
    run = run_of(tmp_path, "sums")
    assert run.state is State.COMPLETED
    assert run.result.metrics["eval_loss"] > 0
    assert (run.checkpoints / "step-00000020").is_dir()  # nothing else keeps the last step


def test_what_cannot_be_is_refused(tmp_path):
    trainer = numbers_trainer(tmp_path, Recorder())
    trainer.args.load_best_model_at_end = True
    with pytest.raises(UserError, match="load_best_model_at_end wants checkpoints in output_dir"):
        clew.callback(trainer)
    trainer = numbers_trainer(tmp_path, Recorder())
    clew.callback(trainer, name="numbers", workspace=tmp_path, origin=typed(tmp_path))
    with pytest.raises(UserError, match="a run goes on from its own checkpoints\n  leave resume_from_checkpoint out"):
        trainer.train(resume_from_checkpoint=True)
