from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch
from pytest import approx
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from clew.config import load
from clew.errors import UserError
from clew.jobs.export import ExportConfig, export
from clew.jobs.merge import MergeConfig, merge
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.models.exchange import save_huggingface
from clew.models.loading import load_model, load_tokenizer
from clew.models.source import resolve
from clew.models.tokenizers import BpeTokenizer, ByteTokenizer, vocab_size
from clew.runs import Owner, RunInfo, State, create_run
from clew.session import RunStopped, Session

# PEFT asks Transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TOKENS = torch.arange(8)[None]


def make_model(folder, seed=0, *, dtype=torch.float32, extra=(), tokenizer=None, **options):
    torch.manual_seed(seed)
    tokenizer = tokenizer or ByteTokenizer().build([])
    tokenizer.add_tokens(list(extra))
    config = ModelConfig(**{"depth": 1, "width": 16, "heads": 2, **options})
    save_huggingface(Decoder(config, vocab_size(tokenizer), context=16).to(dtype), tokenizer, folder)
    return str(folder)


def make_adapter(base, folder, seed=0, rank=2, targets="all-linear", **more):
    import peft

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    lora = peft.LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False, **more)
    wrapped = peft.get_peft_model(model, lora)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return str(folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [make_model(folder / name, seed) for seed, name in enumerate("ab")]


@pytest.fixture(scope="module")
def adapters(two, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return [make_adapter(two[0], folder / name, seed) for seed, name in enumerate("cd")]


def run_job(tmp_path, job, config, *, stop=False):
    run = create_run(tmp_path / "runs", RunInfo(id=f"r{len(list(tmp_path.glob('runs/*')))}", job="merge"), "{}", {})
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    if stop:
        run.inbox.send("stop")
    with Session(run, config, number) as session:
        return run, job.run(session)


def weights(folder, name="model.safetensors"):
    return load_file(f"{folder}/{name}")


def logits(folder):
    source = resolve(str(folder), folder)
    with torch.no_grad():
        return load_model(source)(TOKENS).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_merged_with_itself_is_itself_bitwise(dtype, tied, tmp_path):
    model = make_model(tmp_path / "m", 3, dtype=dtype, tied=tied)
    run, outcome = run_job(tmp_path, merge, MergeConfig(models=[model] * 3, weights=[0.3, 0.6, 0.1]))
    ours, theirs = weights(run.artifacts / "model"), weights(model)
    assert ours.keys() == theirs.keys()
    assert ("lm_head.weight" in ours) is not tied
    for name, tensor in theirs.items():
        assert tensor.dtype == dtype
        assert torch.equal(ours[name].view(torch.uint8), tensor.view(torch.uint8)), name
    assert outcome.metrics["models"] == 3
    assert [one["share"] for one in outcome.notes["shares"]] == pytest.approx([0.3, 0.6, 0.1])


def test_models_are_averaged_by_their_shares_and_load_as_one(two, tmp_path):
    run, _ = run_job(tmp_path, merge, MergeConfig(models=two, weights=[3, 1]))
    folder = run.artifacts / "model"
    merged, one, other = weights(folder), *map(weights, two)
    for name, tensor in merged.items():
        assert torch.allclose(tensor, 0.75 * one[name] + 0.25 * other[name], atol=1e-7), name
    assert AutoModelForCausalLM.from_pretrained(folder)(TOKENS).logits.shape == (1, 8, 258)
    assert AutoTokenizer.from_pretrained(folder)("ab")["input_ids"] == [97, 98]
    assert str(tmp_path) not in (folder / "config.json").read_text()
    assert next(iter(run.events("horizon")))["total"] == 11


def product(folder, module="model.layers.0.mlp.up_proj"):
    """What an adapter adds to a weight."""
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    tensors = weights(folder, "adapter_model.safetensors")
    one, other = (tensors[f"base_model.model.{module}.lora_{half}.weight"].double() for half in "AB")
    return other @ one * config["lora_alpha"] / config["r"]


def test_adapters_are_merged_by_what_they_add_and_factored_again(adapters, two, tmp_path):
    run, outcome = run_job(tmp_path, merge, MergeConfig(models=adapters, weights=[3, 1], rank=4))
    folder = run.artifacts / "adapter"
    expected = 0.75 * product(adapters[0]) + 0.25 * product(adapters[1])
    assert torch.allclose(product(folder), expected, atol=1e-7)
    assert outcome.notes["adapters"] == {"form": "factored", "rank": 4, "kept_mean": ANY, "kept_least": approx(1.0)}
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == two[0]
    whole, dense = run_job(tmp_path, merge, MergeConfig(models=adapters, weights=[3, 1], adapters="fold"))
    assert torch.allclose(logits(folder), logits(whole.artifacts / "model"), atol=1e-5)
    assert dense.notes["adapters"] == {"form": "dense", "folded": 2}


def test_a_rank_that_does_not_hold_the_sum_keeps_its_largest_part(adapters, tmp_path):
    run, outcome = run_job(tmp_path, merge, MergeConfig(models=adapters))
    expected = (product(adapters[0]) + product(adapters[1])) / 2
    left, sizes, right = torch.linalg.svd(expected)
    nearest = (left[:, :2] * sizes[:2]) @ right[:2]
    assert torch.allclose(product(run.artifacts / "adapter"), nearest, atol=1e-7)
    assert 0.5 < outcome.notes["adapters"]["kept_least"] < outcome.notes["adapters"]["kept_mean"] < 1
    same, kept = run_job(tmp_path, merge, MergeConfig(models=[adapters[0]] * 2))
    assert torch.allclose(product(same.artifacts / "adapter"), product(adapters[0]), atol=1e-7)
    assert kept.notes["adapters"]["kept_least"] == approx(1.0)


def test_folded_adapters_average_to_the_mean_of_what_they_add(adapters, two, tmp_path):
    run, _ = run_job(tmp_path, merge, MergeConfig(models=[*adapters, two[0]], adapters="fold"))
    name = "model.layers.0.mlp.up_proj.weight"
    folded = [load_model(resolve(path, tmp_path)).merge_and_unload().state_dict()[name] for path in adapters]
    expected = (folded[0] + folded[1] + weights(two[0])[name]) / 3
    assert torch.allclose(weights(run.artifacts / "model")[name], expected, atol=1e-6)


def test_models_that_differ_are_refused_and_the_differences_named(two, tmp_path):
    other = make_model(tmp_path / "other", rope_theta=500.0, mlp_width=64 * 3, extra=["<new>"])
    for look in (lambda config: merge.check(config, tmp_path), lambda config: run_job(tmp_path, merge, config)):
        with pytest.raises(UserError) as caught:
            look(MergeConfig(models=[two[0], other]))
        text = str(caught.value)
        assert text.startswith(f"{two[0]} and {other} cannot be merged: intermediate_size is 64 and 192; ")
        assert "rope_theta" in text
    tokens = make_model(tmp_path / "tokens", extra=["<new>"])
    with pytest.raises(UserError, match=r"vocab_size is 258 and 259; the shape of model.embed_tokens.weight is"):
        run_job(tmp_path, merge, MergeConfig(models=[two[0], tokens]))


def test_a_vocabulary_in_another_order_is_refused(two, tmp_path):
    swapped = tmp_path / "swapped"
    make_model(swapped)
    path = swapped / "tokenizer.json"
    path.write_text(
        path.read_text().replace('"a": 97', '"a": 980').replace('"b": 98', '"b": 97').replace('"a": 980', '"a": 98')
    )
    for look in (lambda config: merge.check(config, tmp_path), lambda config: run_job(tmp_path, merge, config)):
        with pytest.raises(UserError, match=r"the vocabularies differ in 2 tokens: 'a' is 97 and 98"):
            look(MergeConfig(models=[two[0], str(swapped)]))


@pytest.mark.parametrize("tied", [True, False])
def test_shapes_in_the_heads_of_files_are_compared_where_no_config_says_it(tied, two, tmp_path):
    """And a name that only one has counts where it cannot be a second name of another tensor."""
    one, other = (make_model(tmp_path / name, tied=tied) for name in "ab")
    tensors = weights(other)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**tensors, name: tensors[name][1:].clone()}, f"{other}/model.safetensors")
    with pytest.raises(UserError) as caught:
        merge.check(MergeConfig(models=[one, other]), tmp_path)
    assert str(caught.value) == f"{one} and {other} cannot be merged: the shape of {name} is [64, 16] and [63, 16]"
    more = tensors["model.embed_tokens.weight"]
    save_file({**tensors, "more.weight": more.clone()}, f"{one}/model.safetensors")
    save_file({**tensors, "other.weight": more.clone()}, f"{other}/model.safetensors")
    if tied:
        merge.check(MergeConfig(models=[one, other]), tmp_path)
        return
    with pytest.raises(UserError, match=r"only the first has more.weight; only the second has other.weight"):
        merge.check(MergeConfig(models=[one, other]), tmp_path)


def test_what_only_one_config_says_is_left_to_the_library_that_fills_it_in(two, tmp_path):
    other = Path(make_model(tmp_path / "other", 5))
    config = json.loads((other / "config.json").read_text())
    del config["rms_norm_eps"], config["head_dim"]
    (other / "config.json").write_text(json.dumps({**config, "initializer_range": None}))
    merge.check(MergeConfig(models=[two[0], str(other)]), tmp_path)


def test_a_damaged_file_of_a_model_is_told_before_the_start(two, tmp_path):
    other = Path(make_model(tmp_path / "other"))
    (other / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="the weights cannot be read: it is no safetensors file"):
        merge.check(MergeConfig(models=[two[0], str(other)]), tmp_path)
    (other / "config.json").write_text("{")
    with pytest.raises(UserError, match="the model's files cannot be read"):
        merge.check(MergeConfig(models=[two[0], str(other)]), tmp_path)


def test_adapters_of_other_ranks_and_modules_fit_but_not_those_of_another_base(adapters, two, tmp_path):
    wide = make_adapter(two[0], tmp_path / "wide", rank=4, targets=["up_proj", "v_proj"])
    run, _ = run_job(tmp_path, merge, MergeConfig(models=[adapters[0], wide], rank=6))
    folder = run.artifacts / "adapter"
    assert torch.allclose(product(folder), (product(adapters[0]) + product(wide)) / 2, atol=1e-7)
    only = "model.layers.0.mlp.down_proj"
    assert torch.allclose(product(folder, only), product(adapters[0], only) / 2, atol=1e-7)
    assert logits(folder).shape == (1, 8, 258)
    other = make_adapter(two[1], tmp_path / "other")
    differ = rf"^{adapters[0]} and {other} cannot be merged: base is '{two[0]}' and '{two[1]}'"
    for look in (lambda config: merge.check(config, tmp_path), lambda config: run_job(tmp_path, merge, config)):
        with pytest.raises(UserError, match=differ):
            look(MergeConfig(models=[adapters[0], other]))
    with pytest.raises(UserError, match=r"an adapter cannot be merged with a whole model\n  set adapters=fold"):
        merge.check(MergeConfig(models=[adapters[0], two[1]]), tmp_path)


def test_an_adapter_that_is_more_than_two_matrices_can_only_be_folded(adapters, two, tmp_path):
    dora = make_adapter(two[0], tmp_path / "dora", use_dora=True)
    with pytest.raises(UserError, match=r"more than products of two matrices: it has use_dora\n  set adapters=fold"):
        run_job(tmp_path, merge, MergeConfig(models=[adapters[0], dora]))
    run, _ = run_job(tmp_path, merge, MergeConfig(models=[dora, dora], adapters="fold"))
    assert torch.allclose(logits(run.artifacts / "model"), logits(dora), atol=1e-5)


def test_what_is_wrong_with_a_merge_is_said_before_the_start(two, tmp_path):
    with pytest.raises(UserError, match="weights and models: 3 weights for 2 models"):
        MergeConfig(models=two, weights=[1, 1, 1])
    with pytest.raises(UserError, match="a merge needs at least two models, not 1"):
        MergeConfig(models=two[:1])
    with pytest.raises(UserError, match="a merge needs at least two models, not 0\n  name them under models"):
        merge.check(MergeConfig(), tmp_path)
    with pytest.raises(UserError, match="there is no run 'nobody'"):
        merge.check(MergeConfig(models=[two[0], "run:nobody"]), tmp_path)


def test_a_merge_that_is_stopped_publishes_nothing(two, tmp_path):
    with pytest.raises(RunStopped, match="at step 1"):
        run_job(tmp_path, merge, MergeConfig(models=two), stop=True)
    assert not list(tmp_path.glob("runs/*/artifacts/*"))


def test_an_exported_adapter_is_folded_into_its_base(adapters, tmp_path):
    run, outcome = run_job(tmp_path, export, ExportConfig(model=adapters[0]))
    folder = run.artifacts / "model"
    assert torch.allclose(logits(folder), logits(adapters[0]), atol=1e-5)
    assert not torch.allclose(logits(folder), logits(outcome.notes["base"]), atol=1e-2)
    assert not (folder / "adapter_config.json").exists()
    assert outcome.notes["adapter"] is True


def test_an_exported_model_is_the_model_in_the_dtype_that_is_asked_for(two, tmp_path):
    same, _ = run_job(tmp_path, export, ExportConfig(model=two[0]))
    ours, theirs = weights(same.artifacts / "model"), weights(two[0])
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    half, _ = run_job(tmp_path, export, ExportConfig(model=two[0], dtype="bfloat16"))
    folder = half.artifacts / "model"
    assert {tensor.dtype for tensor in weights(folder).values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert str(tmp_path) not in (folder / "config.json").read_text()


def test_an_adapter_may_stay_one(adapters, two, tmp_path):
    run, outcome = run_job(tmp_path, export, ExportConfig(model=adapters[1], adapter="keep"))
    assert torch.equal(logits(run.artifacts / "adapter"), logits(adapters[1]))
    assert outcome.metrics["parameters"] < 10_000
    with pytest.raises(UserError, match=r"is no adapter that could be kept\n  set adapter=fold"):
        export.check(ExportConfig(model=two[0], adapter="keep"), tmp_path)


def test_a_gguf_file_holds_the_folded_model_and_is_what_the_run_made(tmp_path):
    tokenizer = BpeTokenizer(vocab_size=270).build(["a word and a word"])
    adapter = make_adapter(make_model(tmp_path / "m", tokenizer=tokenizer), tmp_path / "a")
    run, _ = run_job(tmp_path, export, ExportConfig(model=adapter, format="gguf"))
    source = resolve(f"run:{run.id}", run.path.parent)
    assert source.reference == str(run.artifacts / "model.gguf")
    with torch.no_grad():
        assert torch.allclose(load_model(source)(TOKENS).logits, logits(adapter), atol=1e-5)
    assert load_tokenizer(source)("a word")["input_ids"] == tokenizer("a word")["input_ids"]
    half, _ = run_job(tmp_path, export, ExportConfig(model=adapter, format="gguf", dtype="float16"))
    assert (half.artifacts / "model.gguf").stat().st_size < (run.artifacts / "model.gguf").stat().st_size


def test_what_gguf_cannot_hold_is_refused_and_nothing_is_published(two, tmp_path):
    with pytest.raises(ValueError, match="format and adapter: a GGUF file holds a whole model, so the adapter must be"):
        ExportConfig(model=two[0], format="gguf", adapter="keep")
    with pytest.raises(ValueError, match="dtype and format: q8_0 is a type of format gguf alone"):
        ExportConfig(model=two[0], dtype="q8_0")
    made = LlamaForCausalLM.from_pretrained(two[0])
    made.config.rope_parameters = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    made.save_pretrained(tmp_path / "scaled")
    AutoTokenizer.from_pretrained(two[0]).save_pretrained(tmp_path / "scaled")
    with pytest.raises(UserError, match="this model's rope_type cannot be written as GGUF here"):
        run_job(tmp_path, export, ExportConfig(model=str(tmp_path / "scaled"), format="gguf"))
    assert not list(tmp_path.glob("runs/*/artifacts/*"))


def test_the_configs_are_known_without_torch():
    code = "import sys, clew.jobs.merge, clew.jobs.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_list_of_models_loads_from_a_mapping(two):
    loaded = load({"models": two, "weights": [1, 2]}, root=MergeConfig, registries={})
    assert loaded.value == MergeConfig(models=two, weights=[1, 2])
