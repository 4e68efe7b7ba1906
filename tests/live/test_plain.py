"""A plain PyTorch loop in a session: steered, killed and resumed bitwise, on its own data or on ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_support import PROGRAMS, Program, apart, curve, mlp, same, typed, weights

import clew
from clew.health.probe import kept
from clew.live.window import Window
from clew.runs import Command, Run, State
from clew.session.surface import LiveConfig

__all__ = ["typed"]
STEPS = 12


def train(
    make: Callable[[], Program],
    name: str = "p",
    *,
    steps: int = STEPS,
    at: Callable[[clew.Session[Any], int], None] = lambda session, step: None,
    **words: Any,
) -> Program:
    """Run a program's loop in a session; ``at`` is called before each boundary."""

    def body() -> Program:
        program = make()
        said: dict[str, Any] = {"checkpoint": 5, "log_every": 3, "steps": steps, **program.words, **words}
        with clew.session(name, **said) as live:
            for batch in live.batches():
                loss = program.update(batch)
                at(live.session, live.step_number + 1)
                live.step(loss=loss)
        return program

    done: Program = apart(body)
    return done


def failing(step: int) -> Callable[[clew.Session[Any], int], None]:
    """Fail in the middle of a step, in the first attempt."""

    def fail(session: clew.Session[Any], now: int) -> None:
        if now == step and session.attempt == 1:
            raise ArithmeticError("the power went")

    return fail


def asking(script: list[tuple[str, dict[str, Any], int]]) -> Callable[[clew.Session[Any], int], None]:
    """Send commands before the first step."""

    def ask(session: clew.Session[Any], now: int) -> None:
        if now == 1:
            for verb, args, at in script:
                session.run.inbox.post(Command(verb, args, at=at))

    return ask


def outcomes(run: Run) -> list[tuple[str, int, str]]:
    return [(event["verb"], event["at"], event["outcome"].partition(";")[0]) for event in run.events("command")]


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_program_that_fell_goes_on_bitwise(kind: str, typed: Path) -> None:
    whole = train(PROGRAMS[kind], "whole")
    with pytest.raises(ArithmeticError):
        train(PROGRAMS[kind], "torn", at=failing(9))
    torn = train(PROGRAMS[kind], "torn", at=failing(9))
    runs = [Run(typed / "runs" / name) for name in ("whole", "torn")]
    assert same(weights(whole.model), weights(torn.model))
    assert curve(runs[0]) == curve(runs[1])
    assert list(curve(runs[0])) == [3, 6, 9, 12]
    assert [event["step"] for event in runs[1].events("restore")] == [0, 7]
    digests = [[(event["weights"], event["optimizer"]) for event in run.events("digest")] for run in runs]
    assert digests[0] == digests[1] != []


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_session_changes_nothing_of_a_training(kind: str, typed: Path) -> None:
    """The same loop over the same batches without a session gives the same weights."""
    batches: list[Any] = []
    within = PROGRAMS[kind]()

    def body() -> None:
        with clew.session("p", steps=STEPS, checkpoint=5, **within.words) as live:
            for batch in live.batches():
                batches.append(batch)
                live.step(loss=within.update(batch))

    apart(body)
    without = PROGRAMS[kind]()
    for batch in batches:
        without.update(batch)
    assert same(weights(within.model), weights(without.model))


def test_commands_are_carried_out(typed: Path) -> None:
    script: list[tuple[str, dict[str, Any], int]] = [
        ("note", {"text": "it begins"}, 1),
        ("set", {"lr": 0.05, "momentum": 0.5}, 2),
        ("set", {"speed": 3}, 2),
        ("checkpoint", {"tag": "early"}, 3),
        ("set", {"batch_size": 4}, 4),
        ("evaluate", {}, 6),
        ("reset", {"to": "early"}, 7),
        ("set", {"steps": 10}, 8),
        ("stop", {}, 10),
    ]
    train(mlp, at=asking(script), evaluate=lambda: {"one": 1})
    run = Run(typed / "runs/p")
    assert outcomes(run) == [
        ("note", 1, "applied"),
        ("set", 2, "applied"),
        ("set", 2, "rejected: there is no setting 'speed'"),
        ("checkpoint", 3, "applied"),
        ("set", 4, "applied"),
        ("evaluate", 6, "applied"),
        ("reset", 7, "applied"),
        ("set", 8, "applied"),
        ("stop", 10, "applied"),
    ]
    assert run.state is State.STOPPED


STEERING: list[tuple[str, dict[str, Any], int]] = [
    ("set", {"lr": 0.03}, 2),
    ("set", {"batch_size": 5}, 3),
    ("set", {"weight_decay": 0.1}, 6),
    ("checkpoint", {"tag": "kept"}, 7),
    ("set", {"lr": 0.07}, 7),
]


@pytest.mark.parametrize("fall", [4, 6, 8, 11])
def test_a_steered_program_that_fell_goes_on_bitwise(fall: int, typed: Path) -> None:
    whole = train(mlp, "whole", at=asking(STEERING))
    steer = asking(STEERING)

    def both(session: clew.Session[Any], now: int) -> None:
        if session.attempt == 1:
            steer(session, now)
        failing(fall)(session, now)

    with pytest.raises(ArithmeticError):
        train(mlp, "torn", at=both)
    torn = train(mlp, "torn", at=both)
    assert same(weights(whole.model), weights(torn.model))
    assert curve(Run(typed / "runs/whole")) == curve(Run(typed / "runs/torn"))


def test_another_batch_size_keeps_the_stream_of_samples(typed: Path) -> None:
    def seen(script: list[tuple[str, dict[str, Any], int]], name: str) -> list[int]:
        found: list[int] = []

        def body() -> None:
            numbers, module = torch.arange(40), torch.nn.Linear(1, 1)
            with clew.session(name, model=module, data=numbers, batch_size=8, steps=10) as live:
                for batch in live.batches():
                    found.extend(batch.tolist())
                    asking(script)(live.session, live.step_number + 1)
                    live.step()

        apart(body)
        return found

    plain, changed = seen([], "plain"), seen([("set", {"batch_size": 3}, 2)], "changed")
    assert len(changed) == 2 * 8 + 8 * 3
    assert changed == plain[: len(changed)]
    assert sorted(plain[:40]) == list(range(40))


def test_a_loop_with_data_of_its_own_is_steered_too(typed: Path) -> None:
    def body() -> None:
        program = mlp()
        words = {"model": program.model, "optimizer": program.optimizer, "scheduler": program.scheduler}
        with clew.session("own", steps=6, **words) as live:
            while not live.is_over:
                asking([("set", {"batch_size": 2}, 1), ("set", {"lr": 0.01}, 2)])(live.session, live.step_number + 1)
                live.step(loss=program.update(program.data[:8]))
            with pytest.raises(clew.UserError, match="the session knows no data"):
                next(live.batches())

    apart(body)
    assert outcomes(Run(typed / "runs/own")) == [
        ("set", 1, "rejected: there is no setting 'batch_size'"),
        ("set", 2, "applied"),
    ]


def test_parameters_that_are_called_like_settings_are_in_force(typed: Path) -> None:
    def body() -> tuple[float, int, int | None]:
        program = mlp()
        params = {"lr": 0.02, "batch_size": 4, "steps": 3, "free": "word"}
        with clew.session("p", params=params, steps=9, **program.words) as live:
            assert live.params == params
            keys = {one.name: one.key for one in live.surface.settings()}
            assert keys == {
                "lr": "params.lr",
                "weight_decay": "",
                "momentum": "",
                "batch_size": "params.batch_size",
                "steps": "params.steps",
            }
            assert live.surface.feed is not None
            return program.optimizer.param_groups[0]["initial_lr"], live.surface.feed.batch_size, live.total_steps

    assert apart(body) == (0.02, 4, 3)


def test_a_loss_that_is_not_finite_fails_the_run_at_the_next_log(typed: Path) -> None:
    def poison(session: clew.Session[Any], now: int) -> None:
        if now == 7:
            with torch.no_grad():
                model[0].model[0].weight.fill_(torch.nan)

    model: list[Any] = []

    def make() -> Program:
        model[:] = [mlp()]
        return model[0]

    with pytest.raises(clew.RunFailed, match="the loss is no longer finite at step 9"):
        train(make, at=poison, checkpoint=clew.CheckpointConfig(every=5, halfway=False))
    assert sorted(path.name for path in (typed / "runs/p/checkpoints").glob("step-*")) == ["step-00000005"]


def test_weights_that_are_not_finite_are_not_saved_though_the_loss_still_was(typed: Path) -> None:
    def poison(session: clew.Session[Any], now: int) -> None:
        if now == 7:
            with torch.no_grad():
                model[0].model[0].weight[0, 0] = torch.inf

    model: list[Any] = []

    def make() -> Program:
        model[:] = [mlp()]
        return model[0]

    with pytest.raises(clew.RunFailed, match="the weights are no longer finite at step 7"):
        train(make, at=poison)
    assert sorted(path.name for path in (typed / "runs/p/checkpoints").glob("step-*")) == ["step-00000005"]


@pytest.mark.parametrize(("halfway", "at"), [(True, 7), (False, 9)])
def test_a_loss_that_is_not_finite_rolls_back_where_that_is_wanted(halfway: bool, at: int, typed: Path) -> None:
    def poison(session: clew.Session[Any], now: int) -> None:
        if now == 7:
            with torch.no_grad():
                model[0].model[0].weight.fill_(torch.nan)

    model: list[Any] = []

    def make() -> Program:
        model[:] = [mlp()]
        return model[0]

    policy = clew.CheckpointConfig(every=5, halfway=halfway)
    program = train(make, at=poison, live=LiveConfig(on_nan="rollback"), checkpoint=policy)
    run = Run(typed / "runs/p")
    assert run.state is State.COMPLETED
    assert [(event["verb"], event["at"]) for event in run.events("command")] == [("reset", at)]
    assert all(one.isfinite().all() for one in weights(program.model).values())


def test_gradients_are_clipped_where_it_was_set(typed: Path) -> None:
    def body() -> list[float]:
        program, norms = mlp(), []
        with clew.session("p", steps=4, max_grad_norm=None, **program.words) as live:
            for inputs, targets in live.batches():
                program.loss_fn(program.model(inputs), targets).backward()
                live.clip_gradients()
                norms.append(float(torch.nn.utils.get_total_norm([one.grad for one in program.model.parameters()])))
                asking([("set", {"max_grad_norm": 0.01}, 2)])(live.session, live.step_number + 1)
                live.step()
                program.optimizer.zero_grad()
        return norms

    first, second, third, fourth = apart(body)
    assert min(first, second) > 0.02
    assert max(third, fourth) == pytest.approx(0.01, rel=1e-3)


def test_what_trains_may_be_said_inside(typed: Path) -> None:
    def body() -> int:
        with clew.session("p", params={"width": 5}) as live:
            with pytest.raises(clew.UserError, match="nobody has said what trains"):
                live.step()
            model = torch.nn.Linear(live.params["width"], 1)
            live.attach(model=model, data=torch.zeros(4, 5), batch_size=2, steps=3)
            for _ in live.batches():
                live.step()
            return live.step_number

    assert apart(body) == 3


def test_a_run_under_another_config_takes_its_parameters(typed: Path) -> None:
    """As it is for a script that `clew run` or a fork starts."""
    from types import SimpleNamespace

    from clew.live.script import surrounded

    def body() -> Any:
        config = SimpleNamespace(params={"lr": 3.0})
        run = SimpleNamespace(id="x")
        around: Any = SimpleNamespace(config=config, run=run)
        with surrounded(around), clew.session("p", params={"lr": 1.0, "width": 2}) as live:
            return dict(live.params)

    assert apart(body) == {"lr": 3.0, "width": 2}


@pytest.mark.parametrize(
    ("word", "meant"), [("optimiser", "optimizer"), ("batchsize", "batch_size"), ("checkpoints", "checkpoint")]
)
def test_a_word_that_nobody_knows_makes_no_run(word: str, meant: str, typed: Path) -> None:
    def body() -> None:
        with clew.session("p", **mlp().words, **{word: 1}):
            pass

    def attached() -> None:
        with clew.session("q") as live:
            live.attach(**mlp().words, **{word: 1})

    for wrong in (body, attached):
        with pytest.raises(
            clew.UserError, match=f"clew.session: a session knows no '{word}'\n  did you mean '{meant}'"
        ):
            apart(wrong)
    assert not (typed / "runs/p").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"model": None}, "there is no model"),
        ({"model": 3}, "model must be a Module, not a int"),
        ({"optimizer": "adam"}, "optimizer must be a Optimizer"),
        ({"extras": {"ema": 1}}, "ema must be something with state_dict"),
        ({"data": iter([])}, "a list_iterator has no numbered samples"),
        ({"data": torch.zeros(0, 2)}, "there is no sample in it"),
        ({"batch_size": None}, "nobody knows how large a batch is"),
        ({"params": {"lr": -1}}, "lr must be above 0, not -1"),
    ],
)
def test_what_cannot_train_is_said(words: dict[str, Any], message: str, typed: Path) -> None:
    def body() -> None:
        with clew.session("p", **{**mlp().words, "steps": 1, **words}):
            pass

    with pytest.raises(clew.UserError, match=message):
        apart(body)


def test_what_lies_on_a_device_waits_there_and_is_fetched_together(
    typed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    transfer = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: fetched.append(1) or transfer(tensor))
    monkeypatch.setattr("clew.live.window.noted", kept)  # as it is on a device

    def body() -> None:
        words = {"live": LiveConfig(digest_every=None), "data": torch.zeros(40, 1), "batch_size": 8}
        with clew.session("p", steps=20, log_every=10, model=torch.nn.Linear(1, 1), **words) as live:
            for number, _ in enumerate(live.batches()):
                live.step(loss=torch.tensor(float(number)), other=torch.tensor(1.0))

    apart(body)
    assert len(fetched) <= 3
    assert curve(Run(typed / "runs/p")) == {10: 4.5, 20: 14.5}


def test_a_step_does_not_ask_a_device_for_a_number() -> None:
    window = Window()
    loss = torch.zeros((), device="meta")  # a device that has none to give
    for _ in range(3):
        assert window.add({"loss": loss, "seen": 8})["seen"] == 8
    with pytest.raises(NotImplementedError):
        window.means()
