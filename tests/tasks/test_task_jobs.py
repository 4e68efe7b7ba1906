"""What jobs do with what a task says about its data."""

from __future__ import annotations

import json

import pytest

import clew
from clew.runs import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]


def test_an_order_is_kept_by_training_and_skipped_rows_are_counted(tmp_path):
    import torch

    from clew.models.config import ModelConfig
    from clew.models.decoder import Decoder
    from clew.models.exchange import save_huggingface
    from clew.models.tokenizers import ByteTokenizer, vocab_size

    tokenizer = ByteTokenizer().build([])
    torch.manual_seed(0)
    save_huggingface(Decoder(ModelConfig(depth=1), vocab_size(tokenizer), context=64), tokenizer, tmp_path / "model")
    rows = [{"prompt": "x" * size, "completion": "y"} for size in (5, 2, 8, 1, 7, 3)]
    (tmp_path / "d.jsonl").write_text("oops\n" + "".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "job": "grpo",
        "name": "ordered",
        "model": str(tmp_path / "model"),
        "task": {
            "type": "dataset", "train": str(tmp_path / "d.jsonl"), "on_bad_row": "skip", "order": "shortest_first"
        },
        "sampling": {"max_new_tokens": 2},
        "training": {"steps": 3, "prompts_per_step": 2, "generations": 2},
        "runtime": {"device": "cpu", "threads": 1},
    }  # fmt: skip
    result = clew.run(config, workspace=tmp_path)
    assert result.status == "completed", result.failure
    assert result.notes["skipped_rows"] == 1
    asked = [len(event["prompt"]) for event in Workspace(tmp_path).find_run("ordered").events("rollout")]
    assert list(dict.fromkeys(asked)) == [1, 2, 3, 5, 7, 8]
