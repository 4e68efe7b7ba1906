"""``clew tokenize``: from files and from a config to token files, with the errors that people make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli

from clew.data.tokens import open_tokens

CONFIG = "job: pretrain\ntask: {type: arithmetic, max_operand: 9}\ntokenizer: {type: bpe, vocab_size: 270}\n"


@pytest.fixture
def texts(project: Path) -> Path:
    path = project / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(20)))
    return path


def told(folder: Path, split: str = "train") -> str:
    files = open_tokens(folder, split)
    assert files is not None
    return f"{files.num_documents:,} documents, {files.num_tokens:,} tokens in 1 shard"


def test_files_become_token_files(project, texts, clew: Cli):
    done = clew("tokenize", "texts.jsonl", "texts.jsonl", "-o", "made", "--workers", "1")
    assert (done.code, done.out) == (0, "made/train: 40 documents, 300 tokens in 1 shard\n")
    assert told(project / "made") == "40 documents, 300 tokens in 1 shard"


def test_what_was_there_is_said_to_be_kept_or_replaced(project, texts, clew: Cli):
    words = ("tokenize", "texts.jsonl", "-o", "made", "--workers", "1")
    assert clew(*words).out == "made/train: 20 documents, 150 tokens in 1 shard\n"
    assert clew(*words).out == "made/train: 20 documents, 150 tokens in 1 shard, which was there already\n"
    texts.write_text('{"text": "other"}\n')
    before = "in place of 20 documents, 150 tokens in 1 shard"
    assert clew(*words).out == f"made/train: 1 documents, 6 tokens in 1 shard, {before}\n"
    (project / "made" / "train" / "00000.bin").write_bytes(b"cut")
    assert clew(*words).out == "made/train: 1 documents, 6 tokens in 1 shard\n"


def test_a_second_split_has_the_tokenizer_of_the_first(project, texts, clew: Cli):
    (project / "sums.yaml").write_text(CONFIG)
    assert clew("tokenize", "sums.yaml", "-o", "made", "--split", "train", "--workers", "1").code == 0
    assert clew("tokenize", "texts.jsonl", "-o", "made", "--split", "validation", "--workers", "1").code == 0
    found = [open_tokens(project / "made", split) for split in ("train", "validation")]
    assert found[0] is not None and found[1] is not None
    assert found[0].tokenizer == found[1].tokenizer


def test_a_config_gives_all_its_splits(project, clew: Cli):
    (project / "sums.yaml").write_text(CONFIG)
    done = clew("tokenize", "sums.yaml", "task.max_operand=12", "-o", "made", "--workers", "1")
    lines = [f"made/{split}: {told(project / 'made', split)}" for split in ("train", "validation")]
    assert (done.code, done.out.splitlines()) == (0, lines)


def test_bad_rows_are_named_or_left_out(project, texts, clew: Cli):
    texts.write_text(texts.read_text() + '{"txt": 1}\n')
    failed = clew("tokenize", "texts.jsonl", "-o", "made", "--workers", "1")
    assert failed.code == 2
    assert "texts.jsonl:21: no column 'text'" in failed.err
    assert clew("tokenize", "texts.jsonl", "-o", "made", "--workers", "1", "--on-bad-row", "skip").code == 0
    assert told(project / "made").startswith("20 documents")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing.jsonl",), "nothing.jsonl: there is no such file"),
        (("texts.jsonl", "--workers", "0"), "--workers must be at least 1"),
        (("texts.jsonl", "seed=1"), "'seed=1' is a value of a config, and there is none"),
        (("texts.jsonl", "--tokenizer", "nowhere"), "there is no folder nowhere"),
        (("sums.yaml", "texts.jsonl"), "give files, or one config and values over it"),
        (("sums.yaml", "--text", "body"), "--text is for files"),
        (("count.yaml",), "this is no config of the job pretrain"),
    ],
)
def test_what_cannot_be_done_is_said(project, texts, clew: Cli, words, message):
    (project / "sums.yaml").write_text(CONFIG)
    failed = clew("tokenize", *words, "-o", "made", *(() if "--workers" in words else ("--workers", "1")))
    assert failed.code == 2
    assert message in failed.err
    assert not (project / "made" / "train" / "meta.json").exists()
