"""Loss, gradients, their norm and the trained weights on a mesh are those of one process, on the same global batch.

Every rank compares. Float32, two backward passes a step, clipping; batches whose slices have very different numbers of
targets, or none, and one that does not divide: the mean is always that over all targets of the whole batch. Loss, norm
and gradients are compared for each batch with the same weights; then three steps of AdamW are made.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import CASES, RANKS, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TOLERANCE = {
    "loss": 2e-5,
    "norm": 2e-5,
    "gradient": 2e-5,
    "scores": 2e-5,  # losses, margins and embeddings of single samples
    "weights after one step": 1e-3,
    "weights after three steps": 1e-3,
}
"""How far apart they may be, of a tensor's largest number where they are tensors. Sums are rounded in another order.
AdamW divides by the root of the mean square, which makes much of the rounding of gradients near zero."""
SAME = ("slices", "collectives", "names", "states")
"""What each process says it has of a parameter; the collectives of the plan; names of parameters and of the state."""
PRESETS = ("ddp", "fsdp", "tp", "fsdp+tp", "hsdp", "tp+sp", "fsdp+tp+sp")


@pytest.fixture(scope="module", params=[1, 2, 4])
def found(request, tmp_path_factory):
    names = [name for name in CASES if RANKS[name.split()[0]] == request.param]
    return start(request.param, tmp_path_factory.mktemp("mesh"), names)


def test_a_mesh_computes_what_one_process_does_as_every_rank_sees_it(found):
    for rank, cases in enumerate(found):
        for name, far in cases.items():
            for what, tolerance in TOLERANCE.items():
                if what != "scores" or CASES[name].scored:
                    assert far[what] <= tolerance, (rank, name, far)


def test_the_weights_of_all_ranks_are_the_same_bits(found):
    for name in found[0]:
        assert len({cases[name]["digest"] for cases in found}) == 1, name


def test_a_mesh_does_what_its_plan_says(found):
    for cases in found:
        assert {name: [what for what in SAME if far[what]] for name, far in cases.items()} == {
            name: [] for name in cases
        }


def test_what_a_pass_keeps_is_what_the_plan_estimates(found):
    apart = [far["activations"] for cases in found for far in cases.values() if "activations" in far]
    assert all(abs(one) <= 0.1 for one in apart), apart


def test_every_preset_is_compared_on_meshes_of_one_two_and_four_processes():
    compared = {(RANKS[name.split()[0]], case.mesh.preset) for name, case in CASES.items()}
    assert compared >= {(ranks, preset) for ranks in (1, 2, 4) for preset in PRESETS}
    assert all(preset in docs() for preset in PRESETS)


def test_the_tolerance_is_stated_in_the_docs():
    words = docs()
    assert f"within {TOLERANCE['gradient']:.0e}".replace("e-0", "e-") in words
    assert f"within {TOLERANCE['weights after three steps']:.0e}".replace("e-0", "e-") in words


def docs() -> str:
    return Path(__file__).parents[2].joinpath("docs", "sharding.md").read_text()
