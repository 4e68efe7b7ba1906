"""The samples of a Hugging Face trainer: which ones come when, whatever is chosen, resized, stopped or cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers
from huggingface_support import Numbers, Recorder, attempt, make_run, numbers_trainer
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.data.feed import Feed
from clew.errors import UserError
from clew.inspection.samples import Part, Selection
from clew.runs import Command

pytestmark = pytest.mark.slow


def expected(sizes, selections=(), size=16, seed=3):
    """What a feed says: a batch of each size, with selections from some steps on."""
    feed, steps = Feed(size, seed, 4), []
    for step, count in enumerate(sizes):
        for at, selection in selections:
            if at == step:
                feed.select(selection)
        steps.append(feed.take(count).tolist())
    return steps


def chosen(*ids):
    return Selection((Part(np.array(ids, dtype=np.int64)),))


def test_each_batch_is_made_when_it_is_trained_on_and_not_before(tmp_path):
    seen = []
    recorder = Recorder()
    run, trainer = make_run(tmp_path), numbers_trainer(tmp_path, recorder)
    attempt(run, trainer, at={step: lambda callback: seen.append(list(recorder.since)) for step in range(1, 8)})
    assert recorder.steps == expected([4] * 8)
    assert seen == [[]] * 7


def test_a_selection_is_what_the_very_next_batch_is_made_of(tmp_path):
    recorder = Recorder()
    run, trainer = make_run(tmp_path), numbers_trainer(tmp_path, recorder)
    few = chosen(1, 2, 3)
    attempt(
        run,
        trainer,
        at={3: lambda callback: callback.surface.select(few), 6: lambda callback: callback.surface.select(None)},
    )
    assert recorder.steps == expected([4] * 8, [(3, few), (6, None)])
    assert {number for step in recorder.steps[3:6] for number in step} == {1, 2, 3}


def test_a_selection_of_samples_that_there_are_not_is_refused(tmp_path):
    def wrong(callback):
        with pytest.raises(UserError, match="a selection must name samples from 0 to 15"):
            callback.surface.select(chosen(16))

    recorder = Recorder()
    attempt(make_run(tmp_path), numbers_trainer(tmp_path, recorder), at={3: wrong})
    assert recorder.steps == expected([4] * 8)


def test_another_batch_size_holds_from_the_next_step_on_and_leaves_the_stream_as_it_is(tmp_path):
    recorder = Recorder()
    run, trainer = make_run(tmp_path), numbers_trainer(tmp_path, recorder)
    for at, size in ((1, 6), (3, 1), (4, 3), (5, 8), (6, 2)):
        run.inbox.post(Command("set", {"batch_size": size}, at=at))
    attempt(run, trainer)
    outcomes = [event["outcome"] for event in run.events("command")]
    assert outcomes[2] == (
        "rejected: batch_size cannot be 3: it must make whole forward passes of 2 rows, or less than one"
    )
    assert [one for number, one in enumerate(outcomes) if number != 2] == ["applied"] * 4
    assert recorder.steps == expected([4, 6, 6, 1, 1, 8, 2, 2])
    assert trainer.state.global_step == 8


def test_the_gradient_is_that_of_the_whole_batch_also_after_a_change_of_its_size(tmp_path):
    """However it is cut: the mean over forward passes of one size is the mean over the batch."""
    ends = []
    for name, size in (("cut", 2), ("whole", 8)):
        run = make_run(tmp_path, name)
        trainer = numbers_trainer(
            tmp_path, Recorder(), per_device_train_batch_size=size, gradient_accumulation_steps=8 // size, optim="sgd"
        )
        run.inbox.post(Command("set", {"batch_size": 4}, at=3))
        attempt(run, trainer)
        ends.append(float(trainer.model.weight.detach()))
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)


@pytest.mark.parametrize("stop_at", [2, 5, 7])
def test_a_stopped_run_goes_on_with_the_samples_that_come_next(stop_at, tmp_path):
    few = chosen(1, 2, 3, 5, 8)
    at = {4: lambda callback: callback.surface.select(few)}
    calm, run = make_run(tmp_path, "calm"), make_run(tmp_path)
    for one in (calm, run):
        one.inbox.post(Command("set", {"batch_size": 6}, at=3))
    run.inbox.post(Command("stop", {}, at=stop_at))
    whole, first, second = Recorder(), Recorder(), Recorder()
    straight, again = numbers_trainer(tmp_path, whole), numbers_trainer(tmp_path, second)
    attempt(calm, straight, at=at)
    assert not attempt(run, numbers_trainer(tmp_path, first), at=at)
    attempt(run, again, at=at)
    assert whole.steps == expected([4, 4, 4, 6, 6, 6, 6, 6], [(4, few)])
    assert first.steps + second.steps == whole.steps
    assert torch.equal(again.model.weight, straight.model.weight)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), cut=st.integers(0, 12))
def test_the_state_of_a_feed_is_its_position(sizes, cut):
    """What comes after a state does not depend on how one came there."""
    few = chosen(3, 1, 4)
    whole, half = Feed(16, 3, 4), Feed(16, 3, 4)
    for number, size in enumerate(sizes):
        if number == cut:
            whole.select(few)
            half.load(whole.state())
        whole.take(size)
    if cut < len(sizes):
        for size in sizes[cut:]:
            half.take(size)
        assert half.state()["samples_seen"] == whole.state()["samples_seen"]
        assert half.take(7).tolist() == whole.take(7).tolist()


def test_ranks_cut_a_batch_among_them(tmp_path, monkeypatch):
    from clew.live.trainer_feed import TrainerFeed

    whole = expected([8, 8])
    for rank in (0, 1):
        recorder = Recorder()
        trainer = numbers_trainer(tmp_path, recorder)
        monkeypatch.setattr(type(trainer.args), "world_size", 2)
        monkeypatch.setattr(type(trainer.args), "process_index", rank)
        batches = iter(TrainerFeed(trainer))
        for _ in range(4):
            next(batches)
        # Two forward passes of two rows on each of two ranks make a step.
        mine = [step[start + 2 * rank : start + 2 * rank + 2] for step in whole for start in (0, 4)]
        assert recorder.since == [number for part in mine for number in part]


def test_epochs_are_as_many_steps_as_they_need(tmp_path):
    recorder = Recorder()
    trainer = numbers_trainer(tmp_path, recorder, max_steps=-1, num_train_epochs=2.5, logging_strategy="epoch")
    run = make_run(tmp_path)
    attempt(run, trainer)
    assert recorder.steps == expected([4] * math.ceil(2.5 * 16 / 4))
    assert [event["step"] for event in run.events("metric")] == [4, 8, 10]
    assert trainer.state.epoch == 2.5


def test_samples_that_are_to_come_in_order_do(tmp_path):
    recorder = Recorder()
    attempt(make_run(tmp_path), numbers_trainer(tmp_path, recorder, train_sampling_strategy="sequential"))
    assert recorder.steps[:5] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [0, 1, 2, 3]]


class Streamed(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(Numbers(4)[number] for number in range(4))


class OwnLoader(transformers.Trainer):
    def get_train_dataloader(self):
        return super().get_train_dataloader()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda trainer: setattr(trainer, "train_dataset", Streamed()), "the training data must have a length"),
        (lambda trainer: setattr(trainer, "__class__", OwnLoader), "OwnLoader makes its data loader itself"),
        (
            lambda trainer: setattr(trainer.args, "train_sampling_strategy", "group_by_length"),
            "train_sampling_strategy is 'group_by_length'; take random or sequential",
        ),
    ],
)
def test_a_trainer_with_other_ideas_of_its_samples_is_refused(change, reason, tmp_path):
    trainer = numbers_trainer(tmp_path, Recorder())
    change(trainer)
    with pytest.raises(UserError, match="this trainer's batches cannot be chosen while it trains\n  " + reason):
        attempt(make_run(tmp_path), trainer)
