from __future__ import annotations

import json

import pytest
import templates
from templates import chat_tokenizer

from clew.cli.main import main

SFT = "job: sft\nmodel: model\ntask: {type: dataset, train: train.jsonl}\ntraining: {max_length: 26}\n"


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Write configs into a folder with a model and data, and run ``clew check`` there: ``(code, stdout, stderr)``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEW_WORKSPACE", raising=False)
    rows = [
        {"id": "one", "prompt": "Hi", "completion": "Ho"},
        {"id": "two", "prompt": "What now?", "completion": "Go."},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sft.yaml").write_text(SFT)

    def call(*words, template=templates.CHATML, **files):
        chat_tokenizer(template).save_pretrained(tmp_path / "model")
        (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        code = main(["check", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.slow
def test_examples_are_shown_with_their_trained_tokens(check):
    code, out, _ = check("sft.yaml", "--show-labels", "2")
    assert code == 0
    first, _, rest = out.partition("\n")
    assert first.startswith("ok: job sft,")
    assert (
        rest
        == """\
«trained», the rest is read only; ⏎ is a line break

example one: 4 of 25 tokens trained
  <|im_start|>user⏎
  Hi<|im_end|>⏎
  <|im_start|>assistant⏎
  «Ho<|im_end|>⏎
  »

example two: 5 of 33 tokens trained
  ! it is longer than training.max_length=26, and sft refuses it
  <|im_start|>user⏎
  What now?<|im_end|>⏎
  <|im_start|>assistant⏎
  «Go.<|im_end|>⏎
  »
"""
    )


@pytest.mark.slow
def test_as_many_are_shown_as_were_asked_for(check):
    out = check("sft.yaml", "--show-labels", "1")[1]
    assert "example one" in out and "example two" not in out


@pytest.mark.slow
def test_a_template_that_merges_is_refused(check):
    code, _, err = check("sft.yaml", "task.system=Be brief.", "--show-labels", "1", template=templates.MERGES_SYSTEM)
    assert (code, err) == (
        2,
        "clew: one: the chat template merges turn 2 (user) with the turn before it, of system + user + assistant\n"
        "  merge them in the data, or use another template\n",
    )


PIPELINE = """\
pipeline: two
stages:
  first: {job: sft, model: model, task: {type: dataset, train: train.jsonl}}
  second: {job: sft, model: "${first.artifacts.adapter}", task: {type: dataset, train: train.jsonl}}
"""


@pytest.mark.slow
def test_of_a_pipeline_the_stages_are_shown_whose_model_is_there(check):
    code, out, _ = check("two.yaml", "--show-labels", "1", two=PIPELINE)
    assert code == 0
    assert out.count("example one") == 1
    assert "\nfirst:\n«trained»" in out and "\nsecond:\n" not in out


def test_what_has_no_labels_is_said(check):
    evaluation = "job: eval\nmodel: model\ntask: {type: arithmetic}\n"
    code, _, err = check("eval.yaml", "--show-labels", "1", eval=evaluation)
    assert (code, err) == (2, "clew: the job eval has no labels to show\n  labels are what sft trains on\n")
    stages = "pipeline: one\nstages:\n  only: {job: eval, model: model, task: {type: arithmetic}}\n"
    code, _, err = check("one.yaml", "--show-labels", "1", one=stages)
    assert (code, err) == (
        2,
        "clew: one: no stage has labels to show\n"
        "  labels are of sft stages whose model exists already, not made by another stage\n",
    )


def test_a_number_that_is_none_is_said(check):
    code, _, err = check("sft.yaml", "--show-labels", "0")
    assert (code, err) == (2, "clew: --show-labels needs a number of examples from 1, not 0\n")
