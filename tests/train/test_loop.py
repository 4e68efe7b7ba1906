from __future__ import annotations

import random
from itertools import count

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clew.checkpoints.state import load_state
from clew.data.packing import IGNORED, Batch, Windows
from clew.errors import DataError, RunFailed
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.train import Constant, TrainingConfig
from clew.train.loop import Trainer

VOCAB, SEQ_LEN = 30, 8


def tokens(seed: int = 0, length: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, length).astype(np.uint16)


def trainer(*, init: int = 0, total: int = 20, samples: Windows | None = None, **options) -> Trainer:
    torch.manual_seed(init)
    config = TrainingConfig(**{"steps": total, "batch_size": 4, "micro_batch_size": 2, **options})
    model = Decoder(ModelConfig(depth=1, width=16, heads=2), VOCAB, SEQ_LEN)
    return Trainer(model, samples or Windows(tokens(), SEQ_LEN), config, lr=0.01, total_steps=total, seed=5)


def run(trained: Trainer, steps: int) -> Trainer:
    for _ in range(steps):
        trained.step()
    return trained


def state_of(trained: Trainer, directory) -> dict[str, torch.Tensor]:
    directory.mkdir(parents=True)
    trained.save(directory)
    return load_state(directory, "trainer")


def assert_same(one, two, path: str = "") -> None:
    assert type(one) is type(two), path
    if isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            assert_same(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), path
        for index, (left, right) in enumerate(zip(one, two, strict=True)):
            assert_same(left, right, f"{path}.{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), path
    else:
        assert one == two, path


# 400 tokens make 50 windows: 20 steps of 4 stay in two epochs, and step 12 is the last whole one of the first.
@pytest.mark.parametrize("saved_at", [1, 10, 12, 13], ids=["early", "mid-epoch", "epoch's end", "next epoch"])
def test_a_resumed_run_is_bitwise_the_run_that_was_never_interrupted(saved_at, tmp_path):
    straight = run(trainer(), 20)
    run(first := trainer(), saved_at).save(tmp_path)
    torch.manual_seed(99)  # whatever happened to the generators in between
    resumed = trainer(init=7)
    resumed.load(tmp_path)
    assert resumed.step_number == saved_at
    run(resumed, 20 - saved_at)
    assert first.step_number == saved_at
    assert_same(state_of(resumed, tmp_path / "a"), state_of(straight, tmp_path / "b"))


def test_a_resumed_run_logs_what_the_uninterrupted_one_logs(tmp_path):
    straight, first, resumed = trainer(), trainer(), trainer(init=3)
    run(first, 7).save(tmp_path)
    resumed.load(tmp_path)
    ours, theirs = run(resumed, 3).measure(), run(straight, 10).measure()
    for metrics in (ours, theirs):
        assert metrics.pop("tokens_per_second") > 0
    assert ours == theirs


def test_measuring_validating_and_saving_do_not_change_what_is_trained(tmp_path):
    held_out = Windows(tokens(1, 100), SEQ_LEN)
    quiet, watched = run(trainer(), 6), trainer()
    for number in range(6):
        watched.step()
        watched.measure()
        watched.validate(held_out)
        (tmp_path / str(number)).mkdir()
        watched.save(tmp_path / str(number))
    assert_same(dict(watched.model.named_parameters()), dict(quiet.model.named_parameters()))


def test_all_random_generators_are_restored(tmp_path):
    trained = run(trainer(), 1)
    trained.save(tmp_path)
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    trained.load(tmp_path)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn


@pytest.mark.parametrize(
    "options", [{}, {"precision": "bf16"}, {"max_grad_norm": None}], ids=["plain", "bf16", "no clip"]
)
def test_a_pattern_is_learned(options):
    pattern = Windows(np.tile(np.arange(10, dtype=np.uint16), 40), SEQ_LEN)
    trained = trainer(samples=pattern, total=80, **options)
    before = trained.validate(pattern)
    run(trained, 80)
    assert trained.validate(pattern) < 0.1 < 2 < before


def test_micro_batches_only_save_memory():
    whole, cut = run(trainer(micro_batch_size=None), 5), run(trainer(micro_batch_size=1), 5)
    assert cut.measure()["loss"] == pytest.approx(whole.measure()["loss"], rel=1e-5)
    for ours, theirs in zip(cut.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_metrics_are_means_since_the_last_measurement():
    each, together = trainer(), trainer()
    losses = [run(each, 1).measure() for _ in range(4)]
    metrics = run(together, 4).measure()
    assert metrics["loss"] == pytest.approx(np.mean([one["loss"] for one in losses]))
    assert metrics["grad_norm"] == pytest.approx(np.mean([one["grad_norm"] for one in losses]))
    assert metrics["tokens"] == each.tokens_seen == losses[-1]["tokens"]
    assert metrics["epoch"] == 16 / 50
    assert metrics["lr"] == losses[-1]["lr"]


def test_the_learning_rate_follows_the_schedule():
    trained = trainer(schedule=Constant(warmup=0.2))
    rates = [run(trained, 1).measure()["lr"] for _ in range(6)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


def test_clipping_bounds_the_gradient_that_is_used():
    trained = run(trainer(max_grad_norm=1e-3), 1)
    assert trained.measure()["grad_norm"] > 0.1
    used = torch.cat([parameter.grad.flatten() for parameter in trained.model.parameters()])
    assert used.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_only_tokens_that_are_trained_on_are_counted():
    trained = run(trainer(samples=Windows(tokens(0, 12), SEQ_LEN), batch_size=2), 3)
    assert trained.tokens_seen == 3 * 11


def test_counters_go_on_beyond_2_to_the_24(tmp_path):
    """There a float32 sticks: 2^24 + 1 is 2^24."""
    many = 2**24
    trained = trainer(samples=Windows(tokens(0, 12), SEQ_LEN), batch_size=2)
    trained.tokens_seen = trained.feed.samples_seen = trained.step_number = many
    trained.save(tmp_path)
    resumed = trainer(samples=Windows(tokens(0, 12), SEQ_LEN), batch_size=2)
    resumed.load(tmp_path)
    run(resumed, 1)
    assert (resumed.step_number, resumed.feed.samples_seen, resumed.tokens_seen) == (many + 1, many + 2, many + 11)
    assert resumed.measure()["tokens"] == many + 11


class NoWaiting(TorchDispatchMode):
    """Fails when a tensor's value is fetched."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "the loop waited for the device"
        assert func is not torch.ops.aten.is_nonzero.default, "the loop waited for the device"
        return func(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_device(monkeypatch):
    trained = run(trainer(), 1)

    def refuse(self, *args, **kwargs):
        raise AssertionError("the loop waited for the device")

    with NoWaiting(), monkeypatch.context() as patch:
        for name in ("cpu", "numpy", "tolist"):  # on a CPU these fetch nothing, so only their names tell
            patch.setattr(torch.Tensor, name, refuse)
        run(trained, 3)
    with pytest.raises(AssertionError, match="waited"), NoWaiting():
        trained.measure()


class Ticking:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_tokens_per_second_leave_validation_checkpoints_and_pauses_out(tmp_path, monkeypatch):
    clock = Ticking()
    samples = Windows(tokens(), SEQ_LEN)
    config = TrainingConfig(steps=20, batch_size=4)
    trained = Trainer(trainer().model, samples, config, lr=0.01, total_steps=20, seed=0, clock=clock)
    original = samples.batch

    def slow_batch(self: Windows, ids: np.ndarray) -> Batch:
        clock.now += 2.0
        return original(ids)

    monkeypatch.setattr(Windows, "batch", slow_batch)
    run(trained, 2)
    trained.validate(samples)
    trained.save(tmp_path)
    with trained.idle():  # a pause
        clock.now += 100.0
    run(trained, 2)
    assert trained.measure()["tokens_per_second"] == pytest.approx(trained.tokens_seen / 8.0)


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(tmp_path):
    trained = run(trainer(), 3)
    with torch.no_grad():
        trained.model.norm.weight.fill_(float("nan"))
    trained.step()
    with pytest.raises(RunFailed, match=r"no longer finite at step 4\n  lower training.lr"):
        trained.measure()
    with pytest.raises(RunFailed, match="no longer finite"):
        trained.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_samples_than_the_checkpoints_are_refused(tmp_path):
    run(trainer(), 2).save(tmp_path)
    other = trainer(samples=Windows(tokens(seed=9), SEQ_LEN))
    with pytest.raises(DataError, match="not those that this checkpoint was trained on"):
        other.load(tmp_path)
    assert other.step_number == 0


def test_the_weights_of_another_model_are_refused(tmp_path):
    trained = trainer()
    trained.model.extra = torch.nn.Parameter(torch.ones(1))
    trained.save(tmp_path)
    with pytest.raises(DataError, match="the checkpoint is of another model: extra"):
        trainer().load(tmp_path)


def test_weights_of_another_shape_are_refused_and_never_stretched(tmp_path):
    trained, other = trainer(), trainer()
    name, parameter = next(iter(trained.model.named_parameters()))
    with torch.no_grad():
        parameter.set_(parameter[..., :1].clone())  # copy_ would repeat it
    trained.save(tmp_path)
    before = {key: value.clone() for key, value in other.model.named_parameters()}
    with pytest.raises(DataError, match=f"the checkpoint is of another model: {name}"):
        other.load(tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in other.model.named_parameters())


def test_ignored_positions_have_no_influence():
    """Whatever stands in the padding, weights come out bitwise the same."""

    class Garbled(Windows):
        fill = count()

        def batch(self, ids: np.ndarray) -> Batch:
            batch = super().batch(ids)
            inputs = batch.inputs.copy()
            inputs[batch.targets == IGNORED] = next(self.fill) % VOCAB
            return Batch(inputs, batch.targets)

    short = tokens(0, 12)
    clean, garbled = trainer(samples=Windows(short, SEQ_LEN)), trainer(samples=Garbled(short, SEQ_LEN))
    run(clean, 4)
    run(garbled, 4)
    assert_same(dict(clean.model.named_parameters()), dict(garbled.model.named_parameters()))
