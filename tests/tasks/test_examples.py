from __future__ import annotations

import runpy
from datetime import date
from pathlib import Path

import pytest

from clew.tasks import registry
from clew.tasks.dataset import DatasetTask

EXAMPLES = Path(__file__).parents[2] / "examples"
DATES = EXAMPLES / "dates"


def test_the_dates_come_out_the_same_again(tmp_path):
    runpy.run_path(str(DATES / "make.py"))["main"](tmp_path)
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / name).read_bytes() == (DATES / name).read_bytes()


@pytest.fixture
def dates():
    return DatasetTask(train=str(DATES / "train.jsonl"), test=str(DATES / "test.jsonl"), format=r"\d{4}-\d{2}-\d{2}")


def test_no_date_is_trained_on_and_tested(dates):
    train, test = ({one.completion for one in dates.examples(split)} for split in ("train", "test"))
    assert (len(train), len(test)) == (400, 100)
    assert not train & test


def test_every_answer_is_a_date_and_gets_full_marks(dates):
    for example in dates.problems("test"):
        day = date.fromisoformat(example.completion)
        assert str(day.year) in example.prompt and str(day.day) in example.prompt
        assert set(dates.metrics(example, example.completion).values()) == {1.0}


def test_the_own_task_is_found_in_its_file_and_scores():
    cls = registry().resolve("reverse.py:Reverse", EXAMPLES / "own_task")
    task = cls(words=str(EXAMPLES / "own_task" / "words.jsonl"))
    (first, *_), tested = task.examples("train"), {one.id for one in task.problems("test")}
    assert (first.prompt, first.completion) == ("Spell apple backwards.", "elppa")
    assert first.id not in tested
    assert task.metrics(first, "elppa") == {"exact": 1.0, "letters": 1.0}
    assert task.metrics(first, "elpxx") == {"exact": 0.0, "letters": 0.6}
    assert task.metrics(first, "") == {"exact": 0.0, "letters": 0.0}
