"""What the trainers of TRL are told."""

from __future__ import annotations

import warnings

import pytest
import torch

from clew.errors import UserError
from clew.jobs.tuning import TuningConfig, newest, trainer_arguments


def arguments(device: str = "cpu", **training: object) -> dict[str, object]:
    return trainer_arguments(
        TuningConfig(**training), device=torch.device(device), seed=0, steps=2, batch_size=8, micro_batch_size=4
    )


@pytest.mark.parametrize(
    ("device", "precision", "bf16", "fp16"),
    [
        ("cpu", "auto", False, False),
        ("cpu", "bf16", True, False),
        ("cuda", "auto", True, False),
        ("cuda", "fp32", False, False),
        ("cuda", "fp16", False, True),
    ],
)
def test_the_precision_follows_the_device_where_it_is_left_open(device, precision, bf16, fp16):
    given = arguments(device, precision=precision)
    assert (given["bf16"], given["fp16"]) == (bf16, fp16)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_half_precision_needs_cuda(device):
    with pytest.raises(UserError) as caught:
        arguments(device, precision="fp16")
    assert str(caught.value) == (
        f"training.precision=fp16 needs CUDA, and this run is on {device}\n"
        "  set training.precision=auto, which is fp32 here; or bf16"
    )


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_trainers_arguments_are_taken_without_a_warning(checkpointing, tmp_path):
    import trl

    given = arguments(activation_checkpointing=checkpointing, lr=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = trl.SFTConfig(output_dir=str(tmp_path), **given)
    assert made.activation_checkpointing is made.gradient_checkpointing is checkpointing
    assert made.learning_rate == 0


def test_the_newest_value_of_a_metric_counts():
    events = [{"values": {"loss": 2, "eval/exact": 0.5}}, {"values": {"loss": "nan", "evaluation": 1}}]
    found = newest(events, "loss", "eval/")
    assert found.keys() == {"loss", "eval/exact"}
    assert found["loss"] != found["loss"]
