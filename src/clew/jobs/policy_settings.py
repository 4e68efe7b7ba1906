"""What of a policy optimisation can be changed while it runs, besides what every ``Trainer`` lets be changed."""

from __future__ import annotations

from functools import partial
from typing import Any

from clew.jobs.rollouts import RolloutRecorder
from clew.session.settings import Setting


def policy_settings(trainer: Any, recorder: RolloutRecorder) -> list[Setting]:
    """Return the temperature of the sampling, and the weight of each reward as ``reward_weights.NAME``.

    There is no temperature where something else computes the log-probabilities, such as Unsloth: who trains and who
    generates would no longer agree.

    Args:
        trainer: A ``GRPOTrainer`` that has not begun to train.
        recorder: Weighs the rewards.
    """
    weights = [_weight(recorder, name) for name in recorder.names]
    temperature = _Temperature(trainer)
    if not temperature.is_complete:
        return weights
    return [
        Setting("temperature", lambda: trainer.temperature, temperature, low=0, open=True, key="sampling.temperature"),
        *weights,
    ]


def _weight(recorder: RolloutRecorder, name: str) -> Setting:
    return Setting(f"reward_weights.{name}", partial(recorder.chosen.get, name), partial(_choose, recorder, name))


def _choose(recorder: RolloutRecorder, name: str, value: float) -> None:
    recorder.chosen[name] = value


class _Temperature:
    """Changes the temperature everywhere where TRL 1.16 has put it.

    Besides the trainer and what it generates with, that is the function which computes log-probabilities in pieces: it
    has the temperature as a variable of the function around it, for the model and for the reference.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        models = [model for model in (trainer.model, trainer.ref_model) if model is not None]
        # Looked up now: later, mixed precision hides the function behind one of its own.
        self._cells = [_captured(_base(model).forward, "temperature") for model in models]

    @property
    def is_complete(self) -> bool:
        """Whether every place was found."""
        return None not in self._cells

    def __call__(self, value: float) -> None:
        trainer = self._trainer
        trainer.temperature = trainer.args.temperature = value
        if trainer.use_vllm:
            trainer.vllm_generation.temperature = value
        else:
            trainer.generation_config.temperature = trainer.generation_kwargs["temperature"] = value
        for cell in self._cells:
            cell.cell_contents = value


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _captured(method: Any, name: str) -> Any:
    """Return the cell in which a function keeps a variable of the function around it; None if there is none."""
    function = getattr(method, "__func__", None)
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    return dict(zip(names, getattr(function, "__closure__", None) or (), strict=True)).get(name)
