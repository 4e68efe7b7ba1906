"""What supervised fine-tuning learns from an example, token by token, as TRL's trainer prepares it.

A chat template that masks the wrong tokens fails in silence: the loss falls all the same. So the tokens are not worked
out anew here; the trainer's own preparation makes them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from clew.errors import require
from clew.tasks.base import Example, Task
from clew.tasks.render import Chat, prompt_ids, render_example

IGNORED = -100
"""The label of a token that is not trained on."""
OPEN, CLOSE = "«", "»"


@dataclass(frozen=True)
class Labelled:
    """An example as the trainer sees it: token ids, and a label for each, the id itself or -100."""

    id: str
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    prompt: tuple[int, ...]
    """The token ids that the model would continue when it is asked."""

    @property
    def num_trained(self) -> int:
        """How many tokens are trained on."""
        return sum(label != IGNORED for label in self.labels)

    def runs(self) -> Iterator[tuple[bool, list[int]]]:
        """Yield runs of token ids, each with whether it is trained on."""
        pairs = zip(self.ids, self.labels, strict=True)
        for trained, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
            yield trained, [token for token, _ in run]

    def problems(self, tokenizer: Any) -> list[str]:
        """Return what is wrong with the labels, in words; empty when they are as they should be.

        Args:
            tokenizer: The one that made the ids.
        """
        found = []
        if not self.num_trained:
            found.append("nothing of it is trained on")
        elif self.prompt != self.ids[: len(self.prompt)]:
            found.append("the model is asked with other tokens than it is trained after")
        if self.num_trained and not self._learns_to_stop(tokenizer):
            found.append("the answer's end is not trained on, so the model does not learn to stop")
        return found

    def _learns_to_stop(self, tokenizer: Any) -> bool:
        """Whether a special token, or whatever else ends a turn, is trained on behind the answer."""
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        trained = [token for token, label in zip(self.ids, self.labels, strict=True) if label != IGNORED]
        return any(token in special for token in trained)


def label(examples: Sequence[Example], tokenizer: Any, chat: Chat = "auto", task: Task | None = None) -> list[Labelled]:
    """Return what TRL's ``SFTTrainer`` trains on for each example, in their order.

    Args:
        examples: With completions.
        tokenizer: A Hugging Face tokenizer.
        chat: Whether a chat template is used, as in the job ``sft``.
        task: Whose hook ``collate`` has the last word; None for none.

    Raises:
        DataError: As :func:`clew.tasks.render_example`; also for a template that drops or merges turns.
        MissingLibrary: If TRL is not installed.
    """
    rows = _prepare([render_example(example, tokenizer, chat) for example in examples], tokenizer)
    if task is not None:
        rows = [_collated(task, row, tokenizer) for row in rows]
    return [
        Labelled(
            example.id,
            ids=tuple(row["input_ids"]),
            labels=tuple(row["labels"]),
            prompt=tuple(prompt_ids(example.prompt, tokenizer, chat)),
        )
        for example, row in zip(examples, rows, strict=True)
    ]


def _prepare(rows: list[dict[str, Any]], tokenizer: Any) -> Iterable[dict[str, Any]]:
    """Let the trainer's own method prepare a data set; a trainer without a model is enough for that.

    Nothing is cut off, for the job refuses what is too long.
    """
    trl, datasets = require("trl", extra="tune"), require("datasets", extra="tune")
    trainer = object.__new__(trl.SFTTrainer)
    trainer._tokenizer, trainer.chat_template, trainer.completion_only_loss = tokenizer, None, True
    with tempfile.TemporaryDirectory() as folder, _quiet(datasets), _kept_devices():
        arguments = trl.SFTConfig(
            output_dir=folder,
            max_length=None,
            use_cpu=True,
            bf16=False,
            report_to="none",
            activation_checkpointing=False,
        )
        data = datasets.Dataset.from_list(rows)
        return list(trainer._prepare_dataset(data, tokenizer, arguments, False, None, "train"))


def _collated(task: Task, row: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return an example as it is in a batch of its own, which has no padding."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    default = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    batch = task.collate([row], default)
    return {name: batch[name][0].tolist() for name in ("input_ids", "labels")}


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Show no progress bars while the block runs."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _kept_devices() -> Iterator[None]:
    """Leave what Accelerate knows of this process as it was: new arguments reset it, and a trainer may be training."""
    state = require("accelerate", extra="tune").state
    kinds = (state.PartialState, state.AcceleratorState, state.GradientState)
    known = [(kind._shared_state, dict(kind._shared_state)) for kind in kinds]
    try:
        yield
    finally:
        for present, before in known:
            present.clear()
            present.update(before)


def show(labelled: Labelled, tokenizer: Any, max_length: int | None = None) -> str:
    """Return an example as text: decoded tokens with ``«`` and ``»`` around those that are trained on.

    Args:
        labelled: The example.
        tokenizer: The one that made its ids.
        max_length: The limit of the job in tokens; None knows none.

    Returns:
        A head, a line for each problem, the text. A line break has a ``⏎`` before it, so that a trained one is seen.
    """
    text = ""
    for trained, ids in labelled.runs():
        piece = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        piece = piece.replace("\n", "⏎\n")
        text += f"{OPEN}{piece}{CLOSE}" if trained else piece
    head = f"example {labelled.id}: {labelled.num_trained} of {len(labelled.ids)} tokens trained"
    notes = [f"  ! {problem}" for problem in labelled.problems(tokenizer)]
    if max_length is not None and len(labelled.ids) > max_length:
        notes.append(f"  ! it is longer than training.max_length={max_length}, and sft refuses it")
    return "\n".join([head, *notes, *(f"  {line}" for line in text.splitlines())])
