"""Merging into weights that train: all of it or nothing, in place, and said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clew.checkpoints.state import save_state
from clew.errors import UserError
from clew.live.merging import merge_into, open_state
from clew.merging.information import live_information
from clew.merging.merge import merge_tensors
from clew.merging.methods import method_registry
from clew.merging.weights import InMemory
from clew.session.surface import MergeRequest


class Net(nn.Module):
    """A tied matrix, a normalisation with running statistics, and a buffer that is not saved."""

    def __init__(self, seed: int = 0, width: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(5, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("angles", torch.ones(2), persistent=False)
        for _ in range(seed + 1):
            self.norm(torch.randn(8, width) * (seed + 1))

    def forward(self, ids):
        return self.head(self.norm(self.embed(ids)))


def copies(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def kept(model):
    return model.state_dict(keep_vars=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def request(*sources, method="average", **more):
    names = [str(source) if source else "." for source in sources]
    said = {"type": method} if isinstance(method, str) else method
    return MergeRequest([Path(source) if source else None for source in sources], names, said, **more)


@pytest.fixture
def others():
    """Checkpoints by name, and what opens them."""
    found = {name: copies(Net(seed)) for seed, name in enumerate("abc")}
    return found, lambda path: InMemory(found[path.name])


def merged_by_hand(method, models, weights=None, **more):
    """The same by the reference, without the second name of the tied matrix."""
    made = method_registry().resolve(method["type"])(**{key: one for key, one in method.items() if key != "type"})
    trimmed = [{name: one for name, one in model.items() if name != "head.weight"} for model in models]
    return merge_tensors(made, trimmed, weights, **more)


@pytest.mark.parametrize("method", ["average", "linear", "swa", "slerp", "task_arithmetic", "ties", "dare"])
def test_the_live_tensors_become_what_the_method_makes_of_all_sources(method, others):
    found, opened = others
    live = Net(7)
    before = copies(live)
    bases = {"base": Path("c")} if method in ("task_arithmetic", "ties", "dare") else {}
    facts = merge_into(kept(live), request("a", None, method=method, weights=[3, 1], seed=5, **bases), opened)
    base = {name: one for name, one in found["c"].items() if name != "head.weight"} if bases else None
    expected = merged_by_hand({"type": method}, [found["a"], before], [3.0, 1.0], base=base, seed=5)
    for name, tensor in expected.items():
        assert torch.equal(live.state_dict()[name], tensor), name
    assert facts["method"]["type"] == method
    assert [one["source"] for one in facts["shares"]] == ["a", "."]
    moved = sum(float((expected[name].double() - before[name].double()).square().sum()) for name in expected
                if expected[name].is_floating_point())  # fmt: skip
    assert facts["change"]["norm"] == pytest.approx(moved**0.5)
    assert facts["change"]["relative"] > 0


def test_what_is_no_plain_weight_is_said(others):
    live = Net(7)
    matrix, angles = live.embed.weight, live.angles
    facts = merge_into(live.state_dict(), request("a", None), others[1])
    assert live.embed.weight is matrix is live.head.weight and live.angles is angles
    assert facts["tied"] == [["embed.weight", "head.weight"]]
    assert facts["tensors"] == 6
    assert facts["taken_from_first"] == ["norm.num_batches_tracked"]
    assert live.norm.num_batches_tracked.item() == 1
    assert facts["statistics"] == {"tensors": 2, "how": "pooled by shares, as of all data together"}


def test_running_statistics_are_those_of_all_the_data_together():
    parts = [torch.randn(4000, 3, dtype=torch.float64) * scale + scale for scale in (1.0, 4.0)]
    models = [nn.BatchNorm1d(3, dtype=torch.float64) for _ in parts]
    for model, part in zip(models, parts, strict=True):
        model.running_mean, model.running_var = part.mean(0), part.var(0, correction=0)
    other = copies(models[1])
    merge_into(models[0].state_dict(), request(None, "b"), lambda path: InMemory(other))
    together = torch.cat(parts)
    assert torch.allclose(models[0].running_mean, together.mean(0))
    assert torch.allclose(models[0].running_var, together.var(0, correction=0))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 20), st.sampled_from(["average", "linear", "slerp", "swa"]), st.floats(0.01, 10))
def test_equal_sources_and_all_of_the_weight_on_one_leave_that_one_bitwise(seed, method, weight):
    live, other = Net(0), copies(Net(seed))
    merge_into(live.state_dict(), request("b", "b", method=method, weights=[weight, 1.0]), lambda _: InMemory(other))
    assert same(copies(live), other)
    before = copies(live)
    facts = merge_into(live.state_dict(), request(None, "b", method=method, weights=[1, 0]), lambda _: InMemory(other))
    assert same(copies(live), before)
    assert facts["change"] == {"norm": 0.0, "relative": 0.0}


@settings(deadline=None, max_examples=25)
@given(st.permutations("abc"), st.lists(st.integers(1, 5), min_size=3, max_size=3))
def test_the_order_of_the_sources_does_not_count(order, weights):
    found = {name: copies(Net(seed)) for seed, name in enumerate("abc")}
    made = []
    for names, parts in (("abc", weights), (order, [weights["abc".index(name)] for name in order])):
        live = Net(9)
        merge_into(live.state_dict(), request(*names, weights=parts), lambda path: InMemory(found[path.name]))
        made.append(copies(live))
    for name in ("embed.weight", "norm.weight", "norm.running_var"):
        assert torch.allclose(made[0][name], made[1][name], rtol=1e-6)


def test_a_checkpoint_in_another_precision_is_rounded_to_that_of_the_live_weights():
    live, other = (
        Net(0),
        {name: one.double() if one.is_floating_point() else one for name, one in copies(Net(1)).items()},
    )
    before = copies(live)
    merge_into(live.state_dict(), request(None, "b"), lambda path: InMemory(other))
    expected = (before["embed.weight"].double() + other["embed.weight"]) / 2
    assert torch.equal(live.embed.weight.detach(), expected.float())


# All of it, or nothing.


REFUSED = [
    (lambda one: one.pop("norm.bias"), "only the first has norm.bias"),
    (lambda one: one.update(more=torch.ones(1)), "only the second has more"),
    (lambda one: one.update({"norm.bias": torch.ones(4)}), "the shape of norm.bias is [3] and [4]"),
    (lambda one: one.update({"norm.bias": torch.ones(3, dtype=torch.int32)}), "of norm.bias is float32 and int32"),
    (lambda one: one.update({"head.weight": torch.ones(5, 3)}), "embed.weight and head.weight are one tensor here and"),
    (
        lambda one: one.update({"norm.bias": torch.full((3,), float("nan"))}),
        "what norm.bias is merged to is not finite",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSED)
def test_what_does_not_fit_is_named_and_nothing_has_changed(spoil, message, others, tmp_path):
    found, opened = others
    spoil(found["b"])
    live = Net(7)
    before = copies(live)
    with pytest.raises(UserError) as caught:
        merge_into(live.state_dict(), request("a", None, "b", scratch=tmp_path), opened)
    assert message in str(caught.value)
    assert same(copies(live), before)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_leaves_the_live_weights_alone(others, tmp_path, monkeypatch):
    live = Net(7)
    before = copies(live)
    monkeypatch.setattr("clew.merging.weights.TensorFile.write", _no_space)
    with pytest.raises(OSError, match="No space left"):
        merge_into(live.state_dict(), request("a", None, scratch=tmp_path), others[1])
    assert same(copies(live), before)
    assert not list(tmp_path.iterdir())


def _no_space(file, name, tensor):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request("a", None, method="tise"), "unknown method 'tise'\n  did you mean 'ties'?"),
        (request("a", None, method={}), "unknown method None"),
        (request("a", None, method="/tmp/own.py:Own"), "unknown method '/tmp/own.py:Own'\n  known: average, dare"),
        (request("a", None, method={"type": "ties", "densty": 1}), "did you mean 'method.density'?"),
        (request("a", None, method={"type": "ties", "density": 2}), "density"),
        (request("a", None, method="ties"), "this method needs the model that all came from\n  name it: base=..."),
        (request("a", None, base=Path("c")), "this method uses no base\n  leave base out"),
        (request("a"), "a merge needs at least two models, not 1"),
        (request("a", None, weights=[1]), "1 weights for 2 sources"),
        (request("a", None, weights=[1, -1]), "none may be negative"),
        (request("a", "b", None, method="slerp"), "slerp is between two models, not 3"),
        (request("a", None, method={"type": "swa", "trajectory": "run:x"}), "name the checkpoints as sources"),
        (request("a", None, method="fisher"), "this job cannot estimate the Fisher information of its weights"),
    ],
)
def test_nonsense_is_refused_before_anything_is_opened(asked, message):
    def opened(path):
        raise AssertionError("nothing was to be opened")

    with pytest.raises(UserError) as caught:
        merge_into(Net().state_dict(), asked, opened)
    assert message in str(caught.value)


# Fisher information, which the run itself estimates.


def estimator(model, data):
    """The log-likelihood of some rows of tokens."""

    def likelihood(ids):
        return -nn.functional.cross_entropy(model(ids), ids.flip(0), reduction="sum")

    return lambda weights, method: live_information(
        model, weights, [lambda ids=ids: likelihood(ids) for ids in data[: method.samples]]
    )


def test_fisher_weighs_by_what_the_run_estimates_and_leaves_it_as_it_was(others):
    found, opened = others
    live, data = Net(7), [torch.randint(5, (6,)) for _ in range(4)]
    before, generator = copies(live), torch.get_rng_state()
    seen = []

    def estimate(weights, method):
        assert same(copies(live), before)
        seen.append(estimator(live, data)(weights, method))
        assert same(copies(live), before) and live.training
        return seen[-1]

    method = {"type": "fisher", "samples": 3}
    merge_into(kept(live), request("a", None, method=method), opened, fisher=estimate)
    assert torch.equal(torch.get_rng_state(), generator)
    expected = merged_by_hand({"type": "fisher"}, [found["a"], before], fisher=seen)
    mean = merged_by_hand({"type": "average"}, [found["a"], before])
    assert torch.equal(live.embed.weight.detach(), expected["embed.weight"])
    assert not torch.allclose(expected["embed.weight"], mean["embed.weight"], atol=1e-3)
    other = Net(0)
    other.load_state_dict(found["a"])
    direct = estimator(other, data)(InMemory(found["a"]), method_registry().resolve("fisher")(samples=3))
    assert all(torch.allclose(seen[0][name], tensor) for name, tensor in direct.items())


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_scale_of_the_information_changes_nothing_in_a_live_merge(scale, others):
    made = []
    for factor in (1.0, scale):
        live, data = Net(7), [torch.arange(5), torch.arange(5).flip(0)]
        plain = estimator(live, data)
        merge_into(
            kept(live),
            request("a", None, "b", method="fisher"),
            others[1],
            fisher=lambda weights, method, plain=plain, factor=factor: {
                name: one.double() * factor for name, one in plain(weights, method).items()
            },
        )
        made.append(copies(live))
    assert all(torch.allclose(one, made[1][name], rtol=1e-6, atol=0) for name, one in made[0].items())


@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0])
def test_equal_and_zero_information_is_the_plain_mean_in_a_live_merge(value, others):
    made = []
    for method, fisher in (
        ("average", None),
        ("fisher", lambda weights, _: {name: torch.full(one.shape, value) for name, one in weights.layout.items()}),
    ):
        live = Net(7)
        merge_into(live.state_dict(), request("a", None, method=method), others[1], fisher=fisher)
        made.append(copies(live))
    assert same(*made)


def test_quadratics_merged_by_their_curvature_give_the_minimiser_of_their_sum():
    torch.manual_seed(0)
    minima = [torch.randn(6, dtype=torch.float64) for _ in range(3)]
    curvatures = [torch.rand(6, dtype=torch.float64) + 0.01 for _ in minima]
    live = {"w": minima[0].clone().requires_grad_()}
    weights = iter(curvatures)
    merge_into(
        live,
        request(None, "1", "2", method="fisher"),
        lambda path: InMemory({"w": minima[int(path.name)]}),
        fisher=lambda *_: {"w": next(weights)},
    )
    point = live["w"].detach().requires_grad_()
    total = sum((h * (point - x) ** 2).sum() / 2 for h, x in zip(curvatures, minima, strict=True))
    assert torch.allclose(torch.autograd.grad(total, point)[0], torch.zeros(6, dtype=torch.float64), atol=1e-14)


def test_information_that_lacks_a_trained_weight_is_refused(others):
    live = Net(7)
    for found, missing in (({}, "embed.weight"), ({"embed.weight": torch.ones(5, 3)}, "norm.bias")):
        with pytest.raises(UserError, match=rf"no Fisher information of \d weights, such as {missing}"):
            merge_into(
                kept(live),
                request("a", None, method="fisher"),
                others[1],
                fisher=lambda *_, f=found: f,
            )
    with pytest.raises(UserError, match="there are no examples to estimate the Fisher information on"):
        merge_into(kept(live), request("a", None, method="fisher"), others[1], fisher=estimator(live, []))


# The tensors of a checkpoint of ours.


def test_the_tensors_of_a_state_are_found_by_their_names(tmp_path):
    model = Net(3)
    state = {"step": 4, "model": model.state_dict(), "nested": {"net": {"a": {"w": torch.ones(2)}, "n": 3}}}
    save_state(tmp_path, "trainer", state)
    weights = open_state(tmp_path, "trainer")
    assert weights.layout.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights.read(name), tensor) and weights.layout[name] == (tensor.shape, tensor.dtype)
    assert open_state(tmp_path, "trainer", ("nested", "net")).read("a.w").tolist() == [1.0, 1.0]


def test_what_is_no_such_state_is_said(tmp_path):
    with pytest.raises(UserError, match="the weights cannot be read"):
        open_state(tmp_path, "trainer")
    save_state(tmp_path, "trainer", {"model": {}})
    with pytest.raises(UserError, match=r"this checkpoint has no net\.model in trainer\.json"):
        open_state(tmp_path, "trainer", ("net", "model"))
    (tmp_path / "trainer.json").write_text("[]")
    with pytest.raises(UserError, match=r"this checkpoint has no model in trainer\.json"):
        open_state(tmp_path, "trainer")


def test_a_checkpoint_is_merged_into_the_run_that_wrote_it(tmp_path):
    live = Net(3)
    save_state(tmp_path, "trainer", {"model": live.state_dict(), "optimizer": [1, 2]})
    before = copies(live)
    with torch.no_grad():
        live.embed.weight += 2.0
    facts = merge_into(live.state_dict(), request(tmp_path, None), lambda path: open_state(path, "trainer"))
    assert torch.allclose(live.embed.weight, before["embed.weight"] + 1.0)
    assert facts["change"]["norm"] == pytest.approx(15**0.5, rel=1e-5)
