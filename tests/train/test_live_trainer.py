"""What can be asked of the native trainer between two steps."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np
import pytest
import torch

from clew.checkpoints.snapshot import Snapshots, to_memory
from clew.checkpoints.state import load_state, save_state
from clew.data.packing import Windows
from clew.errors import DataError, NotFinite
from clew.inspection.samples import Part, Selection
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.session.settings import chosen, write
from clew.train import Constant, Cosine, MuonConfig, TrainingConfig, Wsd
from clew.train.loop import Trainer
from clew.train.throughput import Throughput

VOCAB, SEQ_LEN, PATIENCE = 30, 8, 20.0


@dataclass(frozen=True)
class Watched(Windows):
    """Notes which samples were asked for."""

    asked: list[int] = field(default_factory=list)

    def batch(self, ids):
        self.asked.extend(ids.tolist())
        return super().batch(ids)


def trainer(*, init: int = 0, width: int = 16, export=None, seed: int = 5, **options) -> Trainer:
    torch.manual_seed(init)
    config = TrainingConfig(**{"steps": 20, "batch_size": 4, **options})
    model = Decoder(ModelConfig(depth=1, width=width, heads=2), VOCAB, SEQ_LEN)
    samples = Watched(np.random.default_rng(0).integers(0, VOCAB, 400).astype(np.uint16), SEQ_LEN)
    return Trainer(model, samples, config, lr=0.01, total_steps=20, seed=seed, export=export)


def seen(trained: Trainer) -> list[int]:
    return trained.samples.asked


def run(trained: Trainer, steps: int) -> Trainer:
    for _ in range(steps):
        trained.step()
    return trained


def adjust(trained: Trainer, **values) -> None:
    write(trained.settings(), chosen(trained.settings(), values))


def saved(trained: Trainer, directory) -> dict[str, bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    trained.save(directory)
    return files(directory)


def files(directory) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def part(*ids: int, share: float = 1.0) -> Part:
    return Part(np.array(ids, dtype=np.int64), share)


# Settings.


def test_a_batch_of_another_size_takes_up_where_the_last_one_ended():
    steady, changing = run(trainer(), 15), trainer()
    for size in (1, 9, 4, 16, 30):
        adjust(changing, batch_size=size)
        changing.step()
    assert seen(changing) == seen(steady)
    assert sorted(seen(changing)[:50]) == list(range(50))
    assert changing.feed.samples_seen == 60
    assert changing.measure()["epoch"] == 60 / 50


def test_the_batch_size_is_that_of_one_forward_pass_where_the_config_says_no_other():
    trained = trainer()
    adjust(trained, batch_size=10)
    assert trained.micro_batch_size == 10
    fixed = trainer(micro_batch_size=2)
    adjust(fixed, batch_size=10)
    assert fixed.micro_batch_size == 2


def test_a_schedule_is_changed_by_name_and_keeps_the_configs_own_numbers_for_the_way_back():
    own = Wsd(warmup=0.5, decay=0.5)
    trained = run(trainer(schedule=own), 2)
    adjust(trained, schedule="cosine")
    assert trained.schedule == Cosine()
    adjust(trained, schedule="constant")
    assert trained.current_lr == 0.01
    adjust(trained, schedule="wsd")
    assert trained.schedule is own
    assert trained.current_lr == pytest.approx(0.003)


def test_settings_hold_after_a_resume_in_whatever_order_they_are_put_in_force(tmp_path):
    values = {"lr": 0.004, "weight_decay": 0.3, "steps": 30, "batch_size": 7, "schedule": "cosine"}
    straight = run(trainer(), 3)
    adjust(straight, **values)
    run(straight, 2).save(tmp_path)
    run(straight, 3)
    ends = set()
    for names in list(permutations(values))[::17]:
        resumed = trainer(init=4)
        resumed.load(tmp_path)
        for name in names:
            adjust(resumed, **{name: values[name]})
        ends.add(tuple(run(resumed, 3).digests().values()))
    assert ends == {tuple(straight.digests().values())}


def test_each_setting_stands_over_a_key_of_the_config():
    settings = {setting.name: setting for setting in trainer().settings()}
    assert {name: setting.key for name, setting in settings.items()} == {
        "lr": "training.lr",
        "weight_decay": "training.optimizer.weight_decay",
        "max_grad_norm": "training.max_grad_norm",
        "steps": "training.steps",
        "batch_size": "training.batch_size",
        "schedule": "training.schedule.type",
    }
    fields = {"lr": 0.01, "weight_decay": 0.1, "max_grad_norm": 1.0, "steps": 20, "batch_size": 4, "schedule": "wsd"}
    assert {name: setting.read() for name, setting in settings.items()} == fields
    assert settings["schedule"].choices == ("wsd", "cosine", "constant")


# Data.


def test_a_selection_holds_from_the_very_next_batch_and_a_resumed_run_keeps_it(tmp_path):
    chosen_ids = [3, 8, 20, 21, 40, 44]
    straight = run(trainer(), 3)
    straight.select(Selection((part(*chosen_ids),), {"easiest": "12%"}))
    run(straight, 2)
    assert set(seen(straight)[12:]) == set(chosen_ids)
    straight.save(tmp_path)
    resumed = trainer(init=3)
    resumed.load(tmp_path)
    assert resumed.feed.selection.recipe == {"easiest": "12%"}
    run(resumed, 4)
    run(straight, 4)
    assert seen(resumed) == seen(straight)[20:]
    assert resumed.digests() == straight.digests()
    straight.select(None)
    assert seen(run(straight, 9))[36:] == seen(run(trainer(), 18))[36:]


def test_a_mixture_and_an_order_of_its_own_survive_a_checkpoint(tmp_path):
    ids = np.array([9, 2, 7])
    ids.setflags(write=False)
    trained = trainer()
    trained.select(Selection((Part(ids, 3.0), part(1, share=1.0)), shuffled=False))
    run(trained, 1).save(tmp_path)
    resumed = trainer()
    resumed.load(tmp_path)
    assert [one.share for one in resumed.feed.selection.parts] == [3.0, 1.0]
    assert not resumed.feed.selection.shuffled
    assert np.array_equal(resumed.feed.peek(100), trained.feed.peek(100))


def test_a_selection_of_samples_that_there_are_not_is_refused():
    trained, other = trainer(), trainer()
    with pytest.raises(DataError, match="must name samples from 0 to 49"):
        trained.select(Selection((part(50),)))
    assert seen(run(trained, 2)) == seen(run(other, 2))


def test_checkpoints_from_before_there_were_selections_load(tmp_path):
    straight = run(trainer(), 7)
    straight.save(tmp_path)
    state = load_state(tmp_path, "trainer")
    del state["feed"]
    save_state(tmp_path, "trainer", {**state, "samples_seen": 28})
    resumed = trainer(init=1)
    resumed.load(tmp_path)
    assert run(resumed, 9).digests() == run(straight, 9).digests()
    assert seen(resumed) == seen(straight)[28:]


# Putting back.


@pytest.mark.parametrize("options", [{}, {"optimizer": MuonConfig()}], ids=["adamw", "muon"])
def test_a_reset_takes_weights_and_moments_back_and_lets_steps_data_and_schedule_go_on(options, tmp_path):
    straight, trained = trainer(**options), trainer(**options)
    before = run(trained, 3)
    saved(before, tmp_path)
    then = before.digests()
    run(trained, 4)
    trained.reset(tmp_path, optimizer=False)
    assert trained.digests() == then
    run(straight, 7)
    for name in ("step_number", "tokens_seen", "current_lr"):
        assert getattr(trained, name) == getattr(straight, name)
    run(trained, 1)
    run(straight, 1)
    assert seen(trained) == seen(straight)
    assert trained.digests() != straight.digests()


def test_an_optimizer_that_was_reset_knows_nothing(tmp_path):
    trained, fresh = run(trainer(), 5), trainer()
    weights = trained.digests()["weights"]
    trained.reset(None, optimizer=True)
    assert trained.digests() == {"weights": weights, "optimizer": fresh.digests()["optimizer"]}
    saved(trained, tmp_path)  # a state without moments goes out and in like any other
    fresh.load(tmp_path)
    assert run(fresh, 2).digests() == run(trained, 2).digests()


def test_weights_are_taken_back_with_a_fresh_optimizer(tmp_path):
    trained = run(trainer(), 2)
    saved(trained, tmp_path)
    weights = trained.digests()["weights"]
    run(trained, 3).reset(tmp_path, optimizer=True)
    assert trained.digests() == {"weights": weights, "optimizer": trainer().digests()["optimizer"]}


def test_after_a_loss_that_is_not_finite_a_reset_goes_on(tmp_path):
    trained = run(trainer(), 2)
    saved(trained, tmp_path)
    with torch.no_grad():
        trained.model.norm.weight.fill_(float("nan"))
    trained.step()
    for asked in (trained.measure, lambda: trained.validate(trained.samples), trained.snapshot):
        with pytest.raises(NotFinite, match="no longer finite at step 3"):
            asked()
    assert trained.patience.waited == 0
    trained.reset(tmp_path, optimizer=False)
    run(trained, 2)
    assert np.isfinite(trained.measure()["loss"])
    assert trained.step_number == 5


def test_what_does_not_fit_is_not_taken_at_all(tmp_path):
    trained = run(trainer(), 2)
    before = trained.digests()
    saved(run(trainer(width=32), 1), tmp_path / "wide")
    saved(run(trainer(optimizer=MuonConfig()), 1), tmp_path / "muon")
    (tmp_path / "empty").mkdir()
    for name, reason in {
        "wide": "the checkpoint is of another model: embed.weight",
        "muon": "the optimizer state is of another optimizer than AdamW: layers.0",
        "empty": "this is no checkpoint of a pretraining",
    }.items():
        with pytest.raises(DataError, match=reason):
            trained.reset(tmp_path / name, optimizer=False)
        assert trained.digests() == before
    trained.reset(tmp_path / "muon", optimizer=True)
    assert trained.digests()["weights"] != before["weights"]


# Comparing, and how it is doing.


def test_digests_tell_weights_and_optimizers_apart():
    one, same, other = run(trainer(), 2), run(trainer(), 2), run(trainer(seed=6), 2)
    assert one.digests() == same.digests()
    assert one.digests()["weights"] != other.digests()["weights"]
    moved = one.digests()
    adjust(one, lr=1e-30, weight_decay=0)
    run(one, 1)
    assert one.digests()["optimizer"] != moved["optimizer"]


def test_health_says_how_it_goes_and_changes_nothing(tmp_path):
    trained = run(trainer(), 6)
    before = saved(trained, tmp_path / "a")
    report = trained.health()
    json.dumps(report, allow_nan=False)
    assert report["step"] == 6
    assert report["throughput"]["steps"] == 6
    assert report["determinism"]["data"] == {"seed": 5, "samples_seen": 24, "epoch": 0.48, "selected": None}
    assert report["activations"]
    assert saved(trained, tmp_path / "b") == before


def test_time_aside_counts_once_where_it_lies_inside_other_such_time():
    now = [0.0]
    throughput = Throughput(lambda: now[0])
    throughput.start()
    throughput.add(30)
    now[0] = 1.0
    with throughput.excluded():
        now[0] = 5.0
        with throughput.excluded():
            now[0] = 9.0
    now[0] = 11.0
    assert throughput.read() == 10.0


# Saving while it trains on.


def exporting(weights, directory) -> None:
    (directory / "model").mkdir()
    (directory / "model" / "norm.txt").write_text(repr(weights["norm.weight"].tolist()))


@pytest.mark.parametrize("options", [{}, {"optimizer": MuonConfig()}], ids=["adamw", "muon"])
def test_a_snapshot_writes_what_a_save_would_have_written_though_the_training_goes_on(options, tmp_path):
    quiet, trained = run(trainer(**options), 8), run(trainer(export=exporting, **options), 3)
    trained.select(None)
    trained.measure()
    expected = saved(trained, tmp_path / "saved")
    write_it, given_up = trained.snapshot(), trained.snapshot()
    del given_up
    adjust(trained, lr=0.01)
    run(trained, 2)
    trained.measure()
    (tmp_path / "kept").mkdir()
    writer = threading.Thread(target=write_it, args=(tmp_path / "kept",))
    writer.start()
    run(trained, 3)
    writer.join(PATIENCE)
    assert files(tmp_path / "kept") == expected
    assert "model/norm.txt" in expected
    assert trained.digests() == quiet.digests()


def test_a_step_computes_its_gradients_while_copies_are_made_and_changes_weights_after_them(monkeypatch, tmp_path):
    may_copy, copied = threading.Event(), []

    def slowly(tensor):
        assert may_copy.wait(PATIENCE), "the step waited before its gradients were there"
        copied.append(to_memory(tensor))
        return copied[-1]

    monkeypatch.setattr("clew.train.loop.Snapshots", lambda: Snapshots(slowly))
    trained = run(trainer(), 2)
    tensors = [*trained.model.parameters()]
    weights = [tensor.detach().clone() for tensor in tensors]
    clip, update = torch.nn.utils.clip_grad_norm_, trained.optimizers.step

    def clipping(*args):
        may_copy.set()
        return clip(*args)

    def updating(lr):
        # Each weight has two moments and a counter.
        assert len(copied) >= 4 * len(tensors)
        update(lr)

    kept = trained.snapshot()
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", clipping)
    monkeypatch.setattr(trained.optimizers, "step", updating)
    trained.step()
    kept(tmp_path)
    found = load_state(tmp_path, "trainer")["model"]
    assert all(torch.equal(one, other) for one, other in zip(found.values(), weights, strict=True))


@pytest.mark.parametrize("changing", ["reset", "load", "forget"])
def test_whatever_changes_weights_waits_for_the_snapshot(changing, monkeypatch, tmp_path):
    copied = []

    def noting(tensor):
        copied.append(to_memory(tensor))
        return copied[-1]

    saved(run(trainer(init=8), 2), tmp_path / "other")
    monkeypatch.setattr("clew.train.loop.Snapshots", lambda: Snapshots(noting))
    trained = run(trainer(), 2)
    expected = saved(trained, tmp_path / "expected")
    kept = trained.snapshot()
    if changing == "load":
        trained.load(tmp_path / "other")
    else:
        trained.reset(tmp_path / "other" if changing == "reset" else None, optimizer=changing == "forget")
    assert len(copied) >= 4 * len([*trained.model.parameters()])
    (tmp_path / "kept").mkdir()
    kept(tmp_path / "kept")
    assert files(tmp_path / "kept") == expected


def test_the_rate_of_a_constant_schedule_is_the_one_that_is_set():
    trained = run(trainer(schedule=Constant()), 1)
    adjust(trained, lr=0.02)
    assert run(trained, 1).measure()["lr"] == 0.02
