"""What every engine keeps to. vLLM's part needs an environment of its own: `make vllm`, see docs/jobs.md."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from transformers import GenerationConfig as ModelDefaults
from transformers import LlamaConfig, LlamaForCausalLM

from clew.engines import Batch, EngineOptions, GenerationConfig, engine_registry, load_engine
from clew.errors import UserError
from clew.models.loading import load_model
from clew.models.source import ModelSource
from clew.models.tokenizers import ByteTokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

PROMPTS = ["a", "The quick brown fox", "12+34=", "xy", "jumps over the lazy dog and runs away", "é", "12+35="]
NEW_TOKENS, CONTEXT = 16, 64
OPTIONAL = {"vllm"}


def settings(**options):
    return GenerationConfig(**{"max_new_tokens": NEW_TOKENS, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama with tied embeddings, logits far apart, and defaults that must not leak into greedy results."""
    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, initializer_range=0.2, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    # A second token that ends texts: one that the model really says after the second prompt.
    spoken = follow(model, tokenizer(PROMPTS[1])["input_ids"], set())[3]
    model.generation_config = ModelDefaults(repetition_penalty=5.0, eos_token_id=[tokenizer.eos_token_id, spoken])
    place = tmp_path_factory.mktemp("engines") / "model"
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def adapter(folder):
    import peft

    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    wrapped = peft.get_peft_model(load_model(ModelSource(base=str(folder))), config)
    wrapped.save_pretrained(folder.parent / "adapter", save_embedding_layers=False)
    return folder.parent / "adapter"


@pytest.fixture(scope="module", params=engine_registry().names())
def name(request):
    if request.param in OPTIONAL and find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed here")
    return request.param


@pytest.fixture(scope="module")
def engine(name, folder):
    return load_engine(name, ModelSource(base=str(folder)), EngineOptions())


def follow(model, ids, ends):
    """The most likely tokens, one forward pass each, without any library's loop or cache."""
    made = []
    while len(made) < NEW_TOKENS and not ends & set(made):
        with torch.no_grad():
            made.append(model(torch.tensor([[*ids, *made]])).logits[0, -1].argmax().item())
    return made


def check_greedy(engine, model):
    tokenizer = engine.tokenizer
    ends = {*model.generation_config.eos_token_id, tokenizer.pad_token_id}
    completions = engine.generate(PROMPTS, settings())
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        expected = follow(model, ids, ends)
        assert completion.prompt_tokens == len(ids)
        assert completion.tokens == tuple(expected)
        assert completion.finish == ("eos" if ends & set(expected) else "length")
        assert completion.text == tokenizer.decode([token for token in expected if token not in ends])
    assert {completion.finish for completion in completions} == {"eos", "length"}
    return completions


def test_greedy_completions_are_the_most_likely_tokens_in_the_order_of_the_prompts(engine, folder):
    check_greedy(engine, load_model(ModelSource(base=str(folder))))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_completion_depends_on_its_index_and_not_on_its_batch(engine, temperature):
    chosen = settings(temperature=temperature, top_p=0.9)
    together = engine.generate(PROMPTS, chosen)
    for batch in engine.plan(PROMPTS, chosen):
        for index, row in zip(batch.indices, batch.prompts, strict=True):
            assert engine.complete(Batch((index,), (row,)), chosen) == [together[index]]


def test_sampling_repeats_with_its_seed_and_differs_between_indices_and_seeds(engine):
    def sample(seed):
        engine.seed = seed
        return [one.tokens for one in engine.generate(["ab"] * 4, settings(temperature=2))]

    first = sample(1)
    assert first == sample(1) != sample(2)
    assert len(set(first)) == 4


def test_a_plan_is_a_function_of_its_inputs_and_holds_every_prompt_once(engine):
    plan = engine.plan(PROMPTS * 50, settings())
    assert plan == engine.plan(PROMPTS * 50, settings())
    assert sorted(index for batch in plan for index in batch.indices) == list(range(350))


def test_a_completion_ends_before_its_stop_text_and_the_others_go_on(engine):
    free = engine.generate(PROMPTS, settings())
    stop = free[0].text[5:7]
    stopped = engine.generate(PROMPTS, settings(stop=(stop, "never said")))
    assert stopped[0].finish == "stop"
    assert len(stopped[0].tokens) < len(free[0].tokens)
    assert [one.text for one in stopped] == [one.text.partition(stop)[0] for one in free]


def test_a_completion_that_is_cut_says_so(engine):
    (completion,) = engine.generate(["a"], settings(max_new_tokens=1))
    assert (completion.finish, len(completion.tokens)) == ("length", 1)


def test_a_prompt_that_is_empty_or_does_not_fit_is_refused_before_anything_is_generated(engine):
    with pytest.raises(UserError, match=r"^prompt 0: the prompt is empty$"):
        engine.plan([""], settings())
    with pytest.raises(UserError) as caught:
        engine.plan(["a", "b" * 50], settings())
    assert str(caught.value) == (
        "prompt 1: 50 tokens and max_new_tokens=16 do not fit into the model's context of 64 tokens\n"
        "  shorten the prompt or lower generation.max_new_tokens"
    )
    assert len(engine.generate(["b" * (CONTEXT - NEW_TOKENS)], settings())) == 1


def test_no_prompts_give_no_completions(engine):
    assert engine.generate([], settings()) == []


def test_an_adapter_is_on_top_of_its_base(name, adapter, folder, engine):
    """The last test: a process has one engine of vLLM at a time."""
    plain = engine.generate(PROMPTS, settings())
    source = ModelSource(base=str(folder), adapter=adapter)
    assert check_greedy(load_engine(name, source, EngineOptions()), load_model(source)) != plain
