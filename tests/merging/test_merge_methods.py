"""Each method against its formula in numpy, and the laws that hold for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.errors import ConfigError, UserError
from clew.merging import group
from clew.merging.merge import merge_tensors
from clew.merging.methods import method_registry
from clew.merging.methods.average import Average
from clew.merging.methods.dare import Dare
from clew.merging.methods.fisher import Fisher
from clew.merging.methods.linear import Linear
from clew.merging.methods.slerp import Slerp
from clew.merging.methods.swa import Swa
from clew.merging.methods.task_arithmetic import TaskArithmetic
from clew.merging.methods.ties import Ties
from clew.merging.selection import kth_largest

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHARES = [Average(), Swa(), Linear(), Fisher(), Slerp()]
"""Between the models; nothing but them counts."""

cases = st.tuples(
    st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4), (0, 4)]), st.sampled_from(DTYPES), st.integers(0, 999)
)


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def draw(case, count):
    """Tensors of one shape, with zeros of both signs and numbers that coincide among them."""
    shape, dtype, seed = case
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator).mul(4).round(decimals=seed % 4).to(dtype) for _ in range(count)]
    for tensor in made:
        tensor.view(-1)[:1] *= 0
    return made


def one(method, tensors, weights=None, base=None, fisher=None, seed=0):
    return merge_tensors(
        method,
        [{"w": tensor} for tensor in tensors],
        weights,
        base=None if base is None else {"w": base},
        fisher=None if fisher is None else [{"w": tensor} for tensor in fisher],
        seed=seed,
    )["w"]


def wide(tensors):
    return [tensor.double().numpy() for tensor in tensors]


def assert_rounded(merged, expected, dtype):
    """Equal up to the last bit of the dtype: rounding to the halves goes over float32."""
    info = torch.finfo(dtype)
    assert merged.dtype == dtype and merged.shape == expected.shape
    scale = np.maximum(np.abs(expected), info.tiny) + 1e-14 / info.eps
    assert np.all(np.abs(merged.double().numpy() - expected) <= info.eps * scale)


# The formulas, in numpy and float64.


def ref_ties(models, base, weights, density, scale):
    deltas = []
    for model in models:
        delta = model - base
        keep = max(1, int(density * delta.size))
        least = np.sort(np.abs(delta).ravel())[-keep] if delta.size else 0
        deltas.append(np.where(np.abs(delta) >= least, delta, 0))
    return base + scale * ref_agreed(deltas, weights)


def ref_agreed(deltas, weights):
    elected = np.sign(sum(w * d for w, d in zip(weights, deltas, strict=True)))
    votes = [w * ((np.sign(d) == elected) & (elected != 0)) for w, d in zip(weights, deltas, strict=True)]
    total = sum(votes)
    parts = sum(v * d for v, d in zip(votes, deltas, strict=True))
    return np.divide(parts, total, out=np.zeros_like(parts), where=total > 0)


def ref_slerp(a, b, t):
    norms = np.linalg.norm(a.ravel()) * np.linalg.norm(b.ravel())
    cosine = a.ravel() @ b.ravel() / norms if norms else 1.0
    if abs(cosine) >= 0.9995:
        return (1 - t) * a + t * b
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


weights3 = st.lists(st.integers(1, 8), min_size=3, max_size=3)


@given(cases, weights3)
def test_means_are_what_they_are_in_float64(case, weights):
    tensors = draw(case, 3)
    expected = np.asarray(np.average(wide(tensors), axis=0, weights=weights))
    for method in (Average(), Swa(), Linear(), Fisher()):
        assert_rounded(one(method, tensors, weights), expected, case[1])
    raw = np.asarray(sum(w * x for w, x in zip((1, -0.5, 0.25), wide(tensors), strict=True)))
    assert_rounded(one(Linear(normalize=False), tensors, [1, -0.5, 0.25]), raw, case[1])


@given(cases, weights3)
def test_fisher_is_the_weighted_quotient(case, weights):
    tensors, fisher = draw(case, 3), [tensor.float() ** 2 for tensor in draw((case[0], case[1], case[2] + 1), 3)]
    top = sum(w * f * x for w, f, x in zip(weights, wide(fisher), wide(tensors), strict=True))
    bottom = sum(w * f for w, f in zip(weights, wide(fisher), strict=True))
    mean = np.average(wide(tensors), axis=0, weights=weights)
    expected = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), mean)
    assert_rounded(one(Fisher(), tensors, weights, fisher=fisher), expected, case[1])


@given(cases, st.integers(0, 10))
def test_slerp_is_the_point_on_the_arc(case, part):
    a, b = draw(case, 2)
    expected = np.asarray(ref_slerp(*wide([a, b]), part / 10))
    assert_rounded(one(Slerp(), [a, b], [10 - part, part]), expected, case[1])


def test_slerp_keeps_the_norm_and_is_straight_between_nearly_parallel_tensors():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([-4.0, 3.0])
    assert one(Slerp(), [a, b]).norm().item() == pytest.approx(5.0)
    near = torch.tensor([3.0, 4.001])
    assert torch.equal(one(Slerp(), [a, near], [3, 1]), one(Average(), [a, near], [3, 1]))
    assert one(Slerp(), [a, -a], [3, 1]).tolist() == [1.5, 2.0]
    assert one(Slerp(), [torch.zeros(2), a]).tolist() == [1.5, 2.0]


@given(cases, st.lists(st.integers(-3, 3), min_size=3, max_size=3), st.sampled_from([1.0, 0.3, -1.0]))
def test_task_arithmetic_adds_scaled_task_vectors(case, weights, scale):
    *tensors, base = draw(case, 4)
    low = wide([base])[0]
    expected = low + scale * sum(w * (x - low) for w, x in zip(weights, wide(tensors), strict=True))
    assert_rounded(one(TaskArithmetic(scale=scale), tensors, weights, base), np.asarray(expected), case[1])


@given(cases, weights3, st.sampled_from([0.1, 0.2, 0.5, 1.0]), st.sampled_from([1.0, 0.5]))
def test_ties_trims_elects_and_averages_those_that_agree(case, weights, density, scale):
    *tensors, base = draw(case, 4)
    expected = ref_ties(wide(tensors), wide([base])[0], weights, density, scale)
    assert_rounded(one(Ties(density=density, scale=scale), tensors, weights, base), expected, case[1])


@given(cases, weights3, st.sampled_from(["linear", "ties"]))
def test_dare_combines_task_vectors_of_which_elements_are_dropped_and_the_rest_rescaled(case, weights, combination):
    *tensors, base = draw(case, 4)
    tensors, base = [tensor.float() for tensor in tensors], base.float()
    low = wide([base])[0]
    thin = []
    for place, tensor in enumerate(wide(tensors)):
        alone = [float(place == other) for other in range(3)]
        kept = one(Dare(density=0.5), tensors, alone, base).double().numpy() - low
        full = 2 * (tensor - low)
        assert np.all((kept == 0) | np.isclose(kept, full, atol=1e-5))
        thin.append(np.where(kept == 0, 0, full))
    if combination == "ties":
        expected = low + ref_agreed(thin, weights)
    else:
        expected = low + sum(w * d for w, d in zip(weights, thin, strict=True))
    merged = one(Dare(density=0.5, combination=combination), tensors, weights, base)
    assert_rounded(merged, np.asarray(expected), torch.float32)


def test_dare_keeps_its_density_and_its_mean_and_follows_from_seed_name_and_place():
    base, model = torch.zeros(20_000), torch.ones(20_000)
    merged = one(Dare(density=0.2), [model, model], [1, 0], base)
    assert set(merged.tolist()) == {0.0, 5.0}
    assert merged.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(merged, one(Dare(density=0.2), [model, model], [1, 0], base))
    assert not torch.equal(merged, one(Dare(density=0.2), [model, model], [0, 1], base))
    assert not torch.equal(merged, one(Dare(density=0.2), [model, model], [1, 0], base, seed=1))
    both = merge_tensors(Dare(), [{"a": model, "b": model}] * 2, base={"a": base, "b": base})
    assert not torch.equal(both["a"], both["b"])


# Laws.


@given(cases, st.floats(0.01, 100))
def test_a_model_merged_with_itself_is_itself_bitwise(case, weight):
    (tensor,) = draw(case, 1)
    for method in SHARES:
        assert bits(one(method, [tensor] * 2, [weight, 1.0], fisher=[tensor.float() ** 2] * 2)) == bits(tensor), method


@given(cases)
def test_a_model_merged_with_itself_is_itself_where_nothing_is_dropped(case):
    tensor, base = draw(case, 2)
    for method in (Ties(density=1), TaskArithmetic(scale=0.5), Dare(density=1, scale=0.5)):
        assert torch.equal(one(method, [tensor] * 2, base=base), tensor), method
    for method in (Ties(), TaskArithmetic(), Dare()):
        assert torch.equal(one(method, [tensor] * 2, base=tensor), tensor), method


@given(cases)
def test_all_of_the_weight_on_one_model_gives_that_model(case):
    a, b, base = draw(case, 3)
    fisher = [a.float() ** 2, b.float() ** 2]
    for weights, expected in (([1, 0], a), ([0, 1], b)):
        for method in SHARES:
            assert bits(one(method, [a, b], weights, fisher=fisher)) == bits(expected), method
        for method in (TaskArithmetic(), Ties(density=1), Dare(density=1), Dare(density=1, combination="ties")):
            assert torch.equal(one(method, [a, b], weights, base), expected), method


def test_a_model_without_weight_may_have_diverged():
    a, lost = torch.ones(3), torch.full((3,), float("nan"))
    for method in (Average(), Linear(), Fisher()):
        assert one(method, [a, lost], [1, 0], fisher=[a, a]).tolist() == [1.0] * 3


@given(cases, st.permutations(range(3)), weights3)
def test_the_order_of_the_models_does_not_count(case, order, weights):
    *tensors, base = draw(case, 4)
    fisher = [tensor.float() ** 2 for tensor in tensors]
    for method in (Average(), Swa(), Linear(), Fisher(), TaskArithmetic(), Ties()):
        merged = one(method, tensors, weights, base if method.uses_base else None, fisher)
        turned = [[items[place] for place in order] for items in (tensors, weights, fisher)]
        other = one(method, turned[0], turned[1], base if method.uses_base else None, turned[2])
        assert_rounded(other, merged.double().numpy(), case[1])
    a, b = tensors[:2]
    assert_rounded(one(Slerp(), [b, a], weights[1::-1]), one(Slerp(), [a, b], weights[:2]).double().numpy(), case[1])


@given(st.integers(0, 99), st.integers(1, 5))
def test_the_fisher_merge_of_quadratics_is_the_minimiser_of_their_sum(seed, count):
    generator = torch.Generator().manual_seed(seed)
    minima = [torch.randn(6, generator=generator) for _ in range(count + 1)]
    curvature = [torch.rand(6, generator=generator) + 0.01 for _ in minima]
    merged = one(Fisher(), minima, fisher=curvature)
    # The joint minimiser solves (sum H_i) x = sum H_i x_i.
    hessian = np.diag(sum(wide(curvature)))
    expected = np.linalg.solve(hessian, sum(h * x for h, x in zip(wide(curvature), wide(minima), strict=True)))
    assert_rounded(merged, expected, torch.float32)


@given(cases, st.sampled_from([2.0**-40, 1e-12, 1e12]))
def test_the_scale_of_the_fisher_information_changes_nothing(case, scale):
    tensors = draw(case, 3)
    fisher = [tensor.double() ** 2 for tensor in draw((case[0], case[1], case[2] + 1), 3)]
    merged = one(Fisher(), tensors, fisher=fisher)
    assert_rounded(one(Fisher(), tensors, fisher=[f * scale for f in fisher]), merged.double().numpy(), case[1])


def test_equal_and_zero_fisher_information_gives_the_plain_mean():
    tensors = [torch.randn(100) for _ in range(3)]
    mean = one(Average(), tensors)
    for value in (0.0, 1e-30, 1.0, 7e8):
        assert torch.equal(one(Fisher(), tensors, fisher=[torch.full((100,), value)] * 3), mean)


# Numbers of all sizes.


def test_halves_are_summed_in_more_than_halves():
    # In bfloat16 the sum of these would lose every one after the first.
    tensors = [torch.tensor([256.0], dtype=torch.bfloat16)] + [torch.tensor([0.5], dtype=torch.bfloat16)] * 255
    assert one(Average(), tensors).item() == pytest.approx((256 + 127.5) / 256, rel=2**-8)


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=60), st.data())
def test_the_kth_largest_is_found_without_sorting(values, data):
    rank = data.draw(st.integers(1, len(values)))
    numbers = torch.tensor(values, dtype=torch.float64)
    assert kth_largest(lambda: numbers.split(7), rank) == sorted(values, reverse=True)[rank - 1]


@settings(max_examples=5, deadline=None)
@given(st.sampled_from([Average(), Slerp(), Ties(), Fisher(), TaskArithmetic()]))
def test_blocks_leave_no_trace(method):
    tensors = [torch.randn(50, 7) for _ in range(3)]
    arguments = (tensors[:2], None, tensors[2] if method.uses_base else None, [t**2 for t in tensors[:2]])
    whole = one(method, *arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "BLOCK", 11)
        assert torch.allclose(one(method, *arguments), whole, rtol=1e-6)


def test_what_cancels_elects_no_sign_whatever_the_order_of_the_models():
    base, signs = torch.zeros(4), [torch.full((4,), 3.0), torch.full((4,), 3.0), torch.full((4,), -3.0)]
    weights = [0.1, 0.2, 0.3]  # 0.1 + 0.2 - 0.3 is no zero in floating point
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        models, parts = [signs[place] for place in order], [weights[place] for place in order]
        assert one(Ties(density=1), models, parts, base).tolist() == [0.0] * 4
    almost = [signs[0], signs[1], signs[2] * (1 + 1e-6)]
    assert one(Ties(density=1), almost, weights, base).tolist() == pytest.approx([-3.0] * 4)


# What is refused.


def test_an_unknown_method_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"unknown method 'tise'\n  did you mean 'ties'"):
        method_registry().resolve("tise")


@pytest.mark.parametrize(
    ("method", "weights", "message"),
    [
        (Average(), [1.0], "a merge needs at least two models, not 1"),
        (Ties(), [1.0, -1.0], "none may be negative"),
        (Fisher(), [0.0, 0.0], "not all of them 0"),
        (Average(), [float("nan"), 1.0], "weights must be finite"),
        (Slerp(), [1.0] * 3, "slerp is between two models, not 3"),
        (Linear(), [1.0, -1.0], "the weights add up to 0\n  set normalize=false"),
        (Dare(combination="ties"), [2.0, -1.0], "none may be negative"),
    ],
)
def test_numbers_of_models_and_weights_that_do_not_fit_are_refused(method, weights, message):
    with pytest.raises(UserError) as caught:
        merge_tensors(method, [{"w": torch.ones(1)}] * len(weights), weights)
    assert message in str(caught.value)
