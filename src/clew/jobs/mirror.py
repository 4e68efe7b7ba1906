"""Problems that are asked of a model whose weights lie on several processes: the first one asks a copy of it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from clew.checkpoints.rng import kept_rng
from clew.jobs.probe import Probe
from clew.models.decoder import Decoder
from clew.train.slices import Slices


class Mirror:
    """A whole copy of a model, in the first process alone, that is asked when all processes ask.

    Args:
        model: The model, on its device.
        slices: How its training is cut; it gathers the weights.
        probe: Returns what asks a model; it is called in the first process.
        leads: Whether this is the first process.
    """

    def __init__(self, model: Decoder, slices: Slices, probe: Callable[[Decoder], Probe], *, leads: bool) -> None:
        self._model = model
        self._slices = slices
        self._copy: Decoder | None = None
        self._probe: Probe | None = None
        if leads:
            with kept_rng():
                self._copy = Decoder(model.config, model.vocab_size, model.context).to(model.embed.weight.device)
                self._probe = probe(self._copy)

    def measure(self) -> dict[str, float]:
        """Ask with the weights of the moment; every process calls this, and is told what came of it."""
        self._take()
        return self._slices.said(self._ask)

    @torch.no_grad()
    def _take(self) -> None:
        for name, weight in self._slices.whole(self._model.named_parameters()):
            if self._copy is not None:
                self._copy.get_parameter(name).copy_(weight)

    def _ask(self) -> dict[str, float]:
        assert self._probe is not None, "only the first process asks"
        return self._probe.measure()
