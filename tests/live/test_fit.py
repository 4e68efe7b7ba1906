"""Any PyTorch model in one call: trained, validated, tested, steered, and gone on with bitwise after a fall."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torch_support import PROGRAMS, Program, apart, cnn, curve, mlp, same, typed, weights

import clew
from clew.live.fit import Fitted
from clew.runs import Command, Run, State

__all__ = ["typed"]


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float().mean()


def fit(
    program: Program,
    name: str = "f",
    *,
    at: Callable[[nn.Module], object] | None = None,
    test: bool = False,
    **more: Any,
) -> Fitted:
    """Fit a program; ``at`` is called in each forward pass of the training."""
    trainer = {name: more.pop(name) for name in list(more) if name in clew.Trainer.__dataclass_fields__}
    hook = program.model.register_forward_pre_hook(lambda model, _: at(model)) if at else None
    loader = DataLoader(program.data, batch_size=8, shuffle=True)
    held_out = DataLoader(Subset(program.data, range(20)), batch_size=7)
    more = {"max_steps": 12, **more}

    def body() -> Fitted:
        made = clew.Trainer(**{"project": name, "checkpoint": 5, "log_every": 4, **trainer})
        return made.fit(
            program.model,
            program.optimizer,
            program.loss_fn,
            loader,
            held_out,
            held_out if test else None,
            scheduler=program.scheduler,
            **more,
        )

    try:
        fitted: Fitted = apart(body)
    finally:
        if hook is not None:
            hook.remove()
    return fitted


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_model_is_trained_as_a_run(kind: str, typed: Path) -> None:
    program = PROGRAMS[kind]()
    before = weights(program.model)
    fitted = fit(program, test=True)
    assert fitted.steps == 12
    assert fitted.run.state is State.COMPLETED
    assert set(fitted.metrics) == {"loss", "grad_norm", "lr", "val_loss", "test_loss"}
    assert fitted.metrics["val_loss"] == fitted.metrics["test_loss"]
    assert list(curve(fitted.run)) == [4, 8, 12]
    assert list(curve(fitted.run, "val_loss")) == [5, 10, 12]  # an epoch has five steps, and the last one counts
    assert not same(before, weights(program.model))
    result = fitted.run.result
    assert result is not None and result.metrics == fitted.metrics


class Fall(Exception):
    """The power goes."""


def falling_at(step: int) -> Callable[[nn.Module], None]:
    """Fall in a forward pass of the training."""
    passes = [0]

    def count(model: nn.Module) -> None:
        passes[0] += model.training
        if passes[0] == step:
            raise Fall

    return count


@pytest.mark.parametrize("kind", PROGRAMS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_fit_that_fell_goes_on_bitwise(kind: str, precision: str, typed: Path) -> None:
    words: dict[str, Any] = {"precision": precision, "max_grad_norm": 0.5}
    one = fit(whole := PROGRAMS[kind](), "whole", **words)
    with pytest.raises(Fall):
        fit(PROGRAMS[kind](), "torn", at=falling_at(9), **words)
    torn = PROGRAMS[kind]()
    other = fit(torn, "torn", **words)
    assert same(weights(whole.model), weights(torn.model))
    assert one.metrics == other.metrics
    for name in ("loss", "grad_norm", "lr", "val_loss"):
        assert curve(one.run, name) == curve(other.run, name), name


def test_a_validation_is_the_mean_over_all_samples_and_changes_nothing(typed: Path) -> None:
    program = cnn()
    fitted = fit(program, metrics={"accuracy": accuracy}, validate_every=6)
    program.model.eval()
    inputs, targets = program.data[:20]
    with torch.no_grad():
        outputs = program.model(inputs)
        assert fitted.metrics["val_loss"] == pytest.approx(program.loss_fn(outputs, targets).item(), rel=1e-5)
        assert fitted.metrics["val_accuracy"] == pytest.approx(accuracy(outputs, targets).item())
    assert list(curve(fitted.run, "val_loss")) == [6, 12]
    bare = cnn()
    fit(bare, "bare", validate_every=1000)
    assert same(weights(bare.model), weights(program.model))


def test_epochs_are_passes_over_the_data(typed: Path) -> None:
    assert fit(mlp(), "a", max_steps=None, epochs=2).steps == 10
    assert fit(mlp(), "b", max_steps=None, epochs=0.5).steps == 3


def test_a_schedule_moves_with_epochs_where_that_is_wanted(typed: Path) -> None:
    program = mlp()
    program.scheduler = torch.optim.lr_scheduler.StepLR(program.optimizer, 1, 0.5)
    fitted = fit(program, schedule_by="epoch", log_every=1)
    assert list(curve(fitted.run, "lr").values()) == pytest.approx([0.1] * 5 + [0.05] * 5 + [0.025] * 2)


def test_a_plateau_is_told_of_validations(typed: Path) -> None:
    program = mlp()
    program.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        program.optimizer, patience=0, threshold=1e9, threshold_mode="abs"
    )
    fitted = fit(program, log_every=1, validate_every=3)
    assert list(curve(fitted.run, "lr").values()) == pytest.approx([0.1] * 6 + [0.01] * 3 + [0.001] * 3)


def test_the_checkpoint_of_the_lowest_validation_loss_is_kept(typed: Path) -> None:
    program = mlp()
    program.scheduler = None
    words = {"validate_every": 2, "checkpoint": clew.CheckpointConfig(every=2, keep_last=1), "params": {"lr": 0.5}}
    fitted = fit(program, max_steps=12, **words)
    losses = curve(fitted.run, "val_loss")
    best = min(losses, key=losses.__getitem__)
    kept = {int(path.name[5:]) for path in fitted.run.checkpoints.glob("step-*")}
    assert kept == {best, 12}


STEERING: list[tuple[str, dict[str, Any], int]] = [
    ("set", {"lr": "*0.5", "max_grad_norm": 0.1}, 2),
    ("evaluate", {}, 3),
    ("inspect", {"clusters": 2}, 3),
    ("select", {"recipe": "hardest 25%"}, 4),
    ("checkpoint", {"tag": "kept"}, 5),
    ("set", {"batch_size": 3}, 6),
    ("merge", {"sources": ["kept", "."], "method": "average", "optimizer": "keep"}, 7),
    ("reset", {"optimizer": True}, 8),
    ("health", {}, 9),
    ("select", {"recipe": "all"}, 10),
]


def steered(program: Program, name: str, folder: Path, at: Callable[[nn.Module], object] = lambda _: None) -> Fitted:
    """Fit a program that is told all of the script when it begins."""
    sent: list[Command] = []

    def tell(model: nn.Module) -> None:
        if not sent:
            inbox = Run(folder / "runs" / name).inbox
            sent.extend(inbox.post(Command(verb, args, at=at)) for verb, args, at in STEERING)
        at(model)

    return fit(program, name, at=tell)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_everything_that_can_be_asked_is_carried_out(kind: str, typed: Path) -> None:
    fitted = steered(PROGRAMS[kind](), "f", typed)
    told = [(event["verb"], event["at"], event["outcome"]) for event in fitted.run.events("command")]
    assert told == [(verb, at, "applied") for verb, _, at in STEERING]


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROGRAMS)
@pytest.mark.parametrize("fall", [5, 8, 11])
def test_a_steered_fit_that_fell_goes_on_bitwise(kind: str, fall: int, typed: Path) -> None:
    one = steered(whole := PROGRAMS[kind](), "whole", typed)
    with pytest.raises(Fall):
        steered(PROGRAMS[kind](), "torn", typed, falling_at(fall))
    torn = PROGRAMS[kind]()
    other = fit(torn, "torn")
    assert same(weights(whole.model), weights(torn.model))
    assert curve(one.run) == curve(other.run)


def test_the_hardest_samples_come_from_the_very_first_batch_on(typed: Path) -> None:
    program = mlp()
    seen: list[Tensor] = []
    points = program.data.tensors[0]

    def look(model: nn.Module, inputs: tuple[Tensor]) -> None:
        if model.training and not seen:
            Run(typed / "runs/f").inbox.post(Command("select", {"recipe": "hardest 20%"}, at=3))
        if model.training:
            seen.append(inputs[0].clone())

    with program.model.register_forward_pre_hook(look):
        fitted = fit(program, max_steps=6, validate_every=100)
    places = [{int((points == one).all(1).nonzero()[0]) for one in batch} for batch in seen]
    assert len(set.union(*places[:3])) > 8
    assert len(set.union(*places[3:6])) == 8
    assert [(event["at"], event["outcome"]) for event in fitted.run.events("command")] == [(3, "applied")]


def test_parameters_are_the_programs_own_unless_they_are_said(typed: Path) -> None:
    fit(mlp(), "a")
    text = (typed / "runs/a/config.yaml").read_text()
    for line in ("lr: 0.1", "momentum: 0.9", "batch_size: 8", "steps: 12", "max_grad_norm: null", "precision: fp32"):
        assert f"  {line}\n" in text
    program = mlp()
    fit(program, "b", params={"lr": 0.01, "batch_size": 4, "steps": 3})
    assert program.optimizer.param_groups[0]["initial_lr"] == 0.01
    assert Run(typed / "runs/b").result.metrics["lr"] == pytest.approx(0.01, rel=0.1)  # type: ignore[union-attr]


def test_a_fit_in_another_form_is_another_run(typed: Path) -> None:
    fit(mlp(), "a", max_steps=2)
    with pytest.raises(clew.UserError, match="it has completed already"):
        fit(mlp(), "a", max_steps=2)
    with pytest.raises(clew.UserError, match=r"params.steps: 2 → 3"):
        fit(mlp(), "a", max_steps=3)


def test_a_stopped_fit_returns_what_it_came_to_where_somebody_types(typed: Path) -> None:
    def stop(model: nn.Module) -> None:
        Run(typed / "runs/f").inbox.send("stop")

    fitted = fit(mlp(), at=stop)
    assert (fitted.steps, fitted.run.state) == (1, State.STOPPED)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"max_steps": None}, "say how far to go: max_steps=... or epochs=..."),
        ({"max_steps": 3, "epochs": 1}, "say how far to go: max_steps=... or epochs=..."),
    ],
)
def test_it_must_be_said_how_far_to_go(words: dict[str, Any], message: str, typed: Path) -> None:
    with pytest.raises(clew.UserError, match=message):
        fit(mlp(), **words)


def test_data_without_a_batch_size_is_refused(typed: Path) -> None:
    program = mlp()
    with pytest.raises(clew.UserError, match="the training data must say how large a batch is"):
        clew.Trainer(project="f").fit(program.model, program.optimizer, program.loss_fn, program.data, max_steps=2)
