"""A Lightning trainer as a session sees it: what it can do between two steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from clew.checkpoints.digest import state_digest, tensors_digest
from clew.checkpoints.snapshot import Snapshots
from clew.data.order import permute
from clew.errors import UserError
from clew.health.probe import HealthProbe
from clew.inspection.samples import Scorer, Selection
from clew.live.lightning_data import TrainData, why_not_fed
from clew.live.lightning_scoring import Losses, judge_of, scorer_of
from clew.live.lightning_settings import TrainerNumbers
from clew.live.lightning_state import copied, optimizers_in, read_state, set_state, state_of, weights_in, write_state
from clew.live.lightning_undisturbed import untraced, validate
from clew.live.merging import merge_into, open_state
from clew.live.torch_data import Samples, samples_of
from clew.live.torch_parts import gathered
from clew.live.torch_scoring import undisturbed
from clew.merging.information import live_information
from clew.merging.methods.fisher import Fisher
from clew.merging.weights import Weights
from clew.session.settings import Setting, write
from clew.session.surface import MergeRequest

_MODEL, _OPTIMIZERS, _DATA = "model", "optimizer", "data"
_SPLITS = ("train", "validation")


class LightningSurface:
    """All that can be asked of a trainer that fits.

    Args:
        trainer: A trainer that has its optimizers and its data.
        loader: The training data as it was given.
        data: Where the batches come from.
        numbers: What can be set.
        finished: Returns the number of finished steps.
        seed: Of the order of the data.
        losses: Gives the loss of each sample of a batch; None lets the training step say it, sample by sample.
        params: Of the run; one that is called like a setting is put in force, whatever the trainer was made with.

    Attributes:
        probe: Knows times and losses of the recent steps.
        ended: Whether the training loop has been left.
    """

    def __init__(
        self,
        trainer: Any,
        loader: Any,
        data: TrainData,
        numbers: TrainerNumbers,
        *,
        finished: Callable[[], int],
        seed: int,
        losses: Losses | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.probe = HealthProbe()
        self.ended = False
        self._trainer = trainer
        self._loader = loader
        self._data = data
        self._numbers = numbers
        self._finished = finished
        self._seed = seed
        self._losses = losses
        self._params = params or {}
        self._snapshots = Snapshots()
        self._configure()

    # The state.

    def save(self, directory: Path) -> None:
        """Write the complete state."""
        with self.probe.pause():
            write_state(self._state(), directory)

    def load(self, directory: Path) -> None:
        """Go on from what :meth:`save` wrote, at once."""
        state = read_state(directory)
        self.settle()
        self._data.load(state[_DATA]["data"])
        if set_state(self._trainer, state):
            self._data.begin()
        self._numbers.loaded(state[_DATA]["numbers"])
        self._configure()

    def snapshot(self) -> Callable[[Path], None]:
        """Keep the state of this moment, and return what writes it; weights are copied beside the training."""
        with self.probe.pause():
            state = self._state()
            trained = {name for name, _ in self._module.named_parameters(remove_duplicate=False)}
            # Running statistics change in the next forward pass already, and weights only after the one behind it.
            weights = {name: value if name in trained else copied(value) for name, value in state.pop(_MODEL).items()}
            taken = self._snapshots.take({_MODEL: weights, _OPTIMIZERS: state.pop(_OPTIMIZERS)})
            rest = copied(state)
        return lambda directory: write_state({**taken(), **rest}, directory)

    def settle(self) -> None:
        """Wait for the snapshots that are still being copied: what trains is about to change."""
        self._snapshots.settle()

    def _configure(self) -> None:
        settings = self.settings()
        named = [setting for setting in settings if setting.name in self._params]
        write(settings, {setting.name: setting.parse(self._params[setting.name]) for setting in named})

    def _state(self) -> dict[str, Any]:
        known = {"data": self._data.state(), "numbers": self._numbers.state()}
        return {**state_of(self._trainer, ended=self.ended), _DATA: known}

    # What can be asked.

    def settings(self) -> Sequence[Setting]:
        """Return what can be set."""
        return self._numbers.all(self._data, self._finished(), ended=self.ended)

    def idle(self) -> AbstractContextManager[None]:
        """Surround a time in which nothing is done on purpose."""
        return self.probe.pause()

    def evaluate(self) -> Mapping[str, float]:
        """Run the module's validation, of which neither callbacks nor loggers hear."""
        with self.probe.pause():
            return validate(self._trainer)

    def reset(self, checkpoint: Path | None, *, optimizer: bool) -> None:
        """Take weights of a checkpoint, and what its optimizers knew; rates, decay and schedules stay as they are."""
        parts = self._parts
        if checkpoint is not None:
            state = _as_parts(checkpoint)
            parts.check(state, optimizers=not optimizer)
            self.settle()
            parts.take_weights(state)
            if not optimizer:
                parts.take_moments(state)
        if optimizer:
            self.settle()
            parts.forget_moments()

    def select(self, selection: Selection | None) -> None:
        """Train on these samples from the next batch on."""
        if self._data.feed is None:
            raise UserError(why_not_fed(self._loader))
        self._data.feed.select(selection)
        self._data.changed()

    def scorer(self, split: str) -> Scorer:
        """Return what scores the samples of ``train`` or ``validation``."""
        return scorer_of(self._trainer, self._samples(split), self._losses)

    def merge(self, request: MergeRequest) -> Mapping[str, Any]:
        """Take the merged weights."""
        self.settle()
        with self.probe.pause():
            said = merge_into(
                self._module.state_dict(keep_vars=True),
                request,
                partial(open_state, name=_MODEL, path=()),
                fisher=self._information,
            )
        if request.optimizer == "reset":
            self._parts.forget_moments()
        return said

    def digests(self) -> Mapping[str, str]:
        """Return hashes of the ``weights`` with the buffers, and of the ``optimizer``'s state."""
        parts = self._parts
        optimizers = {name: one.state_dict() for name, one in parts.optimizers.items()}
        return {"weights": tensors_digest(sorted(parts.tensors().items())), "optimizer": state_digest(optimizers)}

    def health(self) -> Mapping[str, Any]:
        """Say how the training is doing; the activations are those of the batch that comes next."""
        data: dict[str, Any] = {"seed": self._seed}
        if (feed := self._data.feed) is not None:
            chosen = feed.selection
            data |= {
                "samples_seen": feed.samples_seen,
                "epoch": feed.epoch,
                "selected": chosen.size if chosen else None,
            }
        with undisturbed(self._module), untraced(self._trainer):
            return self.probe.report(
                self._module,
                self._trainer.optimizers,
                forward=None if feed is None else self._look_ahead,
                data=data,
                step=self._finished(),
                together=False,
            )

    @property
    def _module(self) -> Any:
        return self._trainer.lightning_module

    @property
    def _parts(self) -> Any:
        return gathered(self._module, list(self._trainer.optimizers))

    def _samples(self, split: str) -> Samples:
        if split not in _SPLITS:
            raise UserError(f"this run has no split {split!r}; there is {' and '.join(_SPLITS)}")
        if split == "validation":
            return samples_of(self._validation())
        if reason := why_not_fed(self._loader):
            raise UserError(reason)
        return samples_of(self._loader)

    def _validation(self) -> Any:
        loop = self._trainer.fit_loop.epoch_loop.val_loop
        if self._trainer.enable_validation:
            loop.setup_data()
        loaders = loop._combined_loader.flattened if loop._combined_loader is not None else []
        if len(loaders) != 1:
            raise UserError(
                f"there are {len(loaders)} validation loaders, and only the samples of one can be looked at"
            )
        return loaders[0]

    def _look_ahead(self) -> None:
        """Run the next samples through the model."""
        assert self._data.feed is not None
        feed, samples = self._data.feed, self._samples("train")
        judge = judge_of(self._trainer, self._losses)
        judge(samples.fetch(feed.peek(feed.batch_size)))

    def _information(self, weights: Weights, method: Fisher) -> Mapping[str, Tensor]:
        """The Fisher information of weights, on samples of a split."""
        samples = self._samples(method.split)
        judge = judge_of(self._trainer, self._losses)
        ids = permute(np.arange(samples.size, dtype=np.int64), samples.size, seed=self._seed, epoch=0)

        def loss_of(number: int) -> Tensor:
            return judge(samples.fetch(np.array([number], dtype=np.int64))).losses.sum()

        with untraced(self._trainer):
            return live_information(
                self._module, weights, (partial(loss_of, one) for one in islice(ids, method.samples))
            )


def _as_parts(checkpoint: Path) -> dict[str, Any]:
    """The weights and moments of a checkpoint under the names that :func:`gathered` gives."""
    optimizers = {f"optimizer{place}": state for place, state in enumerate(optimizers_in(checkpoint))}
    weights = {f"model.{name}": value for name, value in weights_in(checkpoint).items()}
    return {"models": weights, "optimizers": optimizers, "schedulers": {}, "extras": {}}
