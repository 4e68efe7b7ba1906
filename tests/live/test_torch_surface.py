"""Everything that can be asked of a PyTorch program, asked of programs of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch_support import COUNT, PROGRAMS, Program, cnn, decoder, mlp, same, weights

from clew.data.order import Ids
from clew.errors import DataError, NotFinite, UserError
from clew.inspection.samples import Part, Selection
from clew.live.torch_data import samples_of
from clew.live.torch_parts import gathered
from clew.live.torch_scoring import judge_of
from clew.live.torch_surface import TorchSurface
from clew.session import surface as asked
from clew.session.settings import Setting, chosen, write
from clew.session.surface import MergeRequest

EVERYTHING = [
    asked.Adjustable,
    asked.Timed,
    asked.Snapshotting,
    asked.Evaluable,
    asked.Resettable,
    asked.Selectable,
    asked.Scorable,
    asked.Mergeable,
    asked.Digestible,
    asked.Checkable,
]


def surface_of(program: Program, **more: Any) -> TorchSurface:
    """The surface of a program, as a session makes it."""
    words: dict[str, Any] = {
        "splits": {"train": samples_of(program.data)},
        "judge": judge_of(program.model, program.loss_fn, None),
        "batch_size": 8,
        "steps": 20,
        "max_grad_norm": None,
        "clips": True,
        **more,
    }
    return TorchSurface(gathered(program.model, program.optimizer, program.scheduler), **words)


def train(program: Program, surface: TorchSurface, steps: int) -> list[float]:
    """Make steps, and return their losses."""
    losses = []
    for _ in range(steps):
        loss = program.update(surface.batch())
        surface.finish_step({"loss": loss})
        losses.append(loss.item())
    return losses


def state_of(surface: TorchSurface, folder: Path) -> Mapping[str, str]:
    """Hashes of all files that it saves."""
    folder.mkdir(parents=True)
    surface.save(folder)
    return {
        path.name: path.read_text() if path.suffix == ".json" else str(path.read_bytes()) for path in folder.iterdir()
    }


def values(surface: TorchSurface) -> dict[str, Any]:
    return {setting.name: setting.read() for setting in surface.settings()}


def put(surface: TorchSurface, **given: Any) -> None:
    write(surface.settings(), chosen(surface.settings(), given))


def test_it_can_do_everything() -> None:
    surface = surface_of(mlp())
    assert [one for one in EVERYTHING if not isinstance(surface, one)] == []


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_state_is_complete(kind: str, tmp_path: Path) -> None:
    """A fresh program that loads it goes on bitwise, and saves the very same state."""
    program = PROGRAMS[kind]()
    surface = surface_of(program)
    train(program, surface, 5)
    saved = state_of(surface, tmp_path / "a")
    losses = train(program, surface, 5)
    torch.manual_seed(7)
    fresh = PROGRAMS[kind]()
    other = surface_of(fresh)
    train(fresh, other, 2)
    other.load(tmp_path / "a")
    assert state_of(other, tmp_path / "b") == saved
    assert train(fresh, other, 5) == losses
    assert same(weights(program.model), weights(fresh.model))
    assert surface.digests() == other.digests()


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_snapshot_is_what_a_save_would_have_been(kind: str, tmp_path: Path) -> None:
    program = PROGRAMS[kind]()
    surface = surface_of(program)
    train(program, surface, 4)
    saved = state_of(surface, tmp_path / "now")
    write = surface.snapshot()
    train(program, surface, 3)
    (tmp_path / "later").mkdir()
    write(tmp_path / "later")
    other = surface_of(PROGRAMS[kind]())
    other.load(tmp_path / "later")
    assert state_of(other, tmp_path / "again") == saved


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    program = decoder()
    surface = surface_of(program)
    train(program, surface, 3)
    surface.save(tmp_path)
    fresh = decoder()
    other = surface_of(fresh)
    other.load(tmp_path)
    assert fresh.model.head.weight is fresh.model.embed.weight  # type: ignore[union-attr]
    merged = other.merge(MergeRequest([tmp_path, None], ["a", "."], {"type": "average"}))
    assert fresh.model.head.weight is fresh.model.embed.weight  # type: ignore[union-attr]
    assert merged["tied"]
    assert same(weights(program.model), weights(fresh.model))


def test_several_models_and_optimizers_are_one_program(tmp_path: Path) -> None:
    def made() -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer], TorchSurface]:
        torch.manual_seed(0)
        models: dict[str, nn.Module] = {"generator": nn.Linear(2, 2), "critic": nn.Linear(2, 1)}
        optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(model.parameters(), lr=0.01 * (1 + place))
            for place, (name, model) in enumerate(models.items())
        }
        average = torch.optim.swa_utils.AveragedModel(models["generator"])
        return models, optimizers, TorchSurface(gathered(models, optimizers, extras={"average": average}))

    models, optimizers, surface = made()
    assert values(surface) == {
        "lr.generator": 0.01,
        "weight_decay.generator": 0.0,
        "lr.critic": 0.02,
        "weight_decay.critic": 0.0,
    }
    models["critic"](models["generator"](torch.ones(1, 2))).sum().backward()
    for optimizer in optimizers.values():
        optimizer.step()
    put(surface, **{"lr.critic": 0.5})
    surface.save(tmp_path)
    others, _, other = made()
    other.load(tmp_path)
    assert all(same(weights(models[name]), weights(others[name])) for name in models)
    assert surface.digests() == other.digests() or values(other)["lr.critic"] == 0.02


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_grad_scaler_is_part_of_the_state(precision: torch.dtype, tmp_path: Path) -> None:
    model = nn.Linear(2, 1, dtype=precision)
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**power) for power in (3, 10)]
    TorchSurface(gathered(model, scaler=scalers[0])).save(tmp_path)
    TorchSurface(gathered(model, scaler=scalers[1])).load(tmp_path)
    assert scalers[1].get_scale() == 8.0


def test_a_state_of_another_program_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    surface_of(mlp()).save(tmp_path)
    program = cnn()
    surface, before = surface_of(program), weights(program.model)
    for take in (surface.load, lambda path: surface.reset(path, optimizer=True)):
        with pytest.raises(DataError, match="the checkpoint is of another model: "):
            take(tmp_path)
    smaller = mlp()
    smaller.data = TensorDataset(*(part[:30] for part in smaller.data.tensors))
    with pytest.raises(DataError, match="the training samples are not those"):
        surface_of(smaller).load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="this is no checkpoint of such a program"):
        surface.load(tmp_path / "empty")
    assert same(weights(program.model), before)


def test_a_loss_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    surface = surface_of(mlp())
    surface.finish_step({"loss": torch.tensor(torch.inf), "other": torch.nan})
    with pytest.raises(NotFinite, match="at step 1"):
        surface.save(tmp_path)
    surface.reset(None, optimizer=False)
    surface.save(tmp_path)


# Settings.


def test_what_can_be_set_is_set(tmp_path: Path) -> None:
    program = decoder()
    surface = surface_of(program)
    put(surface, weight_decay=0.3, max_grad_norm=2, batch_size=5, steps=30)
    assert [group["weight_decay"] for group in program.optimizer.param_groups] == [0.3, 0.0]
    assert len(surface.batch()[0]) == 5
    assert (surface.max_grad_norm, surface.total_steps) == (2.0, 30)
    train(program, surface, 3)
    with pytest.raises(UserError, match="steps must be at least 4"):
        put(surface, steps=3)


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "none": lambda optimizer: None,
    "step": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
    "exponential": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12),
    "lambda": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "one cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=20),
    "sequential": lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
        ],
        [3],
    ),
    "cyclic": lambda optimizer: torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=3),
}


def rates(schedule: str, lr: float, change: float | None, at: int) -> list[float]:
    """The learning rates of ten steps, with one change."""
    parameter = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(parameter.parameters(), lr=lr, momentum=0.9)
    scheduler = SCHEDULES[schedule](optimizer)
    surface = TorchSurface(gathered(parameter, optimizer, scheduler), steps=10)
    found = []
    for step in range(10):
        if step == at and change is not None:
            put(surface, lr=f"*{change}")
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=15, deadline=None)
@given(factor=st.floats(0.01, 100), at=st.integers(0, 9))
def test_a_learning_rate_is_the_one_that_the_schedule_moves_from(schedule: str, factor: float, at: int) -> None:
    """Multiplied, it is multiplied in everything that follows, whatever the schedule."""
    plain, changed = rates(schedule, 0.1, None, 0), rates(schedule, 0.1, factor, at)
    assert changed[:at] == plain[:at]
    assert changed[at:] == pytest.approx([rate * factor for rate in plain[at:]], rel=1e-6, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(1e-6, 10), min_size=1, max_size=4), steps=st.integers(0, 3))
def test_going_back_to_a_rate_gives_the_very_same_numbers(values: list[float], steps: int) -> None:
    program = mlp()
    surface = surface_of(program)
    train(program, surface, steps)
    before = dict(program.optimizer.param_groups[0]), program.scheduler.state_dict()
    for value in values:
        put(surface, lr=value)
    assert surface.settings()[0].read() == values[-1]
    put(surface, lr=0.1)
    assert (dict(program.optimizer.param_groups[0]), program.scheduler.state_dict()) == before


def test_a_plateau_is_kept_when_the_same_rate_is_set_again(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    surface = TorchSurface(gathered(model, optimizer, scheduler))
    put(surface, lr=0.2)
    for _ in range(3):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == 0.05
    put(surface, lr=0.2)
    assert optimizer.param_groups[0]["lr"] == 0.05
    surface.save(tmp_path)
    fresh = torch.optim.SGD(model.parameters(), lr=0.1)
    other = TorchSurface(
        gathered(model, fresh, torch.optim.lr_scheduler.ReduceLROnPlateau(fresh, patience=0, factor=0.5))
    )
    other.load(tmp_path)
    assert (values(other)["lr"], fresh.param_groups[0]["lr"]) == (0.1, 0.025)
    put(other, lr=0.2)  # as a session does with what was set
    assert fresh.param_groups[0]["lr"] == 0.05


def test_numbers_of_the_program_hold_over_those_of_a_state(tmp_path: Path) -> None:
    """A fork says another learning rate or decay in its config; its state comes from its parent."""
    program = mlp()
    surface = surface_of(program)
    train(program, surface, 3)
    surface.save(tmp_path)
    half = program.optimizer.param_groups[0]["lr"] / 2
    child = mlp()
    other = surface_of(child)
    other.configure({"lr": 0.05, "weight_decay": 0.2, "unknown": 1})
    other.load(tmp_path)
    group = child.optimizer.param_groups[0]
    assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (half, 0.05, 0.2)
    assert child.scheduler.base_lrs == [0.05]


# Selections and scores.


def chosen_ids(*ids: int) -> Selection:
    return Selection((Part(np.array(ids, dtype=np.int64)),))


def test_a_selection_holds_from_the_very_next_batch(tmp_path: Path) -> None:
    program = mlp()
    surface = surface_of(program)
    surface.batch()
    surface.select(chosen_ids(3, 5, 7))
    points = program.data.tensors[0]
    batch = surface.batch()
    assert {tuple(one) for one in batch[0].tolist()} == {tuple(one) for one in points[[3, 5, 7]].tolist()}
    surface.save(tmp_path)
    other = surface_of(mlp())
    other.load(tmp_path)
    assert torch.equal(other.batch()[0], surface.batch()[0])
    with pytest.raises(DataError, match="a selection must name samples from 0 to 39"):
        surface.select(chosen_ids(40))
    surface.select(None)
    assert surface.feed is not None and surface.feed.selection is None


def all_ids() -> Ids:
    return np.arange(COUNT, dtype=np.int64)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_scores_are_those_of_single_samples(kind: str) -> None:
    program = PROGRAMS[kind]()
    surface = surface_of(program)
    train(program, surface, 2)
    before, random = weights(program.model), torch.get_rng_state()
    scorer = surface.scorer("train")
    scores = scorer.score(all_ids())
    assert len(scorer) == COUNT
    program.model.eval()
    with torch.no_grad():
        single = [
            float(program.loss_fn(program.model(inputs[None]), targets[None])) for inputs, targets in program.data
        ]
    program.model.train()
    assert scores.loss == pytest.approx(single, rel=1e-4)
    assert scores.margin is not None and scores.margin.shape == (COUNT,)
    assert scores.embedding is not None
    assert scores.embedding.shape == (COUNT, {"mlp": 8, "cnn": 64, "decoder": 8}[kind])
    assert same(weights(program.model), before)
    assert torch.equal(torch.get_rng_state(), random)
    few = scorer.score(np.array([5, 2], dtype=np.int64))
    assert few.loss == pytest.approx(scores.loss[[5, 2]], rel=1e-5)


def test_margins_are_of_the_right_class_against_the_best_wrong_one() -> None:
    program = mlp()
    program.model = nn.Identity()
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.5, 2.0]])
    program.data = TensorDataset(logits, torch.tensor([0, 1]))
    surface = TorchSurface(
        gathered(program.model),
        splits={"train": samples_of(program.data)},
        judge=judge_of(program.model, F.cross_entropy, None),
        batch_size=2,
    )
    scores = surface.scorer("train").score(np.array([0, 1], dtype=np.int64))
    assert scores.margin == pytest.approx([2.0, -1.5])
    assert scores.embedding is None


def test_regression_has_losses_and_no_margins() -> None:
    model = nn.Linear(2, 3)
    data = TensorDataset(torch.randn(6, 2), torch.randn(6, 3))
    surface = TorchSurface(
        gathered(model),
        splits={"train": samples_of(DataLoader(data, batch_size=4))},
        judge=judge_of(model, nn.MSELoss(), None),
    )
    scores = surface.scorer("train").score(np.arange(6, dtype=np.int64))
    with torch.no_grad():
        assert scores.loss == pytest.approx(
            (model(data.tensors[0]) - data.tensors[1]).square().mean(1).numpy(), rel=1e-5
        )
    assert scores.margin is None
    assert surface.scorer("train").fields(np.array([1], dtype=np.int64)) == [{"number": 1, "text": "", "length": 2}]


def test_targets_that_do_not_count_are_left_out() -> None:
    model = nn.Identity()
    logits = torch.randn(3, 4, 5)
    targets = torch.tensor([[1, -100, 2, 3], [-100, -100, 0, -100], [-100] * 4])
    judge = judge_of(model, lambda outputs, wanted: F.cross_entropy(outputs.flatten(0, 1), wanted.flatten()), None)
    of_function = judge((logits, targets)).losses
    of_module = judge_of(model, nn.CrossEntropyLoss(), None)((logits.movedim(2, 1), targets)).losses
    assert torch.allclose(of_function, of_module, equal_nan=True)
    assert of_function.isnan().tolist() == [False, False, True]


def test_losses_of_the_programs_own_are_taken() -> None:
    program = mlp()
    judge = judge_of(program.model, None, lambda batch: batch[0].sum(1))
    scores = surface_of(program, judge=judge).scorer("train").score(all_ids())
    assert scores.loss == pytest.approx(program.data.tensors[0].sum(1).numpy(), rel=1e-6)
    wrong = judge_of(program.model, None, lambda batch: batch[0])
    with pytest.raises(UserError, match=r"there must be 40 losses for so many samples, not \(40, 3\)"):
        surface_of(program, judge=wrong).scorer("train").score(all_ids())


@pytest.mark.parametrize(
    ("more", "ask", "message"),
    [
        ({}, lambda surface: surface.evaluate(), "there is nothing to evaluate"),
        ({}, lambda surface: surface.scorer("test"), "this run has no split 'test'; known: train"),
        ({"judge": None}, lambda surface: surface.scorer("train"), "nobody knows how well the model knows a single"),
        ({"splits": {}}, lambda surface: surface.select(None), "the session knows no data to choose from"),
        (
            {"judge": None},
            lambda surface: surface.merge(MergeRequest([None, None], [".", "."], {"type": "fisher"})),
            "cannot estimate the Fisher information",
        ),
    ],
)
def test_what_a_program_cannot_do_it_says(
    more: dict[str, Any], ask: Callable[[TorchSurface], object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ask(surface_of(mlp(), **more))


def test_an_evaluation_changes_nothing() -> None:
    program = cnn()
    seen: list[bool] = []

    def evaluate() -> dict[str, Tensor]:
        seen.append(program.model.training)
        torch.rand(3)
        return {"mean": program.model(program.data.tensors[0]).mean()}

    surface = surface_of(program, evaluate=evaluate)
    train(program, surface, 1)
    program.model[4].eval()  # type: ignore[index]
    before, random = weights(program.model), torch.get_rng_state()
    found = [surface.evaluate() for _ in range(2)]
    assert found[0] == found[1]
    assert (seen, type(found[0]["mean"])) == ([False, False], float)
    assert same(weights(program.model), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in program.model.modules()] == [True, True, True, True, True, False, True]


# Going back, and merging.


def test_a_reset_takes_weights_and_moments_and_lets_the_rest_go_on(tmp_path: Path) -> None:
    program = mlp()
    surface = surface_of(program)
    train(program, surface, 3)
    surface.save(tmp_path)
    kept, moments = weights(program.model), program.optimizer.state_dict()["state"][0]["momentum_buffer"].clone()
    train(program, surface, 4)
    rate = program.optimizer.param_groups[0]["lr"]
    surface.reset(tmp_path, optimizer=False)
    assert same(weights(program.model), kept)
    assert torch.equal(program.optimizer.state_dict()["state"][0]["momentum_buffer"], moments)
    assert (surface.step_number, program.optimizer.param_groups[0]["lr"]) == (7, rate)
    assert surface.feed is not None and surface.feed.samples_seen == 7 * 8
    surface.reset(None, optimizer=True)
    assert same(weights(program.model), kept)
    assert program.optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_merging_a_program_with_itself_changes_nothing(kind: str, tmp_path: Path) -> None:
    program = PROGRAMS[kind]()
    surface = surface_of(program)
    train(program, surface, 3)
    surface.save(tmp_path)
    before = weights(program.model)
    for method in ("average", "slerp", "fisher"):
        surface.merge(MergeRequest([tmp_path, None], ["a", "."], {"type": method}, optimizer="keep"))
        assert same(weights(program.model), before), method
    assert program.optimizer.state_dict()["state"]
    surface.merge(MergeRequest([tmp_path, None], ["a", "."], {"type": "average"}))
    assert not program.optimizer.state_dict()["state"]


def test_a_merge_is_the_mean_of_weights(tmp_path: Path) -> None:
    program = mlp()
    surface = surface_of(program)
    surface.save(tmp_path)
    first = weights(program.model)
    train(program, surface, 5)
    second = weights(program.model)
    surface.merge(MergeRequest([tmp_path, None], ["a", "."], {"type": "linear"}, weights=(0.25, 0.75)))
    for name, one in weights(program.model).items():
        assert torch.allclose(one, 0.25 * first[name] + 0.75 * second[name])


def test_health_looks_at_the_model_and_changes_nothing() -> None:
    program = cnn()
    surface = surface_of(program)
    train(program, surface, 3)
    before, random = weights(program.model), torch.get_rng_state()
    report = surface.health()
    assert report["verdict"] in ("well", "look", "bad")
    assert report["step"] == 3
    assert report["activations"]
    assert same(weights(program.model), before)
    assert torch.equal(torch.get_rng_state(), random)


def test_what_others_put_around_a_model_is_taken_off() -> None:
    program = mlp()
    wrapped = nn.DataParallel(program.model)
    assert gathered(wrapped).models["model"] is program.model
    accelerate = pytest.importorskip("accelerate")
    prepared = accelerate.Accelerator(cpu=True).prepare(program.model, program.optimizer, program.scheduler)
    parts = gathered(*prepared)
    assert parts.models["model"] is program.model
    assert (parts.optimizers, parts.schedulers) == ({"optimizer": program.optimizer}, {"scheduler": program.scheduler})


def test_settings_say_over_which_parameters_they_stand() -> None:
    surface = surface_of(mlp(), keys=lambda name: f"params.{name}")
    assert all(isinstance(one, Setting) and one.key == f"params.{one.name}" for one in surface.settings())
