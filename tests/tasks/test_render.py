from __future__ import annotations

import pytest

from clew.errors import DataError, UserError
from clew.tasks import Example, prompt_ids, render_example, render_prompt, uses_chat

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_auto_uses_a_chat_template_where_there_is_one(plain_tokenizer, chat_tokenizer):
    assert not uses_chat(plain_tokenizer)
    assert uses_chat(chat_tokenizer)
    assert not uses_chat(chat_tokenizer, "never")


def test_a_text_becomes_the_turn_of_the_user(chat_tokenizer):
    assert render_prompt("Hi", chat_tokenizer) == "<s>user:Hi</s><s>assistant:"


def test_a_conversation_is_kept(chat_tokenizer):
    assert render_prompt(TURNS, chat_tokenizer) == "<s>system:Be brief.</s><s>user:Hi</s><s>assistant:"


def test_without_a_template_a_text_is_left_as_it_is(plain_tokenizer, chat_tokenizer):
    assert render_prompt("1+1=", plain_tokenizer) == render_prompt("1+1=", chat_tokenizer, "never") == "1+1="


def test_special_tokens_of_a_template_are_not_added_twice(chat_tokenizer):
    ids = prompt_ids("Hi", chat_tokenizer)
    assert chat_tokenizer.decode(ids) == "<s>user:Hi</s><s>assistant:"
    assert prompt_ids("Hi", chat_tokenizer, "never")[0] == chat_tokenizer.bos_token_id


def test_a_prompt_may_begin_but_does_not_end_the_text(framing_tokenizer):
    assert framing_tokenizer.decode(prompt_ids("Hi", framing_tokenizer)) == "<s>Hi"


def test_always_needs_a_template(plain_tokenizer):
    with pytest.raises(UserError) as caught:
        render_prompt("Hi", plain_tokenizer, "always")
    assert str(caught.value) == (
        "chat is 'always', but the tokenizer has no chat template\n  use chat: auto or chat: never"
    )


def test_a_conversation_needs_a_template(plain_tokenizer, chat_tokenizer):
    with pytest.raises(UserError, match="the prompts are conversations, but the tokenizer has no chat template"):
        render_prompt(TURNS, plain_tokenizer)
    with pytest.raises(UserError, match="the prompts are conversations, but chat is 'never'"):
        render_prompt(TURNS, chat_tokenizer, "never")


def test_examples_for_fine_tuning_are_texts_or_messages(plain_tokenizer, chat_tokenizer):
    example = Example(id="1", prompt="Hi", completion="Ho")
    assert render_example(example, plain_tokenizer) == {"prompt": "Hi", "completion": "Ho"}
    assert render_example(example, chat_tokenizer) == {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": [{"role": "assistant", "content": "Ho"}],
    }


def test_an_example_without_a_completion_cannot_be_learnt(plain_tokenizer):
    with pytest.raises(DataError, match=r"^x-1: this example has no completion to learn from$"):
        render_example(Example(id="x-1", prompt="Hi"), plain_tokenizer)
