from __future__ import annotations

import pytest
import templates
from hypothesis import given
from hypothesis import strategies as st
from templates import chat_tokenizer

from clew.errors import DataError
from clew.tasks import Example, render_example, render_prompt
from clew.tasks.turns import render_turns

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]
AGAIN = [*ASKED, {"role": "user", "content": "Three?"}, {"role": "assistant", "content": "Four."}]

USE = "\n  use another template, or prompts without such turns"


@pytest.mark.parametrize(
    ("template", "turns", "text"),
    [
        (templates.DROPS_SYSTEM, [SYSTEM, *ASKED],
         "the chat template drops turn 1 (system) of system + user + assistant" + USE),
        (templates.DROPS_HISTORY, AGAIN,
         "the chat template drops turn 1 (user) of user + assistant + user + assistant" + USE),
        (templates.MERGES_SYSTEM, [SYSTEM, *ASKED],
         "the chat template merges turn 2 (user) with the turn before it, of system + user + assistant\n"
         "  merge them in the data, or use another template"),
        (templates.REPEATS, ASKED, "the chat template repeats turn 1 (user) of user + assistant" + USE),
        (templates.REVERSES, ASKED, "the chat template puts turn 2 (assistant) before the turn that it follows" + USE),
        (templates.GEMMA, [SYSTEM, *ASKED],
         "the chat template refuses system + user + assistant: System role not supported" + USE),
        (templates.CUTS_THOUGHTS, [ASKED[0], {"role": "assistant", "content": "<think>hm</think>Two."}],
         "the chat template changes turn 2 (assistant): not all of its text is in what it writes\n"
         "  look at the template; some cut reasoning or tags out of earlier answers"),
    ],
    ids=["drops system", "drops history", "merges", "repeats", "reverses", "refuses", "cuts"],
)  # fmt: skip
def test_a_template_that_does_not_show_every_turn_is_refused(template, turns, text):
    with pytest.raises(DataError) as caught:
        render_turns(turns, chat_tokenizer(template))
    assert str(caught.value) == text


@pytest.mark.parametrize("template", [templates.DROPS_SYSTEM, templates.DROPS_HISTORY, templates.MERGES_SYSTEM])
def test_the_same_templates_are_good_for_conversations_that_they_show(template):
    assert "One?" in render_turns(ASKED, chat_tokenizer(template))


def test_training_on_what_a_template_drops_is_refused_with_the_example():
    with pytest.raises(DataError, match=r"^row 7: the chat template drops turn 1 \(system\)"):
        render_example(Example("row 7", [SYSTEM, ASKED[0]], "Two."), chat_tokenizer(templates.DROPS_SYSTEM))


def test_asking_what_a_template_drops_is_refused():
    with pytest.raises(DataError, match=r"drops turn 1 \(system\)"):
        render_prompt([SYSTEM, ASKED[0]], chat_tokenizer(templates.DROPS_SYSTEM))


def test_white_space_around_a_turn_may_go():
    turns = [{"role": "user", "content": "  One?\n"}, ASKED[1]]
    assert "\n\nOne?<|eot|>" in render_turns(turns, chat_tokenizer(templates.LLAMA))


TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), min_size=1, max_size=5))
def test_a_template_that_shows_everything_is_never_refused(pairs):
    turns = [{"role": role, "content": content} for role, content in pairs]
    text = render_turns(turns, TOKENIZER)
    assert text.count("<|im_start|>") >= len(turns)


TOKENIZER = chat_tokenizer(templates.CHATML)
