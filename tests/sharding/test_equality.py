"""Loss, gradients, their norm and the trained weights on a mesh are those of one process, on the same global batch.

Two steps of AdamW with clipping, ragged targets, two backward passes a step, float32. The sums are rounded in another
order, so the tolerance is 2e-5 for losses, and 2e-5 of a tensor's largest number for gradients. AdamW divides by the
root of the mean square, which makes much of the rounding of gradients near zero, so weights may be 1e-3 apart.
"""

from __future__ import annotations

import pytest
from ranks import CASES, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

TOLERANCE = {"loss": 2e-5, "norm": 2e-5, "gradient": 2e-5, "weight": 1e-3}
SAME = ("slices", "collectives", "names", "states")
"""What each process says it has of a parameter; the collectives of the plan; names of parameters and of the state."""


@pytest.fixture(scope="module", params=[2, 4])
def found(request, tmp_path_factory):
    names = [name for name in CASES if name.startswith(f"{request.param} ")]
    return start(request.param, tmp_path_factory.mktemp("mesh"), names)


def test_a_mesh_computes_what_one_process_does(found):
    for name, far in found.items():
        for what, tolerance in TOLERANCE.items():
            assert far[what] <= tolerance, (name, far)


def test_a_mesh_does_what_its_plan_says(found):
    assert {name: [what for what in SAME if far[what]] for name, far in found.items()} == {name: [] for name in found}
