"""What holds whatever the method: counters, running statistics, tied weights, numbers that are lost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clew.errors import UserError
from clew.merging.merge import Merge, merge_tensors
from clew.merging.methods.average import Average
from clew.merging.methods.task_arithmetic import TaskArithmetic
from clew.merging.methods.ties import Ties
from clew.merging.weights import InMemory, put, tensors_of


def test_counters_and_masks_are_those_of_the_first_and_noted_where_others_differ():
    models = [
        {"n": torch.tensor(3), "m": torch.tensor([True]), "same": torch.tensor([7])},
        {"n": torch.tensor(6), "m": torch.tensor([False]), "same": torch.tensor([7])},
    ]
    merge = Merge(Average(), [InMemory(model) for model in models], [1, 1])
    merged = dict(merge)
    assert (merged["n"].item(), merged["m"].item(), merged["n"].dtype) == (3, True, torch.int64)
    assert merge.differing == ["n", "m"]


@pytest.mark.parametrize("method", [Average(), Ties(), TaskArithmetic()])
def test_running_statistics_are_those_of_all_the_data_together(method):
    data = [torch.randn(4000, 3, dtype=torch.float64) * 2 + shift for shift in (0.0, 5.0)]
    models = [
        {
            "bn.running_mean": part.mean(0),
            "bn.running_var": part.var(0, correction=0),
            "bn.num_batches_tracked": torch.tensor(9),
        }
        for part in data
    ]
    merged = merge_tensors(method, models, [1, 1], base=models[0])
    together = torch.cat(data)
    assert torch.allclose(merged["bn.running_mean"], together.mean(0))
    assert torch.allclose(merged["bn.running_var"], together.var(0, correction=0))
    assert merged["bn.num_batches_tracked"].item() == 9
    same = merge_tensors(method, [models[1]] * 2, base=models[0])
    assert torch.equal(same["bn.running_var"], models[1]["bn.running_var"])


class Tied(nn.Module):
    """Two names of one matrix, a counter, and a buffer that is not saved."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight
        nn.init.constant_(self.embed.weight, value)
        self.register_buffer("seen", torch.tensor(int(value)))
        self.register_buffer("angles", torch.full((2,), value), persistent=False)


def test_tied_weights_stay_tied_and_what_is_not_saved_stays_itself():
    models = [Tied(1.0), Tied(4.0)]
    put(models[0], merge_tensors(Average(), [tensors_of(model) for model in models]))
    merged = models[0]
    assert merged.head.weight is merged.embed.weight
    assert merged.head.weight.unique().tolist() == [2.5]
    assert (merged.seen.item(), merged.angles.tolist()) == (1, [1.0, 1.0])


def test_what_is_not_finite_is_named():
    message = r"what layers.0.w is merged to is not finite\n  one of the models has diverged"
    with pytest.raises(UserError, match=message):
        merge_tensors(Average(), [{"layers.0.w": torch.tensor([float("inf")])}] * 2)
    large = {"layers.0.w": torch.tensor([60000.0], dtype=torch.float16)}
    with pytest.raises(UserError, match=message):
        merge_tensors(TaskArithmetic(), [large, large], base={"layers.0.w": torch.tensor([0.0])})


def test_other_names_and_other_numbers_are_refused():
    with pytest.raises(ValueError, match=r"the tensors have other names: a, b"):
        merge_tensors(Average(), [{"a": torch.ones(1)}, {"b": torch.ones(1)}])
    with pytest.raises(ValueError, match="3 weights for 2 models"):
        merge_tensors(Average(), [{"a": torch.ones(1)}] * 2, [1, 1, 1])
