from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from clew.data.packing import IGNORED, Batch
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.train.losses import accumulate_gradients, mean_loss

CPU = torch.device("cpu")


class Padded:
    """Sequences of many lengths, padded: the ragged case."""

    digest = "padded"

    def __init__(self, lengths: list[int], seq_len: int = 12, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.inputs = generator.integers(0, 20, (len(lengths), seq_len))
        self.targets = generator.integers(0, 20, (len(lengths), seq_len))
        for row, length in enumerate(lengths):
            self.targets[row, length:] = IGNORED

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, ids: np.ndarray) -> Batch:
        return Batch(self.inputs[ids], self.targets[ids])


def model() -> nn.Module:
    torch.manual_seed(0)
    return Decoder(ModelConfig(depth=1, width=16, heads=2), 20, 12).double()


def accumulated(samples: Padded, micro_batch_size: int) -> tuple[float, dict[str, torch.Tensor]]:
    trained = model()
    loss = accumulate_gradients(
        trained,
        samples.batch(np.arange(len(samples))),
        micro_batch_size=micro_batch_size,
        device=CPU,
        precision=torch.float32,
    )
    return float(loss), {name: parameter.grad for name, parameter in trained.named_parameters()}


@settings(deadline=None, max_examples=15)
@given(lengths=st.lists(st.integers(0, 12), min_size=8, max_size=8), seed=st.integers(0, 99))
def test_loss_and_gradients_do_not_depend_on_how_the_batch_is_cut(lengths, seed):
    samples = Padded(lengths, seed=seed)
    loss, gradients = accumulated(samples, 8)
    for micro_batch_size in (4, 3, 1):
        other_loss, other_gradients = accumulated(samples, micro_batch_size)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            assert torch.allclose(other_gradients[name], gradient, rtol=1e-9, atol=1e-12), name


def test_a_mean_of_means_would_not_pass():
    """The trap that the test above is there for: short sequences would weigh more."""
    samples = Padded([12, 1])
    batch = samples.batch(np.arange(2))
    logits = model()(torch.from_numpy(batch.inputs)).detach()
    means = [F.cross_entropy(logits[row], torch.from_numpy(batch.targets[row])) for row in range(2)]
    assert float(sum(means)) / 2 != pytest.approx(accumulated(samples, 1)[0], rel=1e-3)


def test_the_loss_is_the_mean_over_all_targets():
    samples = Padded([12, 5, 0, 7])
    batch = samples.batch(np.arange(4))
    logits = model()(torch.from_numpy(batch.inputs)).detach()
    expected = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten())
    assert accumulated(samples, 2)[0] == pytest.approx(float(expected), rel=1e-6)


def test_a_batch_without_targets_adds_nothing():
    loss, gradients = accumulated(Padded([0, 0]), 1)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients.values())


def validation(samples: Padded, trained: nn.Module, *, num_samples: int, micro_batch_size: int) -> float:
    return mean_loss(
        trained,
        samples,
        num_samples=num_samples,
        micro_batch_size=micro_batch_size,
        device=CPU,
        precision=torch.float32,
    )


def test_the_validation_loss_does_not_depend_on_the_micro_batch_size():
    samples, trained = Padded([12, 3, 0, 7, 1]), model()
    whole = validation(samples, trained, num_samples=5, micro_batch_size=5)
    for size in (1, 2, 3, 50):
        assert validation(samples, trained, num_samples=5, micro_batch_size=size) == pytest.approx(whole, rel=1e-5)
    assert whole == pytest.approx(accumulated(samples, 5)[0], rel=1e-5)


def test_validation_leaves_mode_gradients_and_generators_alone():
    samples, trained = Padded([12, 3]), model()
    before = torch.get_rng_state()
    validation(samples, trained, num_samples=2, micro_batch_size=1)
    assert trained.training
    assert all(parameter.grad is None for parameter in trained.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_uses_the_first_samples():
    samples, trained = Padded([12, 3, 9]), model()
    samples_alone = Padded([12])
    samples_alone.inputs, samples_alone.targets = samples.inputs[:1], samples.targets[:1]
    first = validation(samples, trained, num_samples=1, micro_batch_size=2)
    assert first == validation(samples_alone, trained, num_samples=1, micro_batch_size=2)


class Surprised(nn.Module):
    """Loses 2^24 nats on the first target of all, and log 2 on every other."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*inputs.shape, 2)
        logits[..., 1] = torch.where(inputs == 1, 2.0**24, 0.0)
        return logits


def test_the_validation_loss_counts_every_target_however_many_went_before():
    samples = Padded([1] * 500)
    samples.inputs[:], samples.targets[:, 0] = 0, 0
    samples.inputs[0, 0] = 1
    loss = validation(samples, Surprised(), num_samples=500, micro_batch_size=1)
    assert loss * 500 - 2**24 == pytest.approx(499 * np.log(2), rel=1e-6)


def test_bfloat16_products_leave_the_loss_in_float32():
    samples = Padded([12, 3])
    trained = model().float()
    loss = accumulate_gradients(
        trained, samples.batch(np.arange(2)), micro_batch_size=2, device=CPU, precision=torch.bfloat16
    )
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(accumulated(samples, 2)[0], rel=0.02)
    assert trained.embed.weight.grad.dtype == torch.float32
