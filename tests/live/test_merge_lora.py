"""Merging into a live LoRA adapter: the products are merged, and factored again."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clew.errors import UserError
from clew.live.merging import merge_lora_into
from clew.session.surface import MergeRequest

# PEFT asks Transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

NAME = "model.layers.0.mlp.up_proj"


def model_with(seed=0, rank=2, targets=("up_proj", "v_proj"), base="base", **more):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=20, **shape))
    model.name_or_path = model.config._name_or_path = base
    torch.manual_seed(seed)
    lora = peft.LoraConfig(r=rank, lora_alpha=8, target_modules=list(targets), init_lora_weights=False, **more)
    return peft.get_peft_model(model, lora)


def saved(folder: Path, *args, **more) -> Path:
    model_with(*args, **more).save_pretrained(folder, save_embedding_layers=False)
    return folder


def layer(model):
    return model.get_submodule(f"base_model.model.{NAME}")


def product(model):
    one = layer(model)
    return one.scaling["default"] * one.lora_B["default"].weight.double() @ one.lora_A["default"].weight.double()


def adapter(model):
    return {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}


def request(*sources, method="average", **more):
    return MergeRequest(sources, [one.name if one else "." for one in sources], {"type": method}, **more)


def test_the_products_are_merged_and_the_nearest_of_the_live_rank_is_taken(tmp_path):
    live, other = model_with(1), model_with(2)
    before = product(live).detach()
    facts = merge_lora_into(live, request(None, saved(tmp_path / "b", 2), weights=[3, 1]))
    expected = (0.75 * before + 0.25 * product(other)).detach()
    left, sizes, right = torch.linalg.svd(expected)
    assert torch.allclose(product(live), (left[:, :2] * sizes[:2]) @ right[:2], atol=1e-6)
    told = facts["adapters"]
    assert (told["form"], told["rank"]) == ("factored", 2)
    kept = float((sizes[:2] ** 2).sum() / (sizes**2).sum())
    assert told["kept_least"] <= kept + 1e-6 and 0 < told["kept_least"] <= told["kept_mean"] < 1
    assert facts["shares"] == [{"source": ".", "share": 0.75}, {"source": "b", "share": 0.25}]
    assert facts["tensors"] == 2 and facts["change"]["norm"] > 0


def test_a_rank_that_is_large_enough_keeps_everything(tmp_path):
    live, other = model_with(1, rank=6), model_with(2)
    expected = ((product(live) + product(other)) / 2).detach()
    facts = merge_lora_into(live, request(None, saved(tmp_path / "b", 2)))
    # 6 + 2 is more than 6, but what is lost of a random product is small.
    assert facts["adapters"]["kept_least"] > 0.8
    wide = model_with(1, rank=8)
    before = product(wide).detach()
    merge_lora_into(wide, request(saved(tmp_path / "c", 1), saved(tmp_path / "d", 2)))
    small = (product(model_with(1)) + product(other)).detach() / 2
    assert torch.allclose(product(wide), small, atol=1e-6)
    assert not torch.allclose(before, small, atol=1e-2) and expected.shape == small.shape


@pytest.mark.parametrize("weights", [(), (0.3, 0.7)])
def test_adapters_that_are_the_same_leave_it_bitwise(weights, tmp_path):
    live = model_with(1)
    live.save_pretrained(tmp_path / "b", save_embedding_layers=False)
    before = adapter(live)
    facts = merge_lora_into(live, request(None, tmp_path / "b", weights=weights))
    after = adapter(live)
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    assert facts["adapters"]["kept_least"] == pytest.approx(1.0)


def test_all_of_the_weight_on_one_adapter_gives_its_matrices_bitwise(tmp_path):
    live, other = model_with(1), model_with(2)
    merge_lora_into(live, request(None, saved(tmp_path / "b", 2), weights=[0, 1]))
    expected = adapter(other)
    assert all(torch.equal(one, expected[name]) for name, one in adapter(live).items())


def test_what_only_the_live_adapter_changes_is_merged_with_nothing(tmp_path):
    live = model_with(1)
    before = product(live).detach()
    merge_lora_into(live, request(None, saved(tmp_path / "b", 2, targets=["v_proj"])))
    assert torch.allclose(product(live), before / 2, atol=1e-7)


def test_task_arithmetic_adds_what_adapters_add_and_a_base_can_be_another_adapter(tmp_path):
    live, one, two = model_with(1, rank=8), model_with(2), model_with(3)
    folders = [saved(tmp_path / name, seed) for name, seed in (("b", 2), ("c", 3))]
    merge_lora_into(live, request(*folders, method="task_arithmetic"))
    assert torch.allclose(product(live), (product(one) + product(two)).detach(), atol=1e-6)
    live = model_with(1, rank=8)
    merge_lora_into(live, request(*folders, method="task_arithmetic", base=folders[0]))
    assert torch.allclose(product(live), product(two).detach(), atol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"base": "another"}, "b cannot be merged with this run: base is 'base' and 'another'"),
        ({"targets": ["up_proj", "v_proj", "q_proj"]}, "only the second has model.layers.0.self_attn.q_proj.weight"),
        ({"use_dora": True}, "this adapter is more than products of two matrices: it has use_dora"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_and_nothing_has_changed(more, message, tmp_path):
    live = model_with(1)
    live.save_pretrained(tmp_path / "own", save_embedding_layers=False)
    before = adapter(live)
    with pytest.raises(UserError) as caught:
        merge_lora_into(live, request(None, saved(tmp_path / "b", 2, **more), own=tmp_path / "own"))
    assert message in str(caught.value)
    assert all(torch.equal(one, before[name]) for name, one in adapter(live).items())


def test_another_base_is_refused_without_a_checkpoint_of_its_own_too(tmp_path):
    with pytest.raises(UserError, match="b cannot be merged with the live weights: base is 'base' and 'another'"):
        merge_lora_into(model_with(1), request(None, saved(tmp_path / "b", 2, base="another")))


def test_what_is_more_than_two_matrices_and_the_information_of_them_are_refused(tmp_path):
    folder = saved(tmp_path / "b", 2)
    with pytest.raises(UserError, match="what trains is more than products of two matrices: it has use_dora"):
        merge_lora_into(model_with(1, use_dora=True), request(None, folder))
    with pytest.raises(UserError, match=r"information of its two matrices is not that of their product\n  take"):
        merge_lora_into(model_with(1), request(None, folder, method="fisher"))
