"""From the start of a worker's process to the first step of a tiny model, against the bare imports of that job.

The imports are those that the job cannot do without, whoever writes it: ``torch.optim`` brings in ``torch._dynamo``
with its first step, compiled or not.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Figure

from clew.jobs import create_job_run, load_job
from clew.runs import State, Workspace

TASK = {"type": "arithmetic", "max_operand": 9, "train_size": 40, "validation_size": 10, "test_size": 10}
COMMON: dict[str, Any] = {"task": TASK, "runtime": {"threads": 1}}
PRETRAIN = {
    **COMMON,
    "job": "pretrain",
    "model": {"depth": 1},
    "data": {"seq_len": 32},
    "training": {"steps": 1, "batch_size": 8, "log_every": 1},
}
SFT = {**COMMON, "job": "sft", "training": {"steps": 1, "batch_size": 8, "log_every": 1}}
IMPORTS = {
    "pretrain": "import torch, torch._dynamo; from transformers import PreTrainedTokenizerFast",
    "sft": "import torch, torch._dynamo, datasets; from peft import LoraConfig, get_peft_model; "
    "from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM; "
    "from trl import SFTConfig, SFTTrainer",
}
ROUNDS = 5


def main() -> None:
    """Print the ratio of each job."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        model = _make_model(Path(folder) / "model")
        for job, config in (("pretrain", PRETRAIN), ("sft", {**SFT, "model": str(model)})):
            rounds = [(_bare_imports(job), _first_step(workspace, config)) for _ in range(ROUNDS + 1)][1:]
            bare, first = (statistics.median(column) for column in zip(*rounds, strict=True))
            Figure(f"start to first step of a tiny {job}, against bare imports", first / bare, "x", 1.5).print()


def _make_model(folder: Path) -> Path:
    """Write a random model."""
    from clew.models.config import ModelConfig
    from clew.models.decoder import Decoder
    from clew.models.exchange import save_huggingface
    from clew.models.tokenizers import ByteTokenizer, vocab_size

    tokenizer = ByteTokenizer().build([])
    save_huggingface(Decoder(ModelConfig(depth=1), vocab_size(tokenizer), 64), tokenizer, folder)
    return folder


def _bare_imports(job: str) -> float:
    """Return the seconds to the end of the imports; the end of the process is no part of them."""
    began = time.time()
    code = f"{IMPORTS[job]}; import time; print(time.time())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) - began


def _first_step(workspace: Workspace, config: dict[str, Any]) -> float:
    """Start a worker as the local target does, and return the seconds to the first metric in its journal."""
    run = create_job_run(workspace, load_job(config))
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    began = time.time()
    command = [sys.executable, "-m", "clew.worker", str(run.path), str(attempt)]
    subprocess.run(command, check=True, capture_output=True)
    return next(event["t"] for event in run.events("metric")) - began


if __name__ == "__main__":
    main()
