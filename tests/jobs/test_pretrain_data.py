"""A pretraining on token files is the one on the texts that they were made of, and a mixture says what it has drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_pretrain import Rhymes, attempt, new_run, small

from clew.data.config import DataConfig, MixturePart, MixtureSource, TokensSource
from clew.data.feed import Feed
from clew.data.writing import write_tokens
from clew.errors import DataError
from clew.jobs.tokenizing import put_beside, texts_of_task
from clew.models.tokenizers import ByteTokenizer

pytestmark = pytest.mark.slow


def tokens(folder: Path, texts: int = 60, splits: tuple[str, ...] = ("train", "validation")) -> Path:
    encoding = put_beside(folder, ByteTokenizer().build([]))
    for split in splits:
        write_tokens(folder, split, texts_of_task(Rhymes(texts=texts), split), encoding, shard_bytes=100)
    return folder


def weights(run) -> bytes:
    return (run.artifacts / "model" / "model.safetensors").read_bytes()


def test_tokens_of_a_task_train_the_same_model_with_any_number_of_workers(tmp_path):
    path = str(tokens(tmp_path / "made"))
    sources = [DataConfig(seq_len=16)]
    sources += [DataConfig(seq_len=16, source=TokensSource(path=path), workers=workers) for workers in (0, 2)]
    made, metrics = [], []
    for number, data in enumerate(sources):
        run = new_run(tmp_path / str(number))
        outcome = attempt(run, small(data=data))
        assert outcome is not None
        made.append(weights(run))
        metrics.append(outcome.metrics)
    assert made[0] == made[1] == made[2]
    assert metrics[0] == metrics[1] == metrics[2]


def mixed(tmp_path: Path, workers: int = 0) -> DataConfig:
    paths = [tokens(tmp_path / name, texts) for name, texts in (("long", 60), ("short", 10))]
    parts = tuple(MixturePart(path=str(path), weight=weight) for path, weight in zip(paths, (1.0, 3.0), strict=True))
    return DataConfig(seq_len=16, source=MixtureSource(parts=parts), workers=workers)


def test_a_mixture_says_how_many_samples_each_part_has_given(tmp_path):
    run = new_run(tmp_path / "run")
    outcome = attempt(run, small(data=mixed(tmp_path)))
    assert outcome is not None
    drawn = outcome.notes["mixture"]
    assert list(drawn) == ["long", "short"]
    assert sum(drawn.values()) == 12 * 4
    sizes = [-(-(14 * texts - 1) // 16) for texts in (60, 10)]
    feed = Feed(sum(sizes), 0, 4, shares=list(zip(sizes, (1.0, 3.0), strict=True)))
    ids = np.concatenate([feed.take() for _ in range(12)])
    assert drawn == {"long": int((ids < sizes[0]).sum()), "short": int((ids >= sizes[0]).sum())}


def test_a_mixture_that_is_stopped_in_mid_epoch_and_read_ahead_ends_as_one_that_is_not(tmp_path):
    straight, cut = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    attempt(straight, small(data=mixed(tmp_path)))
    settings = small(data=mixed(tmp_path, workers=2))
    assert attempt(cut, settings, stop_at=7) is None
    attempt(cut, settings)
    assert weights(cut) == weights(straight)


def test_what_needs_a_validation_says_that_the_tokens_have_none(tmp_path):
    path = tokens(tmp_path / "made", splits=("train",))
    settings = small(data=DataConfig(seq_len=16, source=TokensSource(path=str(path))), publish="best")
    with pytest.raises(DataError, match=r"data\.source has no text to validate on, which publish needs"):
        attempt(new_run(tmp_path / "run"), settings)
