"""Damage to every file that real runs put into checkpoints: it is found, the file named, and the one before used.

What each kind of file can suffer by itself is in ``tests/checkpoints/test_corruption.py``; here are the files of all
jobs, with the parts of two processes and what Hugging Face's ``Trainer`` writes.
"""

import shutil
from itertools import combinations

import damage
import pytest
from enumeration import ALL
from kills import CASES, finish, make

from clew.checkpoints import CheckpointStore
from clew.runs import Workspace
from clew.runs.files import file_digest

pytestmark = pytest.mark.slow
WRITTEN = {
    "pretrain": {"trainer.safetensors", "trainer.json", "model.safetensors", "tokenizer.json", "manifest.json"},
    "pretrain-2": {"trainer-0.safetensors", "trainer-1.safetensors", "trainer-1.json", "trainer.json", "config.json"},
    "sft": {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"},
    "grpo": {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"},
}


@pytest.mark.parametrize("case", WRITTEN if ALL else ["pretrain-2", "sft"])
def test_damage_to_any_file_that_a_run_saves_is_found_and_named_and_the_one_before_is_used(case, scratch, tmp_path):
    every = CASES[case].every
    run = make(Workspace(tmp_path), case, "a", steps=2 * every)
    finish(run)
    first, last = sorted(one.step for one in CheckpointStore(run.checkpoints).all())[-2:]
    newest = f"step-{last:08}"
    files = [path for path in sorted((run.checkpoints / newest).rglob("*")) if path.is_file()]
    assert {path.name for path in files} >= WRITTEN[case]

    def damaged(harm):
        place = shutil.copytree(run.checkpoints, scratch / "damaged" / "checkpoints")
        harm(place / newest)
        good, bad = CheckpointStore(place).newest_good()
        shutil.rmtree(scratch / "damaged")
        assert good.step == first, bad
        return bad[last]

    for path in files:
        name = path.relative_to(run.checkpoints / newest)
        for what, harm in damage.ALL.items():
            problem = damaged(lambda folder, name=name, harm=harm: harm(folder / name))
            assert path.name in problem, f"{what}: {problem}"
    for pair in combinations(files, 2):
        if file_digest(pair[0]) != file_digest(pair[1]):
            one, other = (path.relative_to(run.checkpoints / newest) for path in pair)
            problem = damaged(lambda folder, one=one, other=other: _swap(folder / one, folder / other))
            assert one.name in problem or other.name in problem, problem


def _swap(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
