"""The native trainer as `pretrain` runs it: evaluated, inspected, merged, and saved while it trains on."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from clew.checkpoints.snapshot import Snapshots, to_memory
from clew.checkpoints.state import load_state
from clew.data.packing import Windows, pack
from clew.errors import UserError
from clew.jobs.pretrainer import Pretrainer
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.models.exchange import load_huggingface
from clew.models.tokenizers import ByteTokenizer, encode_all, vocab_size
from clew.session.surface import (
    Adjustable,
    Checkable,
    Digestible,
    Evaluable,
    Mergeable,
    MergeRequest,
    Resettable,
    Scorable,
    Selectable,
    Snapshotting,
    Timed,
)
from clew.train import TrainingConfig

SEQ_LEN, PATIENCE = 16, 30.0
TOKENIZER = ByteTokenizer().build([])
ABILITIES = (
    Adjustable,
    Checkable,
    Digestible,
    Evaluable,
    Mergeable,
    Resettable,
    Scorable,
    Selectable,
    Snapshotting,
    Timed,
)


def windows(*documents: str) -> Windows:
    tokens = pack(encode_all(TOKENIZER, documents), eos=TOKENIZER.eos_token_id, vocab_size=vocab_size(TOKENIZER))
    return Windows(tokens, SEQ_LEN)


def trainer(*, init: int = 0, width: int = 16, tied: bool = True, held_out: bool = True, problems=None) -> Pretrainer:
    torch.manual_seed(init)
    splits = {"train": windows(*["one two three"] * 40)}
    if held_out:
        splits["validation"] = windows(*["three two one"] * 5)
    model = Decoder(ModelConfig(depth=1, width=width, heads=2, tied=tied), vocab_size(TOKENIZER), SEQ_LEN)
    config = TrainingConfig(steps=20, batch_size=4)
    return Pretrainer(model, TOKENIZER, splits, config, lr=0.01, total_steps=20, seed=5, problems=problems)


def run(trained: Pretrainer, steps: int) -> Pretrainer:
    for _ in range(steps):
        trained.step()
    return trained


def saved(trained: Pretrainer, directory: Path) -> dict[str, bytes]:
    directory.mkdir(parents=True)
    trained.save(directory)
    return files(directory)


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def weights(trained: Pretrainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained.model.named_parameters()}


def test_it_can_do_everything_that_a_live_run_may_be_asked_for():
    assert [ability.__name__ for ability in ABILITIES if not isinstance(trainer(), ability)] == []


# Saving.


@pytest.mark.parametrize("tied", [True, False])
def test_a_snapshot_is_the_checkpoint_of_its_moment_byte_by_byte_with_the_model_beside_it(tied, tmp_path):
    quiet, trained = run(trainer(tied=tied), 7), run(trainer(tied=tied), 3)
    random = torch.get_rng_state()
    expected = saved(trained, tmp_path / "saved")
    write = trained.snapshot()
    run(trained, 2)
    (tmp_path / "kept").mkdir()
    writer = threading.Thread(target=write, args=(tmp_path / "kept",))
    writer.start()
    run(trained, 2)
    writer.join(PATIENCE)
    assert files(tmp_path / "kept") == expected
    assert {"trainer.safetensors", "trainer.json", "model/model.safetensors", "model/tokenizer.json"} <= expected.keys()
    # Whoever writes in another thread draws from no generator of the training.
    assert trained.digests() == quiet.digests()
    assert torch.equal(torch.get_rng_state(), random)


def test_the_model_of_a_snapshot_is_the_one_that_trained_then(tmp_path):
    trained = run(trainer(), 3)
    then = weights(trained)
    write = trained.snapshot()
    run(trained, 3)
    write(tmp_path)
    loaded = dict(load_huggingface(tmp_path / "model").named_parameters())
    assert all(torch.equal(loaded[name], weight) for name, weight in then.items())


# Evaluating.


def test_an_evaluation_is_the_validation_loss_and_the_answers_and_changes_nothing(tmp_path):
    trained = run(trainer(problems=lambda: {"eval/words": torch.rand(1).item()}), 4)
    before = saved(trained, tmp_path / "a")
    found = trained.evaluate()
    assert saved(trained, tmp_path / "b") == before
    assert found["val_loss"] == trained.validate(trained.held_out)
    assert found.keys() == {"val_loss", "eval/words"}


def test_an_evaluation_takes_what_there_is():
    assert trainer().evaluate().keys() == {"val_loss"}
    assert trainer(held_out=False, problems=lambda: {"eval/words": 1.0}).evaluate() == {"eval/words": 1.0}
    with pytest.raises(UserError, match="nothing to evaluate: the task has no text to validate on"):
        trainer(held_out=False).evaluate()


# Inspecting.


def test_the_samples_of_both_splits_can_be_looked_at():
    trained = run(trainer(), 2)
    held_out, train = trained.scorer("validation"), trained.scorer("train")
    assert (len(held_out), len(train)) == (5, 35)
    assert held_out.batch_size == 4
    assert held_out.fields(np.array([0]))[0] == {"number": 0, "text": "three two one<|endoftext|>thr", "length": 16}
    scores = held_out.score(np.arange(5), tokens=True)
    assert scores.tokens[0][:4] == ["h", "r", "e", "e"]
    assert scores.embedding.shape == (5, 16)
    lengths = [fields["length"] for fields in held_out.fields(np.arange(5))]
    assert np.average(scores.loss, weights=lengths) == pytest.approx(trained.loss_on(trained.held_out))


def test_another_split_is_refused():
    with pytest.raises(UserError, match="no split 'trian'; did you mean 'train'"):
        trainer().scorer("trian")
    with pytest.raises(UserError, match="no split 'validation'"):
        trainer(held_out=False).scorer("validation")


# Merging.


def request(*sources: Path | None, method: str = "average", **more) -> MergeRequest:
    names = ["." if source is None else source.name for source in sources]
    options = {"samples": 4} if method == "fisher" else {}
    return MergeRequest(sources, names, {"type": method, **options}, **more)


def test_the_mean_with_a_checkpoint_is_taken_and_the_optimizer_begins_anew(tmp_path):
    other, trained = run(trainer(init=1), 2), run(trainer(), 3)
    saved(other, tmp_path / "other")
    ours, theirs = weights(trained), weights(other)
    said = trained.merge(request(None, tmp_path / "other"))
    assert said["method"]["type"] == "average"
    for name, weight in weights(trained).items():
        assert torch.equal(weight, ((ours[name].double() + theirs[name].double()) / 2).float())
    assert trained.digests()["optimizer"] == trainer().digests()["optimizer"]
    assert trained.step_number == 3
    run(trained, 2).measure()


def test_a_merge_with_itself_and_the_moments_kept_goes_on_as_if_nothing_had_been(tmp_path):
    straight, trained = run(trainer(), 5), run(trainer(), 3)
    trained.merge(request(None, None, optimizer="keep"))
    run(trained, 2)
    assert (
        saved(trained, tmp_path / "a")["trainer.safetensors"] == saved(straight, tmp_path / "b")["trainer.safetensors"]
    )


def test_fisher_is_estimated_on_the_texts_of_the_run_and_disturbs_nothing(tmp_path):
    other, trained = run(trainer(init=1), 2), run(trainer(), 3)
    saved(other, tmp_path / "other")
    ours, theirs, random = weights(trained), weights(other), torch.get_rng_state()
    plain = {name: (ours[name] + theirs[name]) / 2 for name in ours}
    said = trained.merge(request(None, tmp_path / "other", method="fisher"))
    assert torch.equal(torch.get_rng_state(), random)
    assert said["method"]["type"] == "fisher"
    merged = weights(trained)
    assert any(not torch.allclose(merged[name], plain[name], atol=1e-4) for name in merged)
    for name, weight in merged.items():
        low, high = torch.minimum(ours[name], theirs[name]), torch.maximum(ours[name], theirs[name])
        assert ((weight >= low - 1e-6) & (weight <= high + 1e-6)).all()
    assert trained.model.training


def test_what_does_not_fit_together_is_refused_with_the_differences_and_nothing_changes(tmp_path):
    saved(trainer(width=32), tmp_path / "wide")
    trained = run(trainer(), 2)
    before = trained.digests()
    with pytest.raises(UserError, match="wide"):
        trained.merge(request(None, tmp_path / "wide"))
    assert trained.digests() == before
    with pytest.raises(UserError, match="no test text"):
        trained.merge(MergeRequest([None, None], ["a", "b"], {"type": "fisher", "split": "test"}))
    assert trained.digests() == before


def test_a_merge_waits_for_the_snapshot_before_it(monkeypatch, tmp_path):
    copied = []

    def noting(tensor):
        copied.append(to_memory(tensor))
        return copied[-1]

    monkeypatch.setattr("clew.train.loop.Snapshots", lambda: Snapshots(noting))
    saved(run(trainer(init=1), 1), tmp_path / "other")
    trained = run(trainer(), 2)
    then = weights(trained)
    write = trained.snapshot()
    trained.merge(request(None, tmp_path / "other"))
    assert len(copied) >= len(then)
    (tmp_path / "kept").mkdir()
    write(tmp_path / "kept")
    found = load_state(tmp_path / "kept", "trainer")["model"]
    assert all(torch.equal(found[name], weight) for name, weight in then.items())
