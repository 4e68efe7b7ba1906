from __future__ import annotations

import pytest
import templates
from templates import chat_tokenizer

from clew.tasks import Example
from clew.tasks.labels import Labelled, label, show

pytestmark = pytest.mark.slow  # it is the import of TRL that takes long

HISTORY = [
    {"role": "user", "content": "Hi\nyou"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why?"},
]
SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
TEXT, TURNS, WITH_SYSTEM = Example("a", "Hi", "Ho"), Example("b", HISTORY, "é ß\n"), Example("c", SYSTEM, "Ho")


def dump(example, template, chat="auto"):
    tokenizer = chat_tokenizer(template)
    (one,) = label([example], tokenizer, chat)
    return show(one, tokenizer)


GOLDEN = {
    "ChatML": (templates.CHATML, WITH_SYSTEM, """\
example c: 4 of 44 tokens trained
  <|im_start|>system⏎
  Be brief.<|im_end|>⏎
  <|im_start|>user⏎
  Hi<|im_end|>⏎
  <|im_start|>assistant⏎
  «Ho<|im_end|>⏎
  »"""),
    "ChatML, several turns: the last answer alone": (templates.CHATML, TURNS, """\
example b: 8 of 64 tokens trained
  <|im_start|>user⏎
  Hi⏎
  you<|im_end|>⏎
  <|im_start|>assistant⏎
  Hello.<|im_end|>⏎
  <|im_start|>user⏎
  Why?<|im_end|>⏎
  <|im_start|>assistant⏎
  «é ß⏎
  <|im_end|>⏎
  »"""),
    "Llama": (templates.LLAMA, WITH_SYSTEM, """\
example c: 3 of 48 tokens trained
  <s><|start|>system<|end|>⏎
  ⏎
  Be brief.<|eot|><|start|>user<|end|>⏎
  ⏎
  Hi<|eot|><|start|>assistant<|end|>⏎
  ⏎
  «Ho<|eot|>»"""),
    "Gemma": (templates.GEMMA, TEXT, """\
example a: 4 of 22 tokens trained
  <s><turn>user⏎
  Hi<end>⏎
  <turn>model⏎
  «Ho<end>⏎
  »"""),
    "a system message that is merged, where there is none": (templates.MERGES_SYSTEM, TEXT, """\
example a: 15 of 24 tokens trained
  [user] Hi«[assistant] Ho</s>»"""),
    "no template": (None, TEXT, """\
example a: 3 of 5 tokens trained
  Hi«Ho</s>»"""),
    "a prompt that is written in another way by itself": (templates.THOUGHT, TEXT, """\
example a: 4 of 25 tokens trained
  ! the model is asked with other tokens than it is trained after
  <|im_start|>user⏎
  Hi<|im_end|>⏎
  <|im_start|>assistant⏎
  «Ho<|im_end|>⏎
  »"""),
    "an answer without an end": (templates.OPEN_END, TEXT, """\
example a: 2 of 22 tokens trained
  ! the answer's end is not trained on, so the model does not learn to stop
  user: Hi<|im_end|>assistant: «Ho»"""),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_the_dump_of_an_example_is_the_golden_one(name):
    template, example, text = GOLDEN[name]
    assert dump(example, template) == text


def test_chat_never_leaves_the_template_out():
    assert dump(TEXT, templates.CHATML, "never") == "example a: 3 of 5 tokens trained\n  Hi«Ho</s>»"


def test_what_is_too_long_is_said():
    tokenizer = chat_tokenizer(None)
    (one,) = label([TEXT], tokenizer)
    assert show(one, tokenizer, 4).splitlines()[1] == "  ! it is longer than training.max_length=4, and sft refuses it"
    assert "!" not in show(one, tokenizer, 5)


def test_an_example_of_which_nothing_is_trained_is_said():
    tokenizer = chat_tokenizer(None)
    assert Labelled("a", (1, 2), (-100, -100), (1,)).problems(tokenizer) == ["nothing of it is trained on"]


def test_the_labels_are_those_that_a_real_trainer_holds(tmp_path):
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    from transformers import LlamaConfig, LlamaForCausalLM

    from clew.tasks import render_example

    for template, examples in ((templates.CHATML, [WITH_SYSTEM, TURNS, TEXT]), (None, [TEXT])):
        tokenizer = chat_tokenizer(template)
        shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        trainer = trl.SFTTrainer(
            model=LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)),
            args=trl.SFTConfig(
                output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", activation_checkpointing=False
            ),
            train_dataset=datasets.Dataset.from_list([render_example(one, tokenizer) for one in examples]),
            processing_class=tokenizer,
        )
        held = [(tuple(row["input_ids"]), tuple(row["labels"])) for row in trainer.train_dataset]
        assert [(one.ids, one.labels) for one in label(examples, tokenizer)] == held
