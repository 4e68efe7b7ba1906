"""A model of a few thousand weights, and attempts at runs in this process, for the jobs that adapt a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clew.config import config
from clew.jobs.base import Job
from clew.models.tokenizers import ByteTokenizer
from clew.runs import Owner, Run, RunInfo, State, create_run
from clew.session import Outcome, RunStopped, Session
from clew.tasks import Example, Reward, Task

CLOCKS = ("time", "second", "runtime")


def save_model(folder: Path, *, pad: bool = True, **changes: Any) -> str:
    """Write a random Llama of one layer with a tokenizer of bytes."""
    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = LlamaConfig(
        **{"vocab_size": len(tokenizer), "max_position_embeddings": 64, "initializer_range": 0.3, **sizes, **changes},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    if not pad:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return str(folder)


@config
class Echo(Task):
    """Say the word again; words and answers of many lengths."""

    size: int = 16

    def examples(self, split: str) -> list[Example]:
        words = ["abcdefgh"[: 1 + number % 8] * (1 + number % 3) for number in range(self.size)]
        return [Example(f"{split}-{number}", f"{word}=", word) for number, word in enumerate(words)]

    def rewards(self) -> list[Reward]:
        return [
            Reward("long", lambda example, completion: len(completion) / 8),
            # Says nothing about every other prompt.
            Reward("even", lambda example, completion: _even(example, completion), weight=0.5),
        ]


def _even(example: Example, completion: str) -> float | None:
    return float(len(completion) % 2 == 0) if len(example.prompt) % 2 else None


def new_run(folder: Path, job: str = "sft") -> Run:
    """Make an empty run."""
    return create_run(folder / "runs", RunInfo(id="r", job=job), "{}", {})


def attempt(job: Job[Any], run: Run, settings: Any, stop_at: int | None = None) -> Outcome | None:
    """Make one attempt; with ``stop_at`` a stop command is found waiting there, and None is returned."""
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    try:
        with Session(run, settings, number) as session:
            if stop_at is not None:
                due = session.due

                def stopping(step: int) -> bool:
                    if step == stop_at:
                        run.inbox.send("stop")
                    return due(step)

                session.due = stopping  # type: ignore[method-assign]
            outcome = job.run(session)
    except RunStopped as stopped:
        run.states.move(stopped.state, attempt=number)
        return None
    except BaseException:
        run.states.move(State.FAILED, attempt=number)
        raise
    run.states.move(State.COMPLETED, attempt=number)
    return outcome


def metrics_of(run: Run) -> dict[int, dict[str, float]]:
    """Everything that was logged, by step, without what depends on the clock."""
    found: dict[int, dict[str, float]] = {}
    for event in run.events("metric"):
        values = {name: value for name, value in event["values"].items() if not any(one in name for one in CLOCKS)}
        found.setdefault(event["step"], {}).update(values)
    return found


def weights_of(run: Run) -> dict[str, bytes]:
    """The published weights."""
    return {
        path.relative_to(run.artifacts).as_posix(): path.read_bytes() for path in run.artifacts.rglob("*.safetensors")
    }
