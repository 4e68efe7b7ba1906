"""A Lightning trainer as a session sees it: what it can do between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from clew.checkpoints.digest import state_digest, tensors_digest
from clew.checkpoints.snapshot import Snapshots
from clew.errors import UserError
from clew.health.probe import HealthProbe
from clew.inspection.samples import Scorer, Selection
from clew.live.lightning_data import TrainData, why_not_fed
from clew.live.lightning_scoring import Losses, SampleScorer
from clew.live.lightning_settings import TrainerNumbers
from clew.live.lightning_state import copied, optimizers_in, read_state, set_state, state_of, weights_in, write_state
from clew.live.lightning_undisturbed import looking, to_device, training_loss, validate
from clew.live.merging import merge_into, open_state
from clew.merging.information import live_information
from clew.merging.methods.fisher import Fisher
from clew.merging.weights import Weights
from clew.session.settings import Setting
from clew.session.surface import MergeRequest

_MODEL, _DATA = "model", "data"


class LightningSurface:
    """All that can be asked of a trainer that fits.

    Args:
        trainer: A trainer that has its optimizers and its data.
        loader: The training data as it was given.
        data: Where the batches come from.
        numbers: What can be set.
        seed: Of the order of the data.
        losses: Gives the loss of each sample of a batch; None lets the training step say it, sample by sample.

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
        seed: int,
        losses: Losses | None = None,
    ) -> None:
        self.probe = HealthProbe()
        self.ended = False
        self._trainer = trainer
        self._loader = loader
        self._data = data
        self._numbers = numbers
        self._seed = seed
        self._losses = losses
        self._snapshots = Snapshots()

    # The state.

    def save(self, directory: Path) -> None:
        """Write the complete state."""
        with self.probe.pause():
            write_state(self._state(), directory)

    def load(self, directory: Path) -> None:
        """Go on from what :meth:`save` wrote, at once."""
        self.settle()
        state = read_state(directory)
        self._data.load(state[_DATA])
        if set_state(self._trainer, state):
            self._data.begin()

    def snapshot(self) -> Callable[[Path], None]:
        """Keep the state of this moment, and return what writes it; weights are copied beside the training."""
        state = self._state()
        parameters = {
            id(one) for one in self._module.state_dict(keep_vars=True).values() if isinstance(one, nn.Parameter)
        }
        # Buffers change with the next forward pass already, and parameters not before its end.
        known = self._module.state_dict(keep_vars=True)
        weights = {
            name: tensor if id(known.get(name)) in parameters else copied(tensor)
            for name, tensor in state[_MODEL].items()
        }
        rest = {name: copied(part) for name, part in state.items() if name not in (_MODEL, "optimizer")}
        taken = self._snapshots.take({_MODEL: weights, "optimizer": copied(state["optimizer"])})
        return lambda directory: write_state({**taken(), **rest}, directory)

    def settle(self) -> None:
        """Wait for the snapshots that are still being copied: what trains is about to change."""
        self._snapshots.settle()

    def _state(self) -> dict[str, Any]:
        return {**state_of(self._trainer, ended=self.ended), _DATA: self._data.state()}

    # What can be asked.

    def settings(self) -> Sequence[Setting]:
        """Return what can be set."""
        return self._numbers.all(more_steps=not self.ended)

    def idle(self) -> AbstractContextManager[None]:
        """Surround a time in which nothing is done on purpose."""
        return self.probe.pause()

    def evaluate(self) -> Mapping[str, float]:
        """Run the module's validation, of which neither callbacks nor loggers hear."""
        with self.probe.pause():
            return validate(self._trainer)

    def reset(self, checkpoint: Path | None, *, optimizer: bool) -> None:
        """Take weights of a checkpoint, and what its optimizers knew; rates, decay and schedules stay as they are."""
        self.settle()
        if checkpoint is not None:
            self._module.load_state_dict(weights_in(checkpoint))
        for place, one in enumerate(self._trainer.optimizers):
            if checkpoint is None or optimizer:
                one.state.clear()
            else:
                known = optimizers_in(checkpoint)[place]["state"]
                one.load_state_dict({"state": known, "param_groups": one.state_dict()["param_groups"]})

    def select(self, selection: Selection | None) -> None:
        """Train on these samples from the next batch on."""
        if self._data.feed is None:
            raise UserError(why_not_fed(self._loader))
        self._data.feed.select(selection)
        self._data.changed()

    def scorer(self, split: str) -> Scorer:
        """Return what scores the samples of ``train`` or ``validation``."""
        if split == "train":
            return SampleScorer(self._trainer, _rows(self._loader, split), self._losses)
        if split != "validation":
            raise UserError(f"there is no split {split!r}; there is train, validation")
        loop = self._trainer.fit_loop.epoch_loop.val_loop
        if self._trainer.enable_validation:
            loop.setup_data()
        loaders = loop._combined_loader.flattened if loop._combined_loader is not None else []
        if len(loaders) != 1:
            raise UserError(f"there are {len(loaders)} validation loaders, and samples of one can be scored")
        return SampleScorer(self._trainer, _rows(loaders[0], split), self._losses)

    def merge(self, request: MergeRequest) -> Mapping[str, Any]:
        """Take the merged weights."""
        self.settle()
        told = merge_into(
            self._module.state_dict(),
            request,
            lambda directory: open_state(directory, _MODEL, ()),
            fisher=self._information,
        )
        if request.optimizer == "reset":
            self.reset(None, optimizer=True)
        return told

    def digests(self) -> Mapping[str, str]:
        """Return hashes of the weights with the buffers, and of the optimizers with their groups."""
        optimizers = [one.state_dict() for one in self._trainer.optimizers]
        weights = {name: value for name, value in self._module.state_dict().items() if isinstance(value, Tensor)}
        return {"weights": tensors_digest(weights.items()), "optimizer": state_digest(optimizers)}

    def health(self) -> Mapping[str, Any]:
        """Say how the training is doing; the activations are those of the batch that comes next."""
        forward = None if self._data.feed is None else self._try_next
        sampler = "shuffled by its seed" if self._data.feed is not None else type(self._loader).__name__
        with self.probe.pause():
            return self.probe.report(
                self._module,
                self._trainer.optimizers,
                forward=forward,
                data={"seed": self._seed, "sampler": sampler},
                step=self._trainer.global_step,
                together=False,
            )

    @property
    def _module(self) -> Any:
        return self._trainer.lightning_module

    def _try_next(self) -> None:
        with looking(self._trainer):
            training_loss(self._trainer, to_device(self._trainer, self._data.coming()))

    def _information(self, weights: Weights, method: Fisher) -> Mapping[str, Tensor]:
        """The Fisher information on the training data, from the loss of single samples."""
        loader = _rows(self._loader, "train")
        with looking(self._trainer):
            return live_information(self._module, weights, self._likelihoods(loader, method.samples))

    def _likelihoods(self, loader: DataLoader[Any], count: int) -> Iterable[Callable[[], Tensor]]:
        data: Any = loader.dataset
        for number in range(min(count, len(data))):
            batch = to_device(self._trainer, (loader.collate_fn)([data[number]]))
            if self._losses is None:
                yield partial(training_loss, self._trainer, batch)
            else:
                yield partial(lambda losses, one: losses(self._module, one).sum(), self._losses, batch)


def _rows(loader: Any, split: str) -> DataLoader[Any]:
    """A loader whose samples have numbers."""
    if split == "train" and (reason := why_not_fed(loader)):
        raise UserError(reason)
    if not isinstance(loader, DataLoader) or not _has_numbers(loader):
        raise UserError(f"the samples of {split} have no numbers: its data is no map-style data set in a DataLoader")
    return loader


def _has_numbers(loader: DataLoader[Any]) -> bool:
    try:
        return len(loader.dataset) > 0  # type: ignore[arg-type]
    except TypeError:
        return False
