"""What a PyTorch program gives as its data becomes samples with numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from clew.data.order import Ids
from clew.errors import UserError
from clew.live.torch_data import fields_of, halves, moved, samples_of
from clew.live.window import Window

POINTS, LABELS = torch.arange(20.0).view(10, 2), torch.arange(10)
PAIRS = TensorDataset(POINTS, LABELS)


class Squares(Dataset[Any]):
    """Made when they are asked for."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"number": number, "text": "x" * number}


class Endless(IterableDataset[Any]):
    """Without numbers."""

    def __iter__(self) -> Iterator[int]:
        return iter(())


def ids(*numbers: int) -> Ids:
    return np.array(numbers, dtype=np.int64)


@pytest.mark.parametrize(
    "data",
    [PAIRS, (POINTS, LABELS), [POINTS, LABELS], DataLoader(PAIRS, batch_size=3), Subset(PAIRS, list(range(10)))],
    ids=["tensors", "tuple", "list", "loader", "subset"],
)
def test_tensors_make_the_batches_that_a_loader_makes(data: Any) -> None:
    samples = samples_of(data)
    points, labels = samples.fetch(ids(4, 1, 1))
    expected = default_collate([PAIRS[4], PAIRS[1], PAIRS[1]])
    assert torch.equal(points, expected[0]) and torch.equal(labels, expected[1])
    assert samples.size == 10
    assert torch.equal(samples.one(3)[0], POINTS[3])


def test_tensors_are_cut_without_a_look_at_single_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda *_: pytest.fail("a sample was made alone"))
    for data in (PAIRS, DataLoader(PAIRS, batch_size=2), Subset(PAIRS, [1, 2])):
        samples_of(data).fetch(ids(0, 1))


def test_samples_of_a_subset_have_its_numbers() -> None:
    samples = samples_of(Subset(Subset(PAIRS, [9, 8, 7]), [2, 0]))
    assert samples.fetch(ids(0, 1))[1].tolist() == [7, 9]
    assert int(samples.one(0)[1]) == 7


def test_a_dict_of_tensors_makes_dicts() -> None:
    samples = samples_of({"points": POINTS, "labels": LABELS})
    assert samples.fetch(ids(2, 3))["labels"].tolist() == [2, 3]
    assert int(samples.one(5)["labels"]) == 5


def test_a_data_set_of_ones_own_is_collated() -> None:
    assert samples_of(Squares()).fetch(ids(1, 3)) == {"number": pytest.approx([1, 3]), "text": ["x", "xxx"]}
    loader = DataLoader(Squares(), batch_size=4, collate_fn=lambda rows: [row["number"] for row in rows])
    assert samples_of(loader).fetch(ids(1, 3)) == [1, 3]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_says_its_batch_size_and_whether_it_shuffles(shuffle: bool) -> None:
    samples = samples_of(DataLoader(PAIRS, batch_size=3, shuffle=shuffle, drop_last=True))
    assert (samples.batch_size, samples.shuffled) == (3, shuffle)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_that_accelerate_has_prepared_says_the_same(shuffle: bool) -> None:
    accelerate = pytest.importorskip("accelerate")
    loader = accelerate.Accelerator(cpu=True).prepare(DataLoader(PAIRS, batch_size=3, shuffle=shuffle))
    samples = samples_of(loader)
    assert (samples.size, samples.batch_size, samples.shuffled) == (10, 3, shuffle)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(Endless(), batch_size=2), "a Endless has no numbered samples"),
        (Endless(), "a Endless has no numbered samples"),
        (7, "a int has no numbered samples"),
        (torch.zeros(0, 3), "there is no sample in it"),
        ((POINTS, LABELS[:4]), "the tensors have different numbers of samples"),
        (
            DataLoader(PAIRS, batch_size=2, sampler=WeightedRandomSampler([1.0] * 10, 10)),
            "the order of a WeightedRandomSampler cannot be taken over",
        ),
        (DataLoader(PAIRS, batch_sampler=[[1, 2], [3]]), "the order of a list cannot be taken over"),
    ],
)
def test_data_without_numbers_is_refused(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        samples_of(data)


def test_a_batch_has_its_targets_last() -> None:
    assert halves([1, 2]) == (1, 2)
    assert halves((1, 2, 3)) == ((1, 2), 3)
    for odd in ({"inputs": 1}, [1], torch.zeros(3)):
        with pytest.raises(UserError, match="nobody knows what are inputs and what targets"):
            halves(odd)


def test_a_batch_is_moved_with_all_that_is_in_it() -> None:
    batch = moved([{"a": POINTS, "b": "text"}, (LABELS, 3)], torch.device("meta"))
    assert batch[0]["a"].is_meta and batch[1][0].is_meta
    assert (batch[0]["b"], batch[1][1], type(batch[1])) == ("text", 3, tuple)


@pytest.mark.parametrize(
    ("sample", "fields"),
    [
        ((POINTS[0], LABELS[3]), {"number": 7, "text": "", "length": 2, "label": 3}),
        (("word", 1.5), {"number": 7, "text": "word", "length": 4, "input": "word", "label": 1.5}),
        ({"tokens": [1, 2, 3], "source": "web"}, {"number": 7, "text": "web", "length": 3, "source": "web"}),
        ((POINTS, POINTS, 1), {"number": 7, "text": "", "length": 10, "part2": 1}),
        (np.int64(4), {"number": 7, "text": "", "length": 1, "input": 4}),
    ],
)
def test_what_is_known_of_a_sample(sample: Any, fields: dict[str, Any]) -> None:
    assert fields_of(7, sample) == fields


def test_a_window_means_what_was_in_it_and_goes_on_from_its_state() -> None:
    window, total = Window(), torch.zeros(())
    for value in (1.0, 2.0, 6.0):
        total += value
        window.add({"total": total, "value": value})
    window.add({"value": torch.tensor([3.0])})
    other = Window()
    other.load(window.state())
    other.add({"total": 5})
    assert window.means() == {"total": pytest.approx(13 / 3), "value": 3.0}
    assert other.means() == {"total": pytest.approx(18 / 4), "value": 3.0}
    other.add({"value": torch.tensor(torch.nan)})
    assert np.isnan(other.means()["value"])
    other.clear()
    assert other.means() == {}
