"""A task without hooks is trained as if there were none."""

from __future__ import annotations

import clew
from clew.tasks import Hooks, Rollout, Task


def test_every_hook_does_nothing_until_a_task_defines_it():
    task, features = Task(), [{"input_ids": [1]}]
    assert task.collate(features, lambda given: {"given": given}) == {"given": features}
    assert task.group_rewards() == ()
    assert task.reward_weights(1, 10) == {}
    example = clew.Example(id="a", prompt="a")
    assert task.on_rollouts(1, [Rollout(example, "b", {"exact": None}, None)]) == {}
    assert not task.keeps_order()
    assert task.skipped("examples", "train") == ()
    named = {"collate", "group_rewards", "reward_weights", "on_rollouts", "keeps_order", "skipped"}
    assert {name for name in vars(Hooks) if not name.startswith("_")} == named
