"""A training goes on over any mesh: what it saved on one is restored on another, bit by bit, and it trains the same.

Losses of the legs equal those of one process to 1e-5: sums in another order (float32, 16 steps of AdamW).
"""

from __future__ import annotations

import pytest
import torch
from mesh_walk import STEPS, Leg, trainer, walk

from clew.checkpoints.digest import state_digest
from clew.checkpoints.shards import Place, open_state, read_state, save_shards
from clew.errors import DataError
from clew.train.saved import STATE

LEGS = [
    Leg(4, "fsdp"),
    Leg(4, "fsdp+tp"),
    Leg(2, "fsdp"),
    Leg(1),
    Leg(2, "tp"),
    Leg(4, "fsdp+tp+sp"),
    Leg(2, "tp+sp"),
    Leg(4, "hsdp"),
    Leg(2, "ddp"),
    Leg(1),
]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    return folder, walk(folder, LEGS)


@pytest.mark.slow
def test_what_was_saved_on_a_mesh_is_restored_on_the_next_bit_by_bit(walked):
    folder, _ = walked
    for number in range(1, len(LEGS)):
        saved, restored = (read_state(folder / name, STATE) for name in (f"saved-{number - 1}", f"restored-{number}"))
        assert restored.keys() == saved.keys()
        assert {kind: state_digest(saved[kind]) for kind in saved} == {
            kind: state_digest(restored[kind]) for kind in restored
        }, LEGS[number].name


@pytest.mark.slow
def test_the_same_samples_give_the_same_losses_on_every_mesh(walked):
    _, legs = walked
    alone = trainer(Leg(1))
    for number, leg in enumerate(legs):
        for loss in leg["losses"]:
            alone.step()
            assert loss == pytest.approx(alone.measure()["loss"], abs=TOLERANCE), LEGS[number].name
        assert leg["seen"] == alone.feed.samples_seen == 7 * STEPS * (number + 1)
        assert leg["tokens"] == alone.tokens_seen
        assert leg["val_loss"] == pytest.approx(alone.loss_on(alone.samples), abs=TOLERANCE)


@pytest.mark.slow
def test_on_the_same_mesh_a_restored_training_goes_on_bit_by_bit(walked):
    _, legs = walked
    assert [(leg["same"], leg["bitwise"]) for leg in legs] == [(True, True)] * len(LEGS)


def parts(folder):
    """A state of two ranks, the second of which has the lower rows."""
    whole = torch.arange(12.0).reshape(4, 3)
    for rank in (0, 1):
        place = Place((4, 3), (2 * rank, 0), (2, 3))
        state = {"w": whole[2 * rank : 2 * rank + 2], "n": torch.tensor(7), "step": 3}
        save_shards(folder, "s", state, {".w": place}, rank=rank, ranks=2)
    return whole


def test_any_part_of_a_tensor_is_read_from_the_parts_of_all_ranks(tmp_path):
    whole = parts(tmp_path)
    stored = open_state(tmp_path, "s")["w"]
    assert (tuple(stored.shape), stored.dtype) == ((4, 3), torch.float32)
    assert stored.read().equal(whole)
    assert stored.part((1, 1), (2, 2)).equal(whole[1:3, 1:3])
    assert stored.part((2, 0), (0, 3)).shape == (0, 3)
    state = read_state(tmp_path, "s")
    assert (state["n"].item(), state["step"]) == (7, 3)


def test_the_missing_part_of_a_rank_is_named(tmp_path):
    parts(tmp_path)
    (tmp_path / "s-1.json").write_text('{"ranks": 2, "parts": {}}')
    with pytest.raises(DataError, match=r"a part of .*w is missing"):
        read_state(tmp_path, "s")
    (tmp_path / "s-1.json").unlink()
    with pytest.raises(DataError, match="the part of rank 1 is missing"):
        read_state(tmp_path, "s")
