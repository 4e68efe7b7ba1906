from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import GenerationConfig as ModelDefaults
from transformers import LlamaConfig, LlamaForCausalLM

from clew.engines import GenerationConfig
from clew.engines.sampling import GumbelNoise
from clew.engines.transformers import TransformersEngine
from clew.errors import UserError
from clew.models.tokenizers import ByteTokenizer

PROMPTS = ["a", "The quick brown fox", "12+34=", "xy", "jumps over the lazy dog and runs away", "é", "12+35="]


@pytest.fixture(scope="module")
def tokenizer():
    return ByteTokenizer().build([])


@pytest.fixture
def model(tokenizer):
    """A random Llama whose logits are far apart, so that rounding does not decide."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def engine(model, tokenizer):
    return TransformersEngine(model, tokenizer)


def settings(**options):
    return GenerationConfig(**{"max_new_tokens": 16, **options})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_completions_do_not_depend_on_the_batches(engine, temperature):
    made = [engine.generate(PROMPTS, settings(temperature=temperature, batch_tokens=size)) for size in (1, 100, 9999)]
    assert made[0] == made[1] == made[2]
    assert len({completion.tokens for completion in made[0]}) > 1


def test_greedy_completions_equal_those_of_a_plain_loop(engine, model, tokenizer):
    for prompt, completion in zip(PROMPTS, engine.generate(PROMPTS, settings()), strict=True):
        ids = tokenizer(prompt)["input_ids"]
        assert completion.prompt_tokens == len(ids)
        for token in completion.tokens:
            assert token == model(torch.tensor([ids])).logits[0, -1].argmax().item()
            ids = [*ids, token]


def test_sampling_repeats_with_its_seed_and_differs_between_prompts_and_seeds(model, tokenizer):
    def sample(seed):
        return [
            one.tokens
            for one in TransformersEngine(model, tokenizer, seed=seed).generate(["a"] * 4, settings(temperature=2))
        ]

    first = sample(1)
    assert first == sample(1) != sample(2)
    assert len(set(first)) == 4


def test_sampled_tokens_are_distributed_as_the_model_says():
    logits = torch.tensor([0.5, 0.25, 0.2, 0.05]).log()
    counts = Counter()
    for seed in range(20):
        noise = GumbelNoise(seed, range(1000))
        counts.update(noise(None, logits.repeat(1000, 1)).argmax(-1).tolist())
    assert [counts[token] / 20_000 for token in range(4)] == pytest.approx([0.5, 0.25, 0.2, 0.05], abs=0.012)


def test_a_small_top_p_is_greedy(engine):
    greedy = engine.generate(PROMPTS, settings())
    assert engine.generate(PROMPTS, settings(temperature=1.0, top_p=1e-6)) == greedy


def test_defaults_that_came_with_the_weights_do_not_leak_in_and_are_left_alone(engine, model):
    before = engine.generate(PROMPTS, settings())
    own = ModelDefaults(repetition_penalty=5.0, do_sample=True, max_new_tokens=1, no_repeat_ngram_size=1)
    model.generation_config = own
    assert engine.generate(PROMPTS, settings()) == before
    assert model.generation_config is own


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_does_not_let_the_defaults_leak_in_either(model, tokenizer):
    import peft

    before = TransformersEngine(model, tokenizer).generate(PROMPTS, settings())
    own = ModelDefaults(repetition_penalty=5.0, eos_token_id=tokenizer.eos_token_id)
    model.generation_config = own
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    assert TransformersEngine(wrapped, tokenizer).generate(PROMPTS, settings()) == before
    assert model.generation_config is own


@pytest.mark.parametrize("ends", [True, False])
def test_a_tokenizer_without_a_padding_token_gives_the_same_completions(model, ends):
    bare = ByteTokenizer().build([])
    if not ends:
        bare.eos_token = model.generation_config.eos_token_id = model.config.eos_token_id = None
    expected = TransformersEngine(model, bare).generate(PROMPTS, settings())
    bare.pad_token = None
    completions = TransformersEngine(model, bare).generate(PROMPTS, settings())
    assert completions == expected
    assert len({completion.prompt_tokens for completion in completions}) > 2  # so there was something to pad
    assert [one.text for one in completions] == [
        TransformersEngine(model, bare).generate([prompt], settings())[0].text for prompt in PROMPTS
    ]


def test_training_goes_on_in_the_mode_it_was_in(engine, model):
    model.train()
    engine.generate(["a"], settings())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_completion_ends_before_its_stop_text(engine):
    full = engine.generate(PROMPTS, settings())[1]
    stop = full.text[5:7]
    (ended,) = engine.generate([PROMPTS[1]], settings(stop=(stop,)))
    assert ended.finish == "stop"
    assert ended.text == full.text[: full.text.index(stop)]
    assert len(ended.tokens) < len(full.tokens)


def test_a_stop_text_of_one_row_does_not_end_the_others(engine):
    free = engine.generate(PROMPTS, settings())
    stop = free[1].text[3:5]
    for one, other in zip(free, engine.generate(PROMPTS, settings(stop=(stop,))), strict=True):
        assert other.text == one.text.partition(stop)[0]


def test_the_end_token_ends_a_completion_and_is_not_in_its_text(engine, model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = model.lm_head.weight[
            engine.generate(["a"], settings())[0].tokens[3]
        ]
        model.lm_head.weight[tokenizer.eos_token_id] *= 1.5
    (completion,) = engine.generate(["a"], settings())
    assert completion.finish == "eos"
    assert completion.tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token not in completion.text
    assert len(completion.tokens) <= 4


def test_a_completion_that_is_cut_says_so(engine):
    (completion,) = engine.generate(["a"], settings(max_new_tokens=1))
    assert (completion.finish, len(completion.tokens)) == ("length", 1)


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_generated(engine):
    with pytest.raises(UserError) as caught:
        engine.plan(["a", "b" * 50], settings())
    assert str(caught.value) == (
        "prompt 1: 50 tokens and max_new_tokens=16 do not fit into the model's context of 64 tokens\n"
        "  shorten the prompt or lower generation.max_new_tokens"
    )


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(UserError, match=r"^prompt 0: the prompt is empty$"):
        engine.plan([""], settings())


def test_no_prompts_give_no_completions(engine):
    assert engine.generate([], settings()) == []
