"""What a pretraining is fed with: the same samples from a task and from its token files, and mixtures of several."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clew.config import config, config_hash
from clew.data.config import DataConfig, MixturePart, MixtureSource, TokensSource
from clew.data.tokens import open_tokens
from clew.data.writing import write_tokens
from clew.errors import DataError, UserError
from clew.jobs.corpus import CACHE, check_source, read_corpus
from clew.jobs.pretrain import PretrainConfig
from clew.jobs.tokenizing import put_beside, texts_of_files, texts_of_task
from clew.models.tokenizers import BpeTokenizer, ByteTokenizer
from clew.tasks import Task


@config
class Rhymes(Task):
    """Words over and over."""

    def documents(self, split: str) -> Iterable[str]:
        return [f"{split} one two {number}" for number in range({"train": 60, "validation": 8}.get(split, 0))]


def tokens(folder: Path, task: Task, tokenizer=None, shard_bytes: int = 200) -> Path:
    built = (tokenizer or ByteTokenizer()).build(task.documents("train"))
    encoding = put_beside(folder, built)
    for split in ("train", "validation"):
        write_tokens(folder, split, texts_of_task(task, split), encoding, shard_bytes=shard_bytes)
    return folder


def lines(path: Path, word: str, count: int, column: str = "text") -> Path:
    path.write_text("".join(json.dumps({column: f"{word} {number}"}) + "\n" for number in range(count)))
    return path


def from_tokens(path: Path, **more) -> DataConfig:
    return DataConfig(seq_len=16, source=TokensSource(path=str(path), **more))


def all_inputs(samples) -> np.ndarray:
    return samples.batch(np.arange(len(samples))).inputs


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BpeTokenizer(vocab_size=280)])
@pytest.mark.parametrize("limit", [None, 100])
def test_token_files_hold_the_samples_that_the_task_gives(tmp_path, tokenizer, limit):
    folder = tokens(tmp_path / "made", Rhymes(), tokenizer)
    data = DataConfig(seq_len=16, max_tokens=limit, source=TokensSource(path=str(folder)))
    straight = read_corpus(DataConfig(seq_len=16, max_tokens=limit), Rhymes(), tokenizer, tmp_path)
    stored = read_corpus(data, Rhymes(), ByteTokenizer(), tmp_path)
    assert stored.is_stored and not straight.is_stored
    assert stored.splits.keys() == straight.splits.keys() == {"train", "validation"}
    for split, samples in straight.splits.items():
        assert np.array_equal(all_inputs(stored.splits[split]), all_inputs(samples))
    assert stored.tokenizer.encode("one 1") == straight.tokenizer.encode("one 1")


def test_a_file_of_texts_is_tokenized_once(tmp_path, monkeypatch):
    path = lines(tmp_path / "a.jsonl", "word", 50)
    first = read_corpus(from_tokens(path), Rhymes(), ByteTokenizer(), tmp_path)
    cached = list((tmp_path / CACHE).iterdir())
    monkeypatch.setattr("clew.jobs.corpus.write_tokens", None)
    again = read_corpus(from_tokens(path), Rhymes(), ByteTokenizer(), tmp_path)
    assert len(cached) == 1 and cached[0].name.startswith("a-")
    assert again.splits["train"].digest == first.splits["train"].digest
    assert first.splits.keys() == {"train"}


def test_processes_that_need_a_file_at_once_make_its_tokens_once(tmp_path, monkeypatch):
    path, made = lines(tmp_path / "a.jsonl", "word", 50), []
    real = write_tokens
    monkeypatch.setattr("clew.jobs.corpus.write_tokens", lambda *words: made.append(1) or real(*words))
    with ThreadPoolExecutor(4) as pool:  # a lock is one's that opened the file, so threads are as good as processes
        read = [pool.submit(read_corpus, from_tokens(path), Rhymes(), ByteTokenizer(), tmp_path) for _ in range(4)]
        digests = {one.result(60).splits["train"].digest for one in read}
    assert (len(digests), len(made)) == (1, 1)


def test_what_else_is_said_of_a_file_makes_other_tokens(tmp_path):
    path = lines(tmp_path / "a.jsonl", "word", 50)
    read_corpus(from_tokens(path), Rhymes(), ByteTokenizer(), tmp_path)
    read_corpus(from_tokens(path), Rhymes(), BpeTokenizer(vocab_size=270), tmp_path)
    read_corpus(from_tokens(lines(path, "other", 50)), Rhymes(), ByteTokenizer(), tmp_path)
    assert len(list((tmp_path / CACHE).iterdir())) == 3


def test_a_bad_row_is_named_by_file_and_line(tmp_path):
    path = lines(tmp_path / "a.jsonl", "word", 3)
    path.write_text(path.read_text() + "{no json\n")
    with pytest.raises(DataError, match=r"a\.jsonl:4: not valid JSON"):
        read_corpus(from_tokens(path), Rhymes(), ByteTokenizer(), tmp_path)
    kept = [text for _, text in texts_of_files([path], on_bad_row="skip")]
    assert kept == ["word 0", "word 1", "word 2"]


def test_a_mixture_has_folders_and_files_with_their_shares(tmp_path):
    folder, path = tokens(tmp_path / "made", Rhymes()), lines(tmp_path / "a.jsonl", "word", 50, "body")
    held = lines(tmp_path / "held.jsonl", "word", 9, "body")
    parts = (
        MixturePart(path=str(folder), weight=3.0),
        MixturePart(path=str(path), validation=str(held), text="body"),
    )
    corpus = read_corpus(DataConfig(seq_len=16, source=MixtureSource(parts=parts)), Rhymes(), ByteTokenizer(), tmp_path)
    train = corpus.splits["train"]
    sizes = [size for size, _ in corpus.shares]
    assert (sum(sizes), [share for _, share in corpus.shares]) == (len(train), [3.0, 1.0])
    assert corpus.names == ["made", "a"]
    alone = [
        read_corpus(DataConfig(seq_len=16, source=source), Rhymes(), ByteTokenizer(), tmp_path).splits
        for source in (TokensSource(path=str(folder)), TokensSource(path=str(path), text="body", validation=str(held)))
    ]
    assert np.array_equal(all_inputs(train), np.concatenate([all_inputs(part["train"]) for part in alone]))
    held_out = np.concatenate([all_inputs(part["validation"]) for part in alone])
    mixed = all_inputs(corpus.splits["validation"])
    assert sorted(mixed.tolist()) == sorted(held_out.tolist())


def test_parts_with_one_name_are_numbered(tmp_path):
    paths = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        paths.append(lines(tmp_path / name / "a.jsonl", name, 30))
    parts = tuple(MixturePart(path=str(path)) for path in paths)
    corpus = read_corpus(DataConfig(seq_len=16, source=MixtureSource(parts=parts)), Rhymes(), ByteTokenizer(), tmp_path)
    assert corpus.names == ["a#1", "a#2"]


def test_parts_of_different_tokenizers_are_refused(tmp_path):
    one, other = tokens(tmp_path / "a", Rhymes()), tokens(tmp_path / "b", Rhymes(), BpeTokenizer(vocab_size=270))
    parts = (MixturePart(path=str(one)), MixturePart(path=str(other)))
    with pytest.raises(UserError, match="not of the tokenizer that made those of"):
        read_corpus(DataConfig(source=MixtureSource(parts=parts)), Rhymes(), ByteTokenizer(), tmp_path)


def test_a_folder_keeps_the_tokenizer_of_what_is_finished_in_it(tmp_path):
    folder = tokens(tmp_path / "a", Rhymes())
    with pytest.raises(UserError, match="another tokenizer made the train and the validation tokens"):
        put_beside(folder, BpeTokenizer(vocab_size=270).build(["one two"]))
    for split in ("train", "validation"):
        (folder / split / "meta.json").unlink()
    tokens(folder, Rhymes(), BpeTokenizer(vocab_size=270))
    assert open_tokens(folder) is not None


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda place: None, "there is no such folder of tokens, and no such file"),
        (lambda place: place.mkdir(), "this folder has no train tokens"),
        (lambda place: (tokens(place, Rhymes()) / "train" / "meta.json").unlink(), "are not finished"),
        (lambda place: (tokens(place, Rhymes()) / "train" / "00000.bin").unlink(), "a shard is missing"),
    ],
)
def test_a_source_that_is_not_there_is_named_before_anything_starts(tmp_path, made, message):
    made(tmp_path / "source")
    with pytest.raises(DataError, match=message):
        check_source(from_tokens(tmp_path / "source"))


def test_a_config_that_says_nothing_of_sources_keeps_its_hash():
    """It is the one that runs of older versions stand under; a source of its own is another config."""
    plain = PretrainConfig(task=Rhymes())
    assert config_hash(plain) == config_hash(PretrainConfig(task=Rhymes(), data=DataConfig(workers=2)))
    parts = (MixturePart(path="nothing"),)
    other = PretrainConfig(task=Rhymes(), data=DataConfig(source=MixtureSource(parts=parts)))
    assert config_hash(other) != config_hash(plain)
    assert "source" not in _meaning_of_data(plain)


def _meaning_of_data(settings: PretrainConfig) -> dict[str, object]:
    from clew.config.dump import _meaning, content_digest

    return _meaning(settings.data, content_digest)
