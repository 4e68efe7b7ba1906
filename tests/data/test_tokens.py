"""Token files: what is written is what is read, whatever was killed, damaged or changed on the way."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from clew.config import content_digest
from clew.data import shards as shards_module
from clew.data.shards import Encoding, load_encoder
from clew.data.tokens import TokenFiles, open_tokens
from clew.data.writing import Progress, write_tokens
from clew.errors import DataError, RunFailed, UserError

EOS = 256
TEXTS = [f"document {number} says {'so ' * (number % 7)}" for number in range(60)]


def byte_encoding(folder: Path, fingerprint: str = "bytes", vocab_size: int = 257) -> Encoding:
    """One token a byte, without the libraries of models."""
    place = folder / "tokenizer"
    if not place.is_dir():
        place.mkdir(parents=True)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        core = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.decoder = decoders.ByteLevel()
        core.save(str(place / "tokenizer.json"))
    return Encoding(place, fingerprint, EOS, vocab_size)


def placed(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    return ((f"texts:{number}", text) for number, text in enumerate(texts, start=1))


def write(folder: Path, texts: Iterable[str] = TEXTS, **more) -> TokenFiles:
    encoding = more.pop("encoding", None) or byte_encoding(folder)
    return write_tokens(folder, "train", placed(texts), encoding, **{"shard_bytes": 300, **more})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "train").iterdir() if path.name != ".lock"}


def decoded(files: TokenFiles) -> list[str]:
    tokenizer = load_encoder(byte_encoding(files.folder.parent))
    return [tokenizer.decode(files.document(number).tolist()) for number in range(files.num_documents)]


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=30))
def test_every_document_comes_back_as_it_was(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("tokens")
    kept = [text for text in texts if text]
    if not kept:
        with pytest.raises(DataError, match="there is no text to tokenize"):
            write(folder, texts)
        return
    files = write(folder, texts, shard_bytes=40)
    assert decoded(files) == kept
    row = np.concatenate(files.rows())
    assert len(row) == files.num_tokens == sum(len(text.encode()) + 1 for text in kept)
    assert (row == EOS).sum() == files.num_documents
    for number in (-1, len(kept)):
        with pytest.raises(IndexError):
            files.document(number)


@pytest.mark.slow
def test_the_files_are_the_same_for_every_number_of_workers(tmp_path):
    for workers in (1, 2, 3):
        write(tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_numbers_take_two_bytes_where_the_vocabulary_allows(tmp_path):
    small, large = write(tmp_path / "a"), write(tmp_path / "b", encoding=byte_encoding(tmp_path / "b", "x", 65537))
    assert (small.rows()[0].dtype, large.rows()[0].dtype) == (np.dtype("<u2"), np.dtype("<u4"))
    assert np.array_equal(np.concatenate(small.rows()), np.concatenate(large.rows()))
    assert small.digest != large.digest


class Killed(BaseException):
    """What ends a process, as far as its files can tell."""


@pytest.mark.parametrize("after", range(10))
def test_what_a_killed_writer_had_finished_is_kept(tmp_path, monkeypatch, after):
    """It is killed between any two writes of a file; then the same command makes the rest, and nothing else."""
    whole = write(tmp_path / "whole")
    writes = 0
    real = shards_module._write

    def dies(path: Path, numbers: np.ndarray) -> None:
        nonlocal writes
        if writes == after:
            raise Killed
        writes += 1
        real(path, numbers)

    monkeypatch.setattr(shards_module, "_write", dies)
    with pytest.raises(Killed):
        write(tmp_path / "killed")
    with pytest.raises(DataError, match="not finished"):
        open_tokens(tmp_path / "killed")
    monkeypatch.undo()
    finished = len(list((tmp_path / "killed" / "train").glob("0*.json")))
    said: list[Progress] = []
    write(tmp_path / "killed", progress=said.append)
    assert finished == after // 2 == said[-1].kept
    assert said[-1].documents == whole.num_documents
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "zero"])
def test_a_damaged_shard_is_found_and_made_again(tmp_path, suffix, damage):
    write(tmp_path)
    sound = contents(tmp_path)
    path = tmp_path / "train" / f"00001{suffix}"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 4
    path.unlink()
    if damage != "remove":
        path.write_bytes({"flip": data, "cut": data[:-3], "zero": bytes(len(data))}[damage])
    said: list[Progress] = []
    files = write(tmp_path, progress=said.append)
    assert said[-1].kept == len(files.shards) - 1
    assert contents(tmp_path) == sound


def test_another_text_makes_its_shard_again_and_leaves_the_others(tmp_path):
    before = write(tmp_path)
    texts = [*TEXTS]
    texts[-1] = texts[-1][:-2] + "!!"
    said: list[Progress] = []
    after = write(tmp_path, texts, progress=said.append)
    assert said[-1].kept == len(after.shards) - 1
    assert after.digest != before.digest
    assert decoded(after) == texts


def test_fewer_texts_leave_no_old_shard_behind(tmp_path):
    write(tmp_path)
    files = write(tmp_path, TEXTS[:3])
    assert decoded(files) == TEXTS[:3]
    assert contents(tmp_path).keys() == {"00000.bin", "00000.idx", "00000.json", "content.sha256", "meta.json"}


def test_another_tokenizer_makes_all_of_it_again(tmp_path):
    write(tmp_path)
    said: list[Progress] = []
    write(tmp_path, encoding=byte_encoding(tmp_path, "another"), progress=said.append)
    assert said[-1].kept == 0


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda place: (place / "meta.json").unlink(), "these token files are not finished"),
        (lambda place: (place / "meta.json").write_text("{"), "this file is damaged"),
        (lambda place: (place / "meta.json").write_text("{}"), "this file is damaged"),
        (lambda place: (place / "meta.json").write_text('{"format": 9}'), "have the format 9, not 1"),
        (lambda place: (place / "00001.bin").unlink(), "00001.bin: a shard is missing"),
        (lambda place: (place / "00001.idx").write_bytes(b""), r"00001.idx: a shard has 0 bytes instead of \d+"),
    ],
)
def test_a_split_that_cannot_be_read_is_named(tmp_path, harm, message):
    write(tmp_path)
    harm(tmp_path / "train")
    with pytest.raises(DataError, match=message):
        open_tokens(tmp_path)


def test_a_split_that_is_not_there_is_none(tmp_path):
    write(tmp_path)
    assert open_tokens(tmp_path, "validation") is None


def test_a_text_that_no_file_can_hold_is_named_by_its_place(tmp_path):
    with pytest.raises(DataError, match="texts:2: character 4 of the text is half of a surrogate pair"):
        write(tmp_path, ["good", "bad\ud800"])


def test_two_writers_do_not_meet(tmp_path):
    write(tmp_path)
    with (tmp_path / "train" / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="somebody else is writing these token files"):
            write(tmp_path)
    write(tmp_path)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_after_which_the_rest_can_be_made(tmp_path):
    def kill(progress: Progress) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(RunFailed, match="a process that tokenizes was killed"):
        write(tmp_path, TEXTS * 20, workers=2, progress=kill)
    said: list[Progress] = []
    files = write(tmp_path, TEXTS * 20, progress=said.append)
    assert said[-1].kept >= 1
    assert files.digest == write(tmp_path / "whole", TEXTS * 20).digest


def test_the_digest_is_that_of_the_tokens_alone(tmp_path):
    one = write(tmp_path / "a")
    assert one.digest == write(tmp_path / "b").digest
    assert one.digest != write(tmp_path / "c", TEXTS[1:]).digest
    meta = json.loads((tmp_path / "a" / "train" / "meta.json").read_text())
    assert meta["digest"] == one.digest == (tmp_path / "a" / "train" / "content.sha256").read_text().strip()


def test_a_config_that_names_the_folder_counts_it_without_reading_it(tmp_path):
    """What the shards hold is said by content.sha256; other files of the folder count as everywhere."""
    write(tmp_path)
    before = content_digest(str(tmp_path))
    (tmp_path / "train" / "00000.bin").write_bytes(b"")
    assert content_digest(str(tmp_path)) == before
    write(tmp_path, TEXTS[1:])
    assert content_digest(str(tmp_path)) != before
    said = content_digest(str(tmp_path))
    (tmp_path / "tokenizer" / "more").write_text("")
    assert content_digest(str(tmp_path)) != said
