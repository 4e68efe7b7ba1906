"""A job that left bad rows out says so in its result."""

from __future__ import annotations

import json

import pytest
from tuning_support import attempt, new_run, save_model

from clew.data.config import DataConfig
from clew.engines import GenerationConfig
from clew.jobs.base import RuntimeConfig
from clew.jobs.eval import EvalConfig, evaluate
from clew.jobs.pretrain import PretrainConfig, pretrain
from clew.models.config import ModelConfig
from clew.tasks.dataset import DatasetTask
from clew.train import TrainingConfig

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("bad", [0, 2])
def test_evaluations_and_pretrainings_count_the_rows_that_they_left_out(bad, tmp_path):
    rows = [
        json.dumps({"prompt": f"say {word}", "completion": word, "text": f"now say {word}"})
        for word in ("one", "two", "three", "four")
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(["oops"] * bad + rows) + "\n")
    task = DatasetTask(
        **dict.fromkeys(("train", "validation", "test"), str(tmp_path / "rows.jsonl")), on_bad_row="skip"
    )
    asking = EvalConfig(
        model=save_model(tmp_path / "m"),
        task=task,
        generation=GenerationConfig(max_new_tokens=2),
        runtime=RuntimeConfig(threads=1),
    )
    assert attempt(evaluate, new_run(tmp_path / "a", "eval"), asking).notes["skipped_rows"] == bad
    training = PretrainConfig(
        task=task,
        model=ModelConfig(depth=1, width=16, heads=2),
        data=DataConfig(seq_len=8),
        training=TrainingConfig(steps=1, batch_size=1, lr=0.01, validate_every=None),
    )
    assert attempt(pretrain, new_run(tmp_path / "b", "pretrain"), training).notes["skipped_rows"] == bad
