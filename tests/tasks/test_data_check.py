from __future__ import annotations

import itertools

import pytest
import templates
from hypothesis import given
from hypothesis import strategies as st
from templates import chat_tokenizer

from clew.cli.main import main
from clew.tasks.inspection import histogram

GOOD = '{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Write a file and run ``clew data check`` on it: ``(code, stdout, stderr)``."""
    monkeypatch.chdir(tmp_path)

    def call(text, *words, name="train.jsonl"):
        (tmp_path / name).write_text(text)
        code = main(["data", "check", name, *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_good_file(check):
    code, out, _ = check(GOOD + '{"prompt": "ccccc", "completion": "d"}\n')
    assert (code, out) == (0, """\
train.jsonl: 2 good examples, 0 bad rows
duplicates: 0
equal prompts with other answers: 0
length in characters: 2 to 6, median 4
  2-2       1  ########################################
  3-3       0
  4-4       0
  5-5       0
  6-6       1  ########################################
""")  # fmt: skip


def test_all_bad_rows_are_named_with_their_places(check):
    code, out, _ = check('{"prompt": "a"}\n' + GOOD + "oops\n[1]\n")
    assert code == 1
    assert out.startswith("""\
train.jsonl: 1 good example, 3 bad rows
  train.jsonl:1: no column 'completion'
    known: prompt (--completion sets it)
  train.jsonl:3: not valid JSON: Expecting value (column 1)
  train.jsonl:4: a row must be an object, this is a list
""")


def test_duplicates_are_named_but_stop_nobody(check):
    code, out, _ = check(GOOD + GOOD + '{"prompt": "a", "completion": "c"}\n' + GOOD)
    assert code == 0
    assert "\n".join(out.splitlines()[1:6]) == (
        "duplicates: 2\n"
        "  train.jsonl:2 is the same as train.jsonl:1\n"
        "  train.jsonl:4 is the same as train.jsonl:1\n"
        "equal prompts with other answers: 1\n"
        "  train.jsonl:3 asks what train.jsonl:1 asks"
    )


def test_a_long_list_is_cut_unless_all_is_asked_for(check):
    assert "  and 10 more (--all shows them)\n" in check("oops\n" * 30)[1]
    everything = check("oops\n" * 30, "--all")[1]
    assert "more" not in everything
    assert "train.jsonl:30: " in everything


def test_a_file_without_one_good_row_is_reported_too(check):
    assert check("oops\n")[:2] == (1, """\
train.jsonl: 0 good examples, 1 bad row
  train.jsonl:1: not valid JSON: Expecting value (column 1)
duplicates: 0
equal prompts with other answers: 0
""")  # fmt: skip


def test_columns_can_be_named(check):
    assert check('{"q": "a", "a": "b"}\n', "--prompt", "q", "--completion", "a")[0] == 0


def test_texts_for_pretraining_are_told_from_examples(check):
    assert check("one\none\ntwo\n", name="d.txt")[1].startswith("d.txt: 3 good texts, 0 bad rows\nduplicates: 1\n")
    assert check('{"text": "a"}\n{"body": "b"}\n')[1].startswith("train.jsonl: 1 good text, 1 bad row\n")


def test_a_file_that_is_not_there(check):
    assert check(GOOD, name="train.jsonl")[0] == 0
    assert main(["data", "check", "trian.jsonl"]) == 2


def test_a_length_in_tokens_needs_a_model(check):
    code, _, err = check(GOOD, "--max-length", "3")
    assert (code, err) == (2, "clew: --max-length counts tokens\n  add --model, whose tokens are counted\n")


@pytest.fixture
def model(tmp_path):
    """Make a folder that has a tokenizer with a chat template, as far as ``clew data check`` looks at a model."""

    def make(template):
        chat_tokenizer(template).save_pretrained(tmp_path / "model")
        (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
        return str(tmp_path / "model")

    return make


SYSTEM = (
    '{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"},'
    ' {"role": "assistant", "content": "b"}]}\n'
)


@pytest.mark.slow
def test_a_good_template_counts_tokens(check, model):
    code, out, _ = check(GOOD + SYSTEM, "--model", model(templates.CHATML))
    assert code == 0
    assert "length in tokens: 23 to 34, median 28.5\n" in out
    assert out.endswith("tokens: every row can be trained on\n")


@pytest.mark.slow
def test_what_a_template_does_not_show_is_bad(check, model):
    code, out, _ = check(GOOD + SYSTEM + SYSTEM, "--model", model(templates.DROPS_SYSTEM), "--max-length", "20")
    assert code == 1
    assert out.endswith("""\
2 × the chat template drops turn 1 (system) of system + user + assistant
  train.jsonl:2
  train.jsonl:3
1 × longer than 20 tokens
  train.jsonl:1
""")


@pytest.mark.slow
def test_conversations_need_a_template(check, model):
    code, out, _ = check(GOOD + SYSTEM, "--model", model(None))
    assert code == 1
    assert "1 × the prompts are conversations, but the tokenizer has no chat template\n  train.jsonl:2\n" in out
    code, _, err = check(GOOD, "--model", model(None), "--chat", "always")
    assert (code, err.splitlines()[0]) == (2, "clew: chat is 'always', but the tokenizer has no chat template")


@pytest.mark.slow
def test_labels_that_cannot_be_right_are_bad(check, model):
    out = check(GOOD, "--model", model(templates.OPEN_END))[1]
    assert "1 × the answer's end is not trained on, so the model does not learn to stop\n  train.jsonl:1\n" in out


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_a_histogram_counts_everything_once_in_a_few_bins_without_gaps(lengths):
    bins = histogram(lengths)
    assert len(bins) <= 8
    assert [one.count for one in bins] == [sum(one.low <= length <= one.high for length in lengths) for one in bins]
    assert sum(one.count for one in bins) == len(lengths)
    assert all(before.high + 1 == after.low for before, after in itertools.pairwise(bins))
