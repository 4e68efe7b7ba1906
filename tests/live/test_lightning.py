"""Lightning's trainer as a live run: saved and resumed in mid-epoch, steered at its boundaries."""

from __future__ import annotations

import os
import shutil
import signal

import lightning
import numpy as np
import pytest
import torch
from lightning_support import WARNINGS, Cnn, Fit, Mlp, loader, metrics_of, new_run, new_trainer, samples, weights
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from clew.errors import NotFinite, UserError
from clew.inspection.samples import Part, Selection
from clew.live.lightning import attach
from clew.live.lightning_surface import LightningSurface
from clew.runs import Command, Run, RunInfo, State
from clew.runs.run import stage_run
from clew.session import Session
from clew.session.lifecycle import Fetched, Lifecycle

pytestmark = WARNINGS


class Killed(BaseException):
    """Nothing more happens in this process."""


@pytest.fixture
def killing(monkeypatch):
    """Let the process be gone in the middle of a step."""

    def kill(fit, run, step):
        boundary = Session.boundary

        def dying(session, done, **more):
            if done == step:
                raise Killed
            boundary(session, done, **more)

        with monkeypatch.context() as patch:
            patch.setattr(Session, "boundary", dying)
            with pytest.raises(Killed):
                fit(run)

    return kill


def told(run):
    events = sorted(run.events("command"), key=lambda event: event["at"])
    return [(event["verb"], event["at"], event["outcome"]) for event in events]


def flat(batches):
    return [number for batch in batches for number in batch]


def steered(folder, *script):
    run = new_run(folder)
    for verb, args, at in script:
        run.inbox.post(Command(verb, args, at=at))
    return run


def child_of(run, folder, step):
    """A run that begins with another one's checkpoint."""
    child = new_run(folder)
    name = f"step-{step:08d}"
    shutil.copytree(run.checkpoints / name, child.checkpoints / name)
    return child


def at_boundary(monkeypatch, step, act):
    """Do something with the surface where the session stands after a step."""
    boundary = Session.boundary

    def standing(session, done, **more):
        boundary(session, done, **more)
        if done == step:
            act(session._saver.surface)

    monkeypatch.setattr(Session, "boundary", standing)


FITS = {
    "mlp": Fit(),
    "cnn": Fit(Cnn),
    "accumulated": Fit(accumulate_grad_batches=3),
    "by epochs": Fit(max_steps=-1, max_epochs=3),
    "validated in the epoch": Fit(lambda: Mlp("adamw"), val_check_interval=3),
    "without validation": Fit(validation=False),
    "in order": Fit(data=lambda: loader(shuffle=False)),
}


@pytest.mark.parametrize("name", FITS)
def test_a_fit_that_is_killed_and_resumed_ends_as_one_that_was_left_alone(name, tmp_path, killing):
    fit = FITS[name]
    calm = new_run(tmp_path / "calm")
    module = fit(calm)
    disturbed = new_run(tmp_path / "disturbed")
    for step in (7, 13, 21):
        killing(fit, disturbed, step)
    again = fit(disturbed)
    assert calm.state is disturbed.state is State.COMPLETED
    assert max(metrics_of(calm)) == (24 if name != "by epochs" else 30)
    assert weights(again) == weights(module)
    assert metrics_of(disturbed) == metrics_of(calm)


class Sampled(Mlp):
    """Counts its hits with a torchmetrics metric, and draws from every generator."""

    def __init__(self):
        from torchmetrics.classification import MulticlassAccuracy

        super().__init__()
        self.hits = MulticlassAccuracy(3)

    def training_step(self, batch, batch_idx):
        inputs, labels, _ = batch
        self.hits(self(inputs), labels)
        self.log("hits", self.hits, on_step=False, on_epoch=True)
        self.log("largest", inputs.max(), on_step=False, on_epoch=True, reduce_fx=max)
        noise = torch.randn(1) + float(np.random.random())
        return super().training_step([inputs + noise, labels, batch[2]], batch_idx)


class Plateau(Mlp):
    """A rate that falls when the validation, which happens within the epoch, gets no better."""

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss", "interval": "step", "frequency": 5},
        }


HARDER = {
    "metrics": Fit(Sampled),
    "plateau": Fit(Plateau, val_check_interval=5),
    "sanity checks": Fit(num_sanity_val_steps=2),
    "half precision": Fit(precision="bf16-mixed"),
    "clipping": Fit(gradient_clip_val=0.1),
}


@pytest.mark.parametrize("name", HARDER)
def test_what_lightning_itself_forgets_at_a_resume_is_kept(name, tmp_path, killing):
    fit = HARDER[name]
    calm, disturbed = new_run(tmp_path / "calm"), new_run(tmp_path / "disturbed")
    module = fit(calm)
    for step in (6, 12, 22):
        killing(fit, disturbed, step)
    assert weights(fit(disturbed)) == weights(module)
    assert metrics_of(disturbed) == metrics_of(calm)


@pytest.mark.parametrize("name", ["mlp", *list(HARDER)[:1]])
def test_a_fit_whose_checkpoints_are_gone_goes_on_from_where_their_copies_are(name, tmp_path, killing, monkeypatch):
    fit = (FITS | HARDER)[name]
    calm, disturbed = new_run(tmp_path / "calm"), new_run(tmp_path / "disturbed")
    module = fit(calm)
    killing(fit, disturbed, 13)
    disturbed.checkpoints.rename(tmp_path / "copies")
    disturbed.make_folders()

    def fetch(self, run, attempt, steps):
        name = f"step-{max(steps):08d}"
        shutil.copytree(tmp_path / "copies" / name, run.checkpoints / name)
        return Fetched(max(steps), "elsewhere", 1, 1)

    monkeypatch.setattr(Lifecycle, "fetch", fetch)
    assert weights(fit(disturbed)) == weights(module)
    assert metrics_of(disturbed) == metrics_of(calm)
    assert len(list(disturbed.events("checkpoint_fetched"))) == 1


def test_callbacks_keep_their_state_and_their_pickle_is_never_written(tmp_path, killing):
    def fit_with_patience(run):
        stopping = lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=2, min_delta=0.05)
        fit = Fit(lambda: Mlp(lr=0.3), max_steps=200, callbacks=[stopping])
        return fit(run), stopping

    calm, disturbed = new_run(tmp_path / "calm"), new_run(tmp_path / "disturbed")
    module, stopping = fit_with_patience(calm)
    assert stopping.stopped_epoch > 0 and max(metrics_of(calm)) < 200
    last = max(metrics_of(calm))
    killing(lambda run: fit_with_patience(run), disturbed, last - 3)
    again, once_more = fit_with_patience(disturbed)
    assert once_more.wait_count == stopping.wait_count
    assert weights(again) == weights(module)
    assert metrics_of(disturbed) == metrics_of(calm)
    kinds = {path.suffix for path in disturbed.checkpoints.rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json"}


def test_a_run_that_died_after_its_last_step_makes_no_further_one(tmp_path, killing):
    def fit(run):
        stopping = lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=1, min_delta=9.0)
        return Fit(max_steps=200, every=20, callbacks=[stopping])(run)

    run = new_run(tmp_path)
    calm = fit(run)
    assert max(metrics_of(run)) == 20
    # The state of the last boundary is there, and the process died before it could say that it was done.
    again = new_run(tmp_path / "again")
    shutil.copytree(run.checkpoints, again.checkpoints, dirs_exist_ok=True)
    module = fit(again)
    assert module.batches == [] and metrics_of(again) == {}
    assert weights(module) == weights(calm)


def test_the_state_of_the_last_step_is_kept_whatever_is_due(tmp_path):
    run = new_run(tmp_path)
    Fit(every=1000)(run)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000024"]


def test_a_child_of_a_finished_run_goes_on_with_more_steps(tmp_path):
    parent = new_run(tmp_path / "parent")
    Fit(every=24)(parent)
    child = child_of(parent, tmp_path / "child", 24)
    module = Fit(max_steps=40)(child)
    assert child.state is State.COMPLETED
    assert sorted(metrics_of(child)) == list(range(25, 41))
    whole = Fit(max_steps=40)(new_run(tmp_path / "whole"))
    # The data goes on where it was, though Lightning begins an epoch.
    assert [*Fit()(new_run(tmp_path / "first")).batches, *module.batches] == whole.batches


def test_a_child_in_mid_epoch_that_changes_nothing_is_its_parent(tmp_path):
    parent = new_run(tmp_path / "parent")
    module = Fit(every=7)(parent)
    child = child_of(parent, tmp_path / "child", 14)
    assert weights(Fit(every=7)(child)) == weights(module)
    assert metrics_of(child) == {step: values for step, values in metrics_of(parent).items() if step > 14}


def test_numbers_that_are_set_hold_from_the_next_step_on_also_after_a_kill(tmp_path, killing):
    fit, ends = Fit(lambda: Mlp("adamw")), {}
    for changed in ({"lr": 0.001}, {"weight_decay": 0.9}, {"gradient_clip_val": 1e-6}, {"batch_size": 2}):
        script = [("set", changed, 8), ("set", {"steps": 20}, 8)]
        calm, disturbed = steered(tmp_path / f"calm{changed}", *script), steered(tmp_path / f"killed{changed}", *script)
        module = fit(calm)
        for step in (9, 17):
            killing(fit, disturbed, step)
        assert weights(fit(disturbed)) == weights(module)
        assert metrics_of(disturbed) == metrics_of(calm)
        assert told(disturbed) == [("set", 8, "applied")] * 2
        assert max(metrics_of(calm)) == 20
        ends[next(iter(changed))] = (weights(module), module.batches, metrics_of(calm))
    assert len({repr(one[0]) for one in ends.values()}) == 4
    rates = {step: values["lr"] for step, values in ends["lr"][2].items()}
    usual = {step: values["lr"] for step, values in ends["weight_decay"][2].items()}
    # The schedule goes on where it is, from another height.
    assert rates == pytest.approx({step: rate * (0.02 if step > 8 else 1) for step, rate in usual.items()})
    sizes = [len(batch) for batch in ends["batch_size"][1]]
    assert sizes == [4] * 8 + [2] * 12
    assert flat(ends["batch_size"][1]) == flat(ends["lr"][1])[: sum(sizes)]


class Halved(Mlp):
    """Biases never decay."""

    def configure_optimizers(self):
        biases = [one for one in self.parameters() if one.ndim == 1]
        others = [one for one in self.parameters() if one.ndim > 1]
        groups = [{"params": biases, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.1, "lr": 0.02}]
        return torch.optim.AdamW(groups, lr=0.01)


def test_groups_keep_what_sets_them_apart(tmp_path, killing, monkeypatch):
    fit, seen = Fit(Halved, max_steps=18), []
    run = steered(tmp_path, ("set", {"weight_decay": 0, "lr": 0.002}, 3), ("set", {"weight_decay": 0.3}, 12))
    killing(fit, run, 8)
    at_boundary(monkeypatch, 13, lambda surface: seen.extend(surface._trainer.optimizers[0].param_groups))
    fit(run)
    assert [(group["weight_decay"], group["lr"]) for group in seen] == [(0.0, 0.002), (0.3, 0.004)]


def test_momentum_can_be_set_where_there_is_one(tmp_path):
    run = steered(tmp_path / "sgd", ("set", {"momentum": 0.5}, 2), ("set", {"momentum": 2}, 3))
    Fit(max_steps=4)(run)
    assert [outcome[:40] for *_, outcome in told(run)] == ["applied", "rejected: momentum must be at least 0 an"]
    run = steered(tmp_path / "adamw", ("set", {"momentum": 0.5}, 2))
    Fit(lambda: Mlp("adamw"), max_steps=4)(run)
    assert told(run)[0][2].startswith("rejected: there is no setting 'momentum'")


def test_what_is_selected_is_the_very_next_batch_and_stays_so_after_a_kill(tmp_path, killing, monkeypatch):
    chosen = [3, 5, 7, 11, 13, 17]
    selection = Selection((Part(np.array(chosen)),), {"text": "ids"})
    with monkeypatch.context() as patch:
        at_boundary(patch, 6, lambda surface: surface.select(selection))
        calm, disturbed = new_run(tmp_path / "calm"), new_run(tmp_path / "disturbed")
        module = Fit(every=7)(calm)
        killing(Fit(every=7), disturbed, 12)
    again = Fit(every=7)(disturbed)
    assert set(flat(module.batches[6:])) == set(chosen)
    assert not set(flat(module.batches[:6])) <= set(chosen)
    assert again.batches == module.batches[10:]
    assert weights(again) == weights(module)


def test_an_evaluation_changes_nothing_and_is_what_a_validation_gives(tmp_path):
    def stopping():
        return lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=3)

    calm = new_run(tmp_path / "calm")
    module = Fit(Sampled, callbacks=[stopping()])(calm)
    asked = steered(tmp_path / "asked", ("evaluate", {}, 3), ("evaluate", {}, 7), ("evaluate", {}, 20))
    again = Fit(Sampled, callbacks=[stopping()])(asked)
    assert [outcome for *_, outcome in told(asked)] == ["applied"] * 3
    found = metrics_of(asked)
    assert {step for step, values in found.items() if "val_loss" in values} == {3, 7, 10, 20}
    assert found[20]["val_loss"] == metrics_of(calm)[20]["val_loss"]  # that one was due then, too
    for step in (3, 7):
        del found[step]["val_loss"]
    assert found == metrics_of(calm)
    assert weights(again) == weights(module)


def test_a_module_without_validation_cannot_be_evaluated(tmp_path):
    run = steered(tmp_path, ("evaluate", {}, 2))
    Fit(validation=False, max_steps=3)(run)
    assert told(run)[0][2].startswith("rejected: this module has no validation")


def test_a_reset_takes_weights_or_moments_back_and_everything_else_goes_on(tmp_path, monkeypatch):
    seen = {}

    def look(name):
        def note(surface):
            seen[name] = dict(surface.digests())

        return note

    run = steered(tmp_path, ("reset", {"to": "5"}, 12), ("reset", {"optimizer": True}, 15))
    for step, name in ((5, "five"), (11, "before"), (12, "back"), (14, "later"), (15, "fresh")):
        at_boundary(monkeypatch, step, look(name))
    module = Fit(lambda: Mlp("adamw"), every=5)(run)
    assert [outcome for *_, outcome in told(run)] == ["applied"] * 2
    assert seen["back"]["weights"] == seen["five"]["weights"] != seen["before"]["weights"]
    assert seen["back"]["optimizer"] not in (seen["five"]["optimizer"], seen["before"]["optimizer"])
    assert seen["fresh"]["weights"] != seen["later"]["weights"]
    plain = Fit(lambda: Mlp("adamw"))(new_run(tmp_path / "plain"))
    assert module.batches == plain.batches
    rates = [values["lr"] for values in metrics_of(run).values()]
    assert len(set(rates)) == len(rates)  # the schedule never went back


def test_a_snapshot_is_the_state_of_its_moment_whatever_comes_after(tmp_path, monkeypatch):
    taken = {}

    def take(surface):
        (tmp_path / "now").mkdir()
        surface.save(tmp_path / "now")
        taken["write"] = surface.snapshot()

    at_boundary(monkeypatch, 8, take)
    Fit(max_steps=12, every=100)(new_run(tmp_path / "run"))
    (tmp_path / "later").mkdir()
    taken["write"](tmp_path / "later")
    for path in (tmp_path / "now").iterdir():
        assert (tmp_path / "later" / path.name).read_bytes() == path.read_bytes(), path.name


def test_health_and_digests_and_scores_change_nothing(tmp_path, monkeypatch):
    plain = Fit(Sampled)(new_run(tmp_path / "plain"))
    seen = {}

    def look(surface):
        seen.update(surface.health())
        seen["digests"] = [dict(surface.digests()), dict(surface.digests())]
        scorer = surface.scorer("train")
        seen["losses"] = scorer.score(np.arange(9)).loss
        seen["fields"] = scorer.fields(np.array([0, 1]))
        seen["validation"] = len(surface.scorer("validation"))

    at_boundary(monkeypatch, 9, look)
    module = Fit(Sampled)(new_run(tmp_path / "looked"))
    assert weights(module) == weights(plain)
    assert seen["digests"][0] == seen["digests"][1]
    assert seen["verdict"] in ("well", "look", "bad") and seen["step"] == 9
    assert seen["activations"] is not None and len(seen["losses"]) == 9
    assert np.isfinite(seen["losses"]).all() and len(set(seen["losses"])) == 9
    assert seen["fields"][1]["number"] == 1 and seen["validation"] == 12


def test_losses_of_samples_are_the_same_one_by_one_and_together(tmp_path, monkeypatch):
    found = {}

    def losses(module, batch):
        return torch.nn.functional.cross_entropy(module(batch[0]), batch[1], reduction="none")

    for name, given in (("alone", None), ("together", losses)):
        with monkeypatch.context() as patch:
            at_boundary(
                patch,
                4,
                lambda surface, name=name: found.update({name: surface.scorer("train").score(np.arange(40)).loss}),
            )
            fit = Fit(max_steps=5)
            fit.attached = {"losses": given}
            fit(new_run(tmp_path / name))
    assert found["alone"] == pytest.approx(found["together"], rel=1e-6)


def test_weights_of_a_checkpoint_are_merged_into_those_that_train_also_after_a_kill(tmp_path, killing, monkeypatch):
    seen = {}

    def note(surface):
        seen.setdefault("optimizer", []).append(len(surface._trainer.optimizers[0].state))
        seen["now"] = {name: one.clone() for name, one in surface._module.state_dict().items()}

    def before(session, step):
        if step == 12:
            seen["before"] = {name: one.clone() for name, one in session._saver.surface._module.state_dict().items()}
        return due(session, step)

    due = Session.due
    at_boundary(monkeypatch, 12, note)
    monkeypatch.setattr(Session, "due", before)
    script = [("merge", {"sources": [".", "5"]}, 12), ("merge", {"sources": [".", "r@77"]}, 13)]
    calm, disturbed = steered(tmp_path / "calm", *script), steered(tmp_path / "disturbed", *script)
    module = Fit()(calm)
    assert [outcome[:30] for *_, outcome in told(calm)] == ["applied", "rejected: r: there is no check"]
    old = load_file(next((calm.path / "kept").glob("*5")) / "model.safetensors")
    old = {name.partition(".")[2]: value for name, value in old.items()}
    for name, value in seen["now"].items():
        if value.is_floating_point() and "running" not in name:
            torch.testing.assert_close(value, (seen["before"][name] + old[name]) / 2)
    assert seen["optimizer"] == [0]
    killing(Fit(), disturbed, 14)
    assert weights(Fit()(disturbed)) == weights(module)


def test_the_surest_weights_win_a_fisher_merge(tmp_path):
    run = steered(tmp_path, ("merge", {"sources": [".", "5"], "method": {"type": "fisher", "samples": 8}}, 8))
    module = Fit(max_steps=12)(run)
    assert [outcome for *_, outcome in told(run)] == ["applied"]
    assert weights(module) != weights(Fit(max_steps=12)(new_run(tmp_path / "plain")))


def prepared(run, name):
    """A child that waits for its parent's state."""
    return stage_run(run.path.parent, RunInfo(id=name, job="script", parent="r"), "{}", {})


def test_a_fork_goes_on_as_its_parent_and_so_does_a_process_that_switches(tmp_path):
    calm = new_run(tmp_path / "calm")
    module = Fit()(calm)
    run = new_run(tmp_path / "parent")
    child, heir = prepared(run, "child"), prepared(run, "heir")
    run.inbox.post(Command("fork", {"staging": child.path.name}, at=8))
    run.inbox.post(Command("fork", {"staging": heir.path.name, "switch": True}, at=13))
    ended = Fit()(run)
    assert [outcome for *_, outcome in told(run)] == ["applied"] * 2
    assert run.state is State.STOPPED and run.states.read().successor == "heir"
    heir, child = (Run(run.path.parent / name) for name in ("heir", "child"))
    assert heir.state is State.COMPLETED and weights(ended) == weights(module)
    # The fork that was taken beside the training, and resumed in a trainer of its own.
    assert weights(Fit()(child)) == weights(module)
    wanted = metrics_of(calm)
    assert metrics_of(run) | metrics_of(heir) == wanted
    assert metrics_of(child) == {step: values for step, values in wanted.items() if step > 8}


def test_a_child_trains_on_its_selection_from_its_very_first_batch(tmp_path):
    run = new_run(tmp_path)
    child = prepared(run, "child")
    run.inbox.post(Command("fork", {"staging": child.path.name}, at=8))
    Fit()(run)
    child = Run(run.path.parent / "child")
    child.inbox.post(Command("select", {"recipe": "where part1 == 1"}, at=8))
    module = Fit()(child)
    assert [outcome for *_, outcome in told(child)] == ["applied"]
    chosen = {number for number, label in enumerate(samples().tensors[1].tolist()) if label == 1}
    assert set(flat(module.batches)) == chosen
    assert len(module.batches) == 16


def test_an_end_that_was_set_holds_for_a_run_that_died_there(tmp_path, killing):
    script = [("set", {"steps": 14}, 6)]
    calm, disturbed = steered(tmp_path / "calm", *script), steered(tmp_path / "disturbed", *script)
    module = Fit(every=7)(calm)
    shutil.copytree(calm.checkpoints, disturbed.checkpoints, dirs_exist_ok=True)
    again = Fit(every=7)(disturbed)
    assert again.batches == [] and weights(again) == weights(module)


def test_parameters_that_are_called_like_settings_hold_also_in_a_child(tmp_path):
    fit = Fit(lambda: Mlp("adamw"), max_steps=10)
    fit.attached = {"params": {"lr": 0.001, "batch_size": 2, "steps": 8}}
    parent = new_run(tmp_path / "parent")
    module = fit(parent)
    assert max(metrics_of(parent)) == 8 and {len(batch) for batch in module.batches} == {2}
    assert metrics_of(parent)[1]["lr"] == 0.001
    fit.attached = {"params": {"lr": 0.002, "batch_size": 2, "steps": 8}}
    child = child_of(parent, tmp_path / "child", 5)
    fit(child)
    ours, theirs = metrics_of(child), metrics_of(parent)
    assert ours[6]["lr"] == pytest.approx(2 * theirs[6]["lr"])


class Lines(Dataset):
    """A data set whose samples are made when they are asked for, with random numbers."""

    def __len__(self):
        return 40

    def __getitem__(self, number):
        inputs, label, index = samples()[number]
        return inputs + torch.randn(4), label, index


class Endless(IterableDataset):
    """Samples without numbers."""

    def __len__(self):
        return 40

    def __iter__(self):
        return iter(samples())


DATA = {
    "a data set that draws": lambda: DataLoader(Lines(), batch_size=4, shuffle=True),
    "workers": lambda: DataLoader(samples(), batch_size=4, shuffle=True, num_workers=1),
    "a sampler of its own": lambda: DataLoader(
        samples(), batch_size=4, sampler=WeightedRandomSampler([1.0] * 20 + [9.0] * 20, 40)
    ),
    "a generator of its own": lambda: DataLoader(
        samples(),
        batch_size=4,
        sampler=WeightedRandomSampler([1.0] * 40, 40, generator=torch.Generator().manual_seed(5)),
    ),
    "without numbers": lambda: DataLoader(Endless(), batch_size=4),
}


@pytest.mark.parametrize("name", DATA)
def test_every_kind_of_data_goes_on_at_its_batch(name, tmp_path, killing):
    fit = Fit(data=DATA[name])
    calm, disturbed = new_run(tmp_path / "calm"), new_run(tmp_path / "disturbed")
    module = fit(calm)
    for step in (8, 17):
        killing(fit, disturbed, step)
    again = fit(disturbed)
    assert again.batches == module.batches[15:]
    assert weights(again) == weights(module)


def test_samples_that_have_no_numbers_are_not_selected_and_that_is_said(tmp_path, monkeypatch):
    said = []

    def ask(surface):
        for asked in (lambda: surface.select(None), lambda: surface.scorer("train")):
            with pytest.raises(UserError) as error:
                asked()
            said.append(error.value.what)
        assert "batch_size" not in {setting.name for setting in surface.settings()}

    at_boundary(monkeypatch, 2, ask)
    Fit(data=DATA["without numbers"], max_steps=3)(new_run(tmp_path))
    assert said == ["the training data is an IterableDataset, whose samples have no numbers"] * 2


class Adversaries(Mlp):
    """Two optimizers, stepped by hand in every batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log("loss", loss)

    def configure_optimizers(self):
        first, second = self.layers[0].parameters(), self.layers[4].parameters()
        return torch.optim.SGD(first, lr=0.1), torch.optim.Adam(second, lr=0.01)


def test_with_manual_optimization_a_step_is_a_batch(tmp_path, killing):
    fit = Fit(Adversaries, max_steps=-1, max_epochs=2)
    script = [("set", {"steps": 9}, 4), ("set", {"gradient_clip_val": 1}, 4), ("set", {"lr.optimizer1": 0.05}, 6)]
    calm, disturbed = steered(tmp_path / "calm", *script), steered(tmp_path / "disturbed", *script)
    module = fit(calm)
    assert max(metrics_of(calm)) == 20
    assert [outcome.partition("; ")[0] for *_, outcome in told(calm)] == [
        "rejected: there is no setting 'steps'",
        "rejected: there is no setting 'gradient_clip_val'",
        "applied",
    ]
    for step in (8, 13):
        killing(fit, disturbed, step)
    assert weights(fit(disturbed)) == weights(module)


def test_pause_step_stop_and_abort_hold_in_mid_epoch(tmp_path):
    run = steered(
        tmp_path,
        ("pause", {}, 4),
        ("step", {"steps": 2}, 4),
        ("note", {"text": "six"}, 6),
        ("resume", {}, 6),
        ("stop", {}, 13),
    )
    Fit()(run)
    assert run.state is State.STOPPED
    assert [(event["kind"], event["at"]) for event in run.events("paused", "resumed")] == [
        ("paused", 4),
        ("resumed", 4),
        ("paused", 6),
        ("resumed", 6),
    ]
    assert (run.checkpoints / "step-00000013").is_dir()
    run.inbox.post(Command("abort", {}, at=16))
    Fit()(run)
    assert run.state is State.STOPPED and not (run.checkpoints / "step-00000016").is_dir()
    assert weights(Fit()(run)) == weights(Fit()(new_run(tmp_path / "calm")))


def test_a_signal_lets_the_run_save_before_it_ends(tmp_path, monkeypatch):
    at_boundary(monkeypatch, 8, lambda surface: os.kill(os.getpid(), signal.SIGTERM))
    run = new_run(tmp_path / "run")
    Fit()(run)
    assert run.state is State.INTERRUPTED
    assert (run.checkpoints / "step-00000009").is_dir()
    monkeypatch.undo()
    assert weights(Fit()(run)) == weights(Fit()(new_run(tmp_path / "calm")))


def test_a_loss_that_is_not_finite_fails_the_run(tmp_path):
    run = new_run(tmp_path)
    with pytest.raises(NotFinite, match="the loss is no longer finite at step"):
        Fit(lambda: Mlp(lr=1e30), validation=False)(run)
    assert run.state is State.FAILED


class Hoarder(lightning.pytorch.callbacks.Callback):
    """Keeps what no checkpoint can hold."""

    def state_dict(self):
        return {"things": {1, 2}}


def test_what_a_checkpoint_cannot_hold_is_named(tmp_path):
    run = steered(tmp_path, ("checkpoint", {}, 2))
    with pytest.raises(UserError, match=r"Hoarder\.things is a set"):  # the last step is to be kept
        Fit(max_steps=3, every=100, callbacks=[Hoarder()])(run)
    assert "callbacks.Hoarder.things is a set, which a checkpoint cannot hold" in told(run)[0][2]


@pytest.mark.parametrize(
    ("options", "data", "what"),
    [
        ({"overfit_batches": 2}, loader, "overfit_batches chooses samples"),
        ({"reload_dataloaders_every_n_epochs": 1}, loader, "the training data of a live run stays the same"),
        ({}, lambda: iter([]), "the training data does not say how many batches it has"),
    ],
)
def test_what_cannot_be_part_of_a_live_run_is_refused(options, data, what, tmp_path):
    with pytest.raises(UserError, match=what):
        Fit(data=data, **options)(new_run(tmp_path))


def test_a_live_run_is_one_fit(tmp_path, monkeypatch):
    fit = lightning.Trainer.fit

    def fit_twice(self, *args):
        fit(self, *args)
        fit(self, *args)

    monkeypatch.setattr(lightning.Trainer, "fit", fit_twice)
    with pytest.raises(UserError, match="a live run is one fit"):
        Fit(max_steps=2)(new_run(tmp_path))


def test_a_trainer_is_part_of_one_run(tmp_path):
    trainer = new_trainer()
    attach(None, trainer)
    with pytest.raises(UserError, match="already"):
        attach(None, trainer)


def test_the_surface_can_do_everything_that_there_is():
    from clew.session import surface

    for able in ("Adjustable", "Timed", "Snapshotting", "Evaluable", "Resettable", "Selectable", "Scorable"):
        assert issubclass(LightningSurface, getattr(surface, able)), able
    for able in ("Mergeable", "Digestible", "Checkable"):
        assert issubclass(LightningSurface, getattr(surface, able)), able
