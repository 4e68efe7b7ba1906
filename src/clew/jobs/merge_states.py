"""Merging checkpoints that hold a trainer's own state, and no model that could be loaded by itself.

So are those of a script, a Lightning trainer or a job of the user's own. What comes out is a safetensors file of
weights under the names of the model's ``state_dict``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.errors import UserError
from clew.jobs.merge_fit import refuse
from clew.merging import differences
from clew.merging.compatibility import Described
from clew.merging.heads import Shapes, shapes_in, shapes_of, stored_names
from clew.runs import Run
from clew.session.sources import find_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from clew.jobs.merge import MergeConfig
    from clew.merging.merge import Merge
    from clew.merging.weights import Weights
    from clew.session import Session

FOLDER = "weights"
"""The artifact."""

_PLAIN = "model.safetensors"
"""What Hugging Face's ``Trainer`` writes of a module of the user's own."""

_PROGRAM, _ALONE = "program", "model."
"""What :func:`clew.session` writes, and the prefix of the weights where there is one model."""

_REFERENCE = re.compile(r"run:(?P<name>[^@/]+)@(?P<which>.+)")


def states_of(references: Sequence[str], runs: Path) -> list[Path]:
    """Return the checkpoints that references name, where those hold nothing but a trainer's own state.

    Args:
        references: Of models.
        runs: The folder of runs.

    Returns:
        None at all where what they name are models.

    Raises:
        UserError: If only some of them are such; or a checkpoint is not there, or damaged.
    """
    found = {reference: _state(reference, runs) for reference in references}
    states = [path for path in found.values() if path is not None]
    if states and len(states) < len(found):
        odd = next(reference for reference, path in found.items() if path is None)
        raise UserError(f"{odd} is a model, and others are a trainer's own state, which holds weights alone")
    return [path for reference in references if (path := found[reference]) is not None]


def check_states(config: MergeConfig, references: Sequence[str], states: Sequence[Path], runs: Path) -> None:
    """Refuse what makes no sense for weights alone, and checkpoints that do not fit together; no tensor is read.

    Args:
        config: The job's.
        references: What the checkpoints are called.
        states: The checkpoints.
        runs: The folder of runs.

    Raises:
        UserError: If something of the config does not make sense; or they do not fit, with the differences.
    """
    if config.task is not None:
        raise UserError(
            "fisher is estimated on a language model, and these checkpoints hold weights alone",
            where=references[0],
            hint="merge into the live run, which estimates it on its own data: clew merge --into RUN --method fisher",
        )
    if config.method.uses_base and config.base is None:
        raise UserError("this method needs the model that all came from", hint="name it: base=...")
    named = list(zip(references, states, strict=True))
    named += [(f"the base {config.base}", _base(config.base, runs))] if config.base else []
    first = Described({}, _shapes(states[0]))
    for name, state in named[1:]:
        refuse(references[0], name, differences(first, Described({}, _shapes(state))))


def _base(reference: str, runs: Path) -> Path:
    """The checkpoint of the base."""
    if found := states_of([reference], runs):
        return found[0]
    raise UserError(f"{reference} is no checkpoint with a trainer's own state, as the others are", where="base")


def merge_states(session: Session[MergeConfig], states: Sequence[Path]) -> dict[str, Any]:
    """Merge, publish, and return what there is to say besides the shares.

    Args:
        session: The live run.
        states: The checkpoints; :func:`check_states` has looked at them.
    """
    import torch

    from clew.merging.merge import Merge

    config, runs = session.config, session.run.path.parent
    models = [_open(state) for state in states]
    base = _open(_base(config.base, runs)) if config.base else None
    dtype = None if config.dtype == "auto" else getattr(torch, config.dtype)
    weights = config.factors(len(states))
    merged = Merge(config.method, models, weights, base, dtype=dtype, seed=config.seed)
    session.horizon(len(merged.layout), unit="tensor")
    _publish(session, merged)
    size = sum(math.prod(one.shape) for one in merged.layout.values())
    return {"parameters": size, **({"taken_from_first": merged.differing} if merged.differing else {})}


def _state(reference: str, runs: Path) -> Path | None:
    match = _REFERENCE.fullmatch(reference)
    if match is None or not (runs / match["name"] / "run.json").is_file():
        return None
    from clew.merging.folders import describe_folder

    checkpoint = find_checkpoint(Run(runs / match["name"]), match["which"]).path
    held = _place(checkpoint) or (checkpoint / _PLAIN).is_file()
    return checkpoint if describe_folder(checkpoint) is None and held else None


def _place(checkpoint: Path) -> tuple[str, tuple[str, ...]] | None:
    """Return where in a checkpoint the weights are: the name of the state, and the keys that lead to them."""
    places: tuple[tuple[str, tuple[str, ...]], ...] = (("model", ()), ("trainer", ("model",)), (_PROGRAM, ("models",)))
    return next((place for place in places if (checkpoint / f"{place[0]}.json").is_file()), None)


def _shapes(state: Path) -> Shapes:
    """The shapes of the weights, under the names that :func:`_open` gives them."""
    place = _place(state)
    if place is None:
        return shapes_in(state)
    shapes = shapes_of(state / f"{place[0]}.safetensors")
    found = {name: shapes[stored] for name, stored in stored_names(state, *place).items()}
    prefix = _prefix(place[0], found)
    return {name.removeprefix(prefix): shape for name, shape in found.items()}


def _prefix(stem: str, names: Iterable[str]) -> str:
    """What the names of the only model of a program begin with."""
    return _ALONE if stem == _PROGRAM and all(name.startswith(_ALONE) for name in names) else ""


def _open(state: Path) -> Weights:
    from clew.merging.stored import open_state
    from clew.merging.weights import Files

    place = _place(state)
    if place is None:
        return Files(state)
    opened = open_state(state, *place)
    prefix = _prefix(place[0], opened.layout)
    return _Bare(opened, prefix) if prefix else opened


class _Bare:
    """Weights under the names that they have without a prefix, which all of them have."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        self._weights, self._prefix = weights, prefix
        self.layout = {name.removeprefix(prefix): one for name, one in weights.layout.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor."""
        return self._weights.read(self._prefix + name)


def _publish(session: Session[MergeConfig], merged: Merge) -> None:
    from clew.merging.weights import TensorFile

    steps = itertools.count(1)
    with session.artifact(FOLDER) as folder:
        folder.mkdir(parents=True)
        with TensorFile(folder / "model.safetensors", merged.layout) as file:
            for name, tensor in merged:
                file.write(name, tensor)
                step = next(steps)
                session.log(step, tensors=step)
                session.boundary(step)
