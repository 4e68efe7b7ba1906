"""The job `merge` with each kind of method: what its config says, where models come from, what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from pytest import approx
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig
from tuning_support import Echo, attempt, new_run, save_model

from clew.checkpoints import CheckpointStore
from clew.config import config, json_schema
from clew.errors import ConfigError, UserError
from clew.jobs import load_job
from clew.jobs.fisher import diagonal_fisher, rows_of
from clew.jobs.merge import MergeConfig, merge
from clew.merging.merge import merge_tensors
from clew.merging.methods import method_registry
from clew.merging.methods.dare import Dare
from clew.merging.methods.fisher import Fisher
from clew.merging.methods.slerp import Slerp
from clew.merging.methods.swa import Swa
from clew.merging.methods.ties import Ties
from clew.merging.weights import tensors_of
from clew.models.loading import load_model, load_tokenizer
from clew.models.source import resolve
from clew.runs import RunInfo, create_run
from clew.tasks import Task

# PEFT asks Transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def variant(original, folder, seed, change=0.1):
    """A model that came from another one."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(original)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * change)
    model.save_pretrained(folder)
    load_tokenizer(resolve(original, folder)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Two models, and the one that they came from."""
    folder = tmp_path_factory.mktemp("family")
    base = save_model(folder / "base", tie_word_embeddings=True)
    return [variant(base, folder / name, seed) for seed, name in enumerate("ab")] + [base]


def run_merge(tmp_path, **said):
    run = new_run(tmp_path, "merge")
    outcome = attempt(merge, run, MergeConfig(**said))
    return load_file(run.artifacts / "model" / "model.safetensors"), outcome


@pytest.mark.parametrize("method", [Ties(density=0.3), Dare(density=0.7, combination="ties"), Slerp()])
def test_the_job_does_what_the_method_does(method, family, tmp_path):
    *models, base = ({**tensors_of(AutoModelForCausalLM.from_pretrained(path))} for path in family)
    needed = {"base": family[2]} if method.uses_base else {}
    merged, outcome = run_merge(tmp_path, models=family[:2], method=method, weights=[2, 1], seed=5, **needed)
    expected = merge_tensors(method, models, [2, 1], base=base, seed=5)
    assert merged.keys() == expected.keys() and "lm_head.weight" not in merged
    for name, tensor in expected.items():
        assert torch.equal(merged[name], tensor), name
    assert outcome.metrics["parameters"] == sum(tensor.numel() for tensor in merged.values())


def test_a_word_or_a_section_names_the_method():
    said = {"job": "merge", "models": ["a", "b"]}
    assert load_job({**said, "method": "ties"}).config.method == Ties()
    assert load_job({**said, "method": {"type": "ties", "density": 0.3}}).config.method == Ties(density=0.3)
    assert load_job({**said, "method": "ties"}, ["method=dare"]).config.method == Dare()
    assert load_job(said, ["method.type=dare", "method.density=0.1"]).config.method == Dare(density=0.1)
    check = pytest.importorskip("jsonschema").Draft202012Validator(
        json_schema(MergeConfig, registries={"method": method_registry()})
    )
    assert check.is_valid({"method": "ties"}) and check.is_valid({"method": {"type": "ties", "density": 0.3}})
    assert not check.is_valid({"method": "tise"}) and not check.is_valid({"method": {"type": "ties", "densty": 0.3}})
    with pytest.raises(ConfigError, match=r"unknown method 'tise'\n  did you mean 'ties'"):
        load_job({**said, "method": "tise"})
    with pytest.raises(ConfigError, match=r"unknown key 'method.densty'\n  did you mean 'method.density'"):
        load_job({**said, "method": {"type": "ties", "densty": 0.3}})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"method": Ties()}, "this method needs the model that all came from\n  name it: base=..."),
        ({"base": "BASE"}, "this method uses no base\n  leave base out"),
        ({"method": Fisher()}, "fisher is estimated on examples, and there is no task\n  name the task that has them"),
        ({"task": Echo()}, "only the method fisher uses a task\n  leave task out"),
        ({"method": Fisher(), "task": Task()}, "the task Task has no documents, which merge needs"),
        ({"method": Swa(trajectory="run:nobody")}, "there is no run 'nobody'"),
    ],
)
def test_what_a_method_lacks_or_does_not_use_is_said_before_the_start(said, message, family, tmp_path):
    said = {**said, **({"base": family[2]} if "base" in said else {})}
    with pytest.raises(UserError) as caught:
        merge.check(MergeConfig(models=family[:2], **said), tmp_path)
    assert message in str(caught.value)


def test_a_base_of_another_shape_is_refused(family, tmp_path):
    other = save_model(tmp_path / "other", tie_word_embeddings=True, intermediate_size=48)
    said = {"models": family[:2], "method": Ties(), "base": other}
    differ = rf"^{family[0]} and the base {other} cannot be merged: intermediate_size is 32 and 48"
    with pytest.raises(UserError, match=differ):
        merge.check(MergeConfig(**said), tmp_path)
    with pytest.raises(UserError, match=differ):
        run_merge(tmp_path, **said)


# The trajectory of a run.


@pytest.fixture
def trajectory(family, tmp_path):
    run = create_run(tmp_path / "runs", RunInfo(id="long", job="sft"), "{}", {})
    store = CheckpointStore(run.checkpoints)
    for step, path in zip((10, 20, 30), (*family[:2], family[2]), strict=True):
        model = AutoModelForCausalLM.from_pretrained(path)

        def write(folder, model=model):
            model.save_pretrained(folder / "model")
            load_tokenizer(resolve(family[2], folder)).save_pretrained(folder / "model")

        store.save(step, write)
    return run


@pytest.mark.parametrize(("steps", "taken"), [(None, [10, 20, 30]), ([10, 30], [10, 30])])
def test_swa_averages_the_checkpoints_of_a_run(steps, taken, trajectory, family, tmp_path):
    merged, outcome = run_merge(tmp_path, method=Swa(trajectory="run:long", steps=steps))
    assert outcome.notes["shares"] == [{"model": f"run:long@{step}", "share": approx(1 / len(taken))} for step in taken]
    parts = [load_file(f"{family[step // 10 - 1]}/model.safetensors") for step in taken]
    for name, tensor in merged.items():
        assert torch.allclose(tensor, sum(part[name] for part in parts) / len(parts), atol=1e-6), name


def test_a_trajectory_without_checkpoints_is_refused(tmp_path):
    create_run(tmp_path / "runs", RunInfo(id="empty", job="sft"), "{}", {})
    with pytest.raises(UserError, match="run:empty: this run has no checkpoints to average"):
        merge.check(MergeConfig(method=Swa(trajectory="run:empty")), tmp_path / "runs")
    with pytest.raises(ValueError, match="steps are those of a trajectory, and none is named"):
        Swa(steps=[1])


# Fisher information.


class Chain(torch.nn.Module):
    """p(next | token) = softmax of a row of a table: its Fisher information can be written down."""

    device = torch.device("cpu")

    def __init__(self, table):
        super().__init__()
        self.table = torch.nn.Parameter(table)
        self.unused = torch.nn.Parameter(torch.ones(2))

    def forward(self, input_ids, use_cache):
        return type("Output", (), {"logits": self.table[input_ids]})


def test_the_fisher_information_is_the_mean_of_squared_gradients_of_each_example():
    table = torch.randn(3, 3)
    rows = [([0, 1, 2], [-100, 1, 2]), ([0, 2, 2, 1], [-100, -100, 2, 1]), ([1, 0], [-100, -100])]
    found = diagonal_fisher(Chain(table), rows)
    expected = torch.zeros(3, 3)
    for ids, labels in rows:
        gradient = torch.zeros(3, 3)
        for here, label in zip(ids, labels[1:], strict=False):
            if label != -100:
                gradient[here] += torch.eye(3)[label] - table[here].softmax(0)
        expected += gradient**2 / len(rows)
    assert torch.allclose(found["table"], expected, atol=1e-6)
    assert found["unused"].tolist() == [0.0, 0.0]


def test_fisher_merges_models_by_what_they_know_of_the_task(family, tmp_path):
    method = Fisher(samples=6)
    merged, _ = run_merge(tmp_path, models=family[:2], method=method, task=Echo(), seed=3)
    models, fisher = [], []
    for path in family[:2]:
        source = resolve(path, tmp_path)
        model = load_model(source)
        rows = list(rows_of(Echo(), method, load_tokenizer(source), 3))
        assert len(rows) == 6 and all(-100 in labels for _, labels in rows)
        models.append({name: tensor.detach().clone() for name, tensor in tensors_of(model).items()})
        fisher.append(diagonal_fisher(model, rows))
    expected = merge_tensors(method, models, fisher=fisher)
    mean = merge_tensors(Swa(), models)
    for name, tensor in expected.items():
        assert torch.allclose(merged[name], tensor, atol=1e-6), name
    assert not torch.allclose(merged["model.embed_tokens.weight"], mean["model.embed_tokens.weight"], atol=1e-3)
    assert not (tmp_path / "runs" / "r" / ".fisher").exists()


@config
class Prose(Task):
    """Texts alone."""

    def documents(self, split):
        return iter(["abc", "de", "fgh"])


def test_without_examples_the_documents_are_what_is_learnt(family, tmp_path):
    rows = list(rows_of(Prose(), Fisher(samples=2, max_length=2), load_tokenizer(resolve(family[0], tmp_path)), 0))
    assert rows == [([97, 98], [97, 98]), ([100, 101], [100, 101])]


def test_fisher_refuses_what_would_be_a_plain_mean_in_silence(family, tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = load_tokenizer(resolve(family[0], tmp_path))
    shape |= {"num_key_value_heads": 2, "num_local_experts": 2, "vocab_size": len(tokenizer)}
    models = [AutoModelForCausalLM.from_config(MixtralConfig(**shape)) for _ in range(2)]
    for model, name in zip(models, "ab", strict=True):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    paths = [str(tmp_path / name) for name in "ab"]
    with pytest.raises(UserError, match=r"weights are named otherwise in their file .*\n  fisher cannot"):
        run_merge(tmp_path / "one", models=paths, method=Fisher(), task=Echo())
    run = new_run(tmp_path / "two", "merge")
    attempt(merge, run, MergeConfig(models=paths))
    mean = AutoModelForCausalLM.from_pretrained(run.artifacts / "model").get_parameter("model.norm.weight")
    assert torch.equal(mean, sum(model.get_parameter("model.norm.weight") for model in models) / 2)
    experts = "model.layers.0.mlp.experts.down_proj"
    merged = AutoModelForCausalLM.from_pretrained(run.artifacts / "model").get_parameter(experts)
    assert torch.allclose(merged, sum(model.get_parameter(experts) for model in models) / 2, atol=1e-7)


# What adapters and stored forms need.


def test_task_arithmetic_on_adapters_needs_no_base_to_be_named(family, tmp_path):
    import peft

    paths = []
    for seed, name in enumerate("cd"):
        torch.manual_seed(seed)
        lora = peft.LoraConfig(r=2, target_modules=["up_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(family[2]), lora)
        model.save_pretrained(tmp_path / name, save_embedding_layers=False)
        paths.append(str(tmp_path / name))
    loaded = load_job({"job": "merge", "models": paths, "method": "task_arithmetic", "adapters": "fold"}).config
    run = new_run(tmp_path, "merge")
    attempt(merge, run, loaded)
    name = "model.layers.0.mlp.up_proj.weight"
    base = load_file(f"{family[2]}/model.safetensors")[name]
    folded = [load_model(resolve(path, tmp_path)).merge_and_unload().state_dict()[name] for path in paths]
    merged = load_file(run.artifacts / "model" / "model.safetensors")[name]
    assert torch.allclose(merged, folded[0] + folded[1] - base, atol=1e-6)


def test_weights_that_are_stored_in_few_bits_are_refused(family, tmp_path):
    few = variant(family[2], tmp_path / "few", 9)
    path = tmp_path / "few" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(UserError, match="its weights are stored in few bits, which cannot be merged"):
        run_merge(tmp_path, models=[few, family[0]])
