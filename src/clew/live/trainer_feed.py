"""The batches of a Hugging Face ``Trainer``, each chosen at the moment at which it is needed.

``Trainer`` has a sampler shuffle an epoch ahead, Accelerate fetches one batch more than is needed, and the loop counts
its steps in batches of one size. So a selection would come a batch late, and another batch size not at all. Here
nothing is fetched ahead, and what comes is a pure function of a position that a checkpoint holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clew.checkpoints.state import load_state, save_state
from clew.data.feed import Feed
from clew.data.order import Ids
from clew.errors import UserError

if TYPE_CHECKING:
    from transformers import Trainer

_FILE = "feed"
# `Trainer` counts epochs in steps; there is one, which the last step ends.
_ENDLESS = 1 << 62
_ORDERS = ("random", "sequential")


class TrainerFeed:
    """What a ``Trainer`` iterates over instead of its own data loader: batches without an end.

    Trainers that generate (GRPO and its kin) take one generation batch for all forward passes of a step, in which each
    prompt stands as often as it is completed. Several ranks cut each batch among them.

    Args:
        trainer: It is told to use this one. Its order is shuffled by ``data_seed``, else ``seed``, unless it asks for
            the examples as they stand.
        timed: Surrounds the time in which a batch is made.

    Attributes:
        feed: Says which samples come next.

    Raises:
        UserError: If samples of its data cannot be chosen by their numbers.
    """

    def __init__(self, trainer: Trainer, timed: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        _check(trainer)
        self._trainer = trainer
        self._timed = timed
        self._tokens: int | None = 0
        args = trainer.args
        self._repeats = int(getattr(trainer, "num_generations", 1))
        self._generates = self._repeats > 1
        self._largest = int(trainer._train_batch_size)
        seed = args.seed if args.data_seed is None else args.data_seed
        rows = self._largest * args.world_size * args.gradient_accumulation_steps
        self.feed = Feed(len(trainer.train_dataset), seed, rows // self._repeats, shuffled=_shuffles(trainer))
        self._fetch, self._collate = source(trainer, trainer.train_dataset)
        self._batch: Any = None
        self._uses = 0
        self._install()

    def __iter__(self) -> TrainerFeed:
        return self

    def __next__(self) -> Any:
        if self._uses == 0:
            with self._timed():
                self._batch, self._uses = self._made(), self._passes
        self._uses -= 1
        return self._batch

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The batch that was made last, as the model takes it; None where there is none, or it is no such thing."""
        return self._batch if isinstance(self._batch, Mapping) else None

    def counted(self) -> int | None:
        """Return how many tokens the batches since the last call have; None where nobody knows."""
        tokens, self._tokens = self._tokens, 0
        return tokens

    @property
    def unit(self) -> str:
        """What a batch consists of, as it is called in configs."""
        return "prompts_per_step" if self._generates else "batch_size"

    @property
    def can_resize(self) -> bool:
        """Whether a batch can have another size: not while completions are learned from in more than one step."""
        return not self._generates or self._passes == self._trainer.args.gradient_accumulation_steps

    def misfit(self, samples: int) -> str:
        """Return why a batch cannot have so many samples; empty when it can."""
        ranks = self._trainer.args.world_size
        rows, rest = divmod(samples * self._repeats, ranks)
        if rest:
            return f"it must be a multiple of the {ranks} ranks"
        if rows > self._largest and rows % self._largest:
            per_sample = f", each of them {self._repeats} times" if self._generates else ""
            return f"it must make whole forward passes of {self._largest} rows, or less than one{per_sample}"
        return ""

    def resize(self, samples: int) -> None:
        """Make batches of so many samples, which fit, from the next one on."""
        trainer, args = self._trainer, self._trainer.args
        rows = samples * self._repeats // args.world_size
        size = min(rows, self._largest)
        trainer._train_batch_size = size
        args.per_device_train_batch_size = max(1, size // max(1, args.n_gpu))
        args.gradient_accumulation_steps = rows // size
        if self._generates:
            args.steps_per_generation, args.generation_batch_size = rows // size, rows * args.world_size
            trainer._step, trainer._buffered_inputs = 0, None
        self.feed.batch_size = samples
        # The loop counts forward passes from the beginning of its epoch, and divides by how many make a step.
        trainer.control.should_epoch_stop = True

    def save(self, directory: Path) -> None:
        """Write the position and the selection."""
        state = self.feed.state()
        if (chosen := state["selection"]) is not None:
            state["selection"] = {
                **chosen,
                "ids": [torch.from_numpy(np.ascontiguousarray(ids)) for ids in chosen["ids"]],
            }
        save_state(directory, _FILE, state)

    def load(self, directory: Path, step: int) -> None:
        """Go on from what :meth:`save` wrote.

        Args:
            directory: Where it was written; those of versions without it are as many batches on as they have steps.
            step: The finished steps of that state.
        """
        self._uses = 0
        if (directory / f"{_FILE}.json").is_file():
            self.feed.load(load_state(directory, _FILE))
        else:
            self.feed.samples_seen = step * self.feed.batch_size

    @property
    def _passes(self) -> int:
        """How many forward passes one batch is for."""
        trainer = self._trainer
        return trainer.args.steps_per_generation * trainer.num_iterations if self._generates else 1

    def _made(self) -> Any:
        trainer, args = self._trainer, self._trainer.args
        rows = trainer._train_batch_size * (args.steps_per_generation if self._generates else 1)
        ids = self.feed.take(rows * args.world_size // self._repeats)
        mine = np.repeat(ids, self._repeats)[args.process_index * rows : (args.process_index + 1) * rows]
        batch = self._collate(self._fetch(mine))
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        # A mask that is on a device already is not asked: that would wait for it.
        here = isinstance(mask, torch.Tensor) and mask.device.type == "cpu" and self._tokens is not None
        self._tokens = (self._tokens or 0) + int(mask.count_nonzero()) if mask is not None and here else None
        return batch

    def _install(self) -> None:
        trainer, args = self._trainer, self._trainer.args
        if args.max_steps <= 0:
            args.max_steps = math.ceil(args.num_train_epochs * self.feed.num_samples / self.feed.batch_size)
        _by_steps(args, math.ceil(self.feed.num_samples / self.feed.batch_size))
        trainer.get_train_dataloader = lambda: self
        trainer.set_initial_training_values = self._one_epoch

    def _one_epoch(self, args: Any, dataloader: Any) -> tuple[int, int, int, int, int, int, int]:
        """What ``Trainer`` asks about its epochs."""
        size = self._trainer.get_total_train_batch_size(args)
        samples = size * args.max_steps
        return _ENDLESS, _ENDLESS, samples, samples, size, _ENDLESS, args.max_steps


def _check(trainer: Trainer) -> None:
    """Refuse a trainer whose samples have no numbers, or that has another idea of their order."""
    made_by = type(trainer).get_train_dataloader.__module__.partition(".")[0]
    order = getattr(trainer.args, "train_sampling_strategy", "random")
    if getattr(trainer.train_dataset, "__len__", None) is None:
        reason = "the training data must have a length, so that its samples have numbers"
    elif made_by not in ("transformers", "trl"):
        reason = f"{type(trainer).__name__} makes its data loader itself (get_train_dataloader)"
    elif trainer.args.auto_find_batch_size:
        reason = "auto_find_batch_size would change what a step is; set it to False"
    elif order not in _ORDERS:
        reason = f"train_sampling_strategy is {order!r}; take {' or '.join(_ORDERS)}"
    else:
        return
    raise UserError("this trainer's batches cannot be chosen while it trains", hint=reason)


def _shuffles(trainer: Trainer) -> bool:
    in_order = getattr(trainer.args, "train_sampling_strategy", "random") == "sequential"
    return bool(getattr(trainer, "shuffle_dataset", True)) and not in_order


def source(trainer: Trainer, data: Any) -> tuple[Callable[[Ids], Sequence[Any]], Callable[[Sequence[Any]], Any]]:
    """Return what gives samples by their numbers, and what makes a batch of them: as ``Trainer`` does, on the spot.

    Args:
        trainer: Whose collator is used, and who says which columns are.
        data: The samples.
    """
    import datasets

    collate = lambda rows: trainer.data_collator(rows)  # noqa: E731 - it may get another one later
    if isinstance(data, datasets.Dataset):
        data = trainer._remove_unused_columns(data, description="Training")
        return lambda ids: data.__getitems__(ids.tolist()), collate
    collate = trainer._get_collator_with_removed_columns(trainer.data_collator, description="Training")
    return lambda ids: [data[int(one)] for one in ids], collate


def _by_steps(args: Any, steps: int) -> None:
    """Let what is due after each epoch be due after as many steps as one takes, for the loop never ends one."""
    for name in ("logging", "eval"):
        if getattr(args, f"{name}_strategy") == "epoch":
            setattr(args, f"{name}_strategy", type(args.logging_strategy)("steps"))
            setattr(args, f"{name}_steps", steps)
