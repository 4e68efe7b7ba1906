"""The mean along the way of one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clew.checkpoints import CheckpointStore
from clew.config import Spelled, config
from clew.errors import UserError, did_you_mean
from clew.merging.methods.average import Average
from clew.runs import Run


@config
class Swa(Average):
    """Stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407): the mean of a run's checkpoints.

    m = (1/n) sum_i x_i over the checkpoints of a trajectory; with weights, their weighted mean. Which ones are best
    taken (the later ones, at a constant or cyclic learning rate) is for the run to decide.
    """

    trajectory: Annotated[str, Spelled(r"^(run:[^@]+)?$", "like run:NAME")] = ""
    """The run whose checkpoints are averaged, as run:NAME; empty takes only what models names."""
    steps: list[Annotated[int, Field(ge=0)]] | None = None
    """The checkpoints of the trajectory; null takes all that there are when the merge is asked for."""

    def __post_init__(self) -> None:
        if self.steps is not None and not self.trajectory:
            raise ValueError("steps are those of a trajectory, and none is named")

    @property
    def adds_models(self) -> bool:
        """Whether there is a trajectory."""
        return bool(self.trajectory)

    def settled(self, runs: Path) -> Mapping[str, Any]:
        """Return the steps of the trajectory, which may have others tomorrow."""
        return {"steps": _kept(self.trajectory, runs)} if self.trajectory and self.steps is None else {}

    def references(self, runs: Path) -> list[str]:
        """Return a reference for each checkpoint, by its step."""
        if not self.trajectory:
            return []
        steps = self.steps if self.steps is not None else _kept(self.trajectory, runs)
        return [f"{self.trajectory}@{step}" for step in steps]


def _kept(trajectory: str, runs: Path) -> list[int]:
    name = trajectory.removeprefix("run:")
    run = Run(runs / name)
    if not (run.path / "run.json").is_file():
        known = [path.parent.name for path in runs.glob("*/run.json")]
        raise UserError(f"there is no run {name!r}", where=str(runs), hint=did_you_mean(name, known))
    steps = sorted(checkpoint.step for checkpoint in CheckpointStore(run.checkpoints).all())
    if not steps:
        raise UserError("this run has no checkpoints to average", where=trajectory)
    return steps
