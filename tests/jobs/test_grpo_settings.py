"""What can be set in a policy optimisation alone."""

from __future__ import annotations

import pytest
from tuning_support import Echo, attempt, metrics_of, new_run, save_model

from clew.jobs.base import RuntimeConfig
from clew.jobs.grpo import GrpoConfig, GrpoTraining, SamplingConfig, grpo
from clew.runs import Command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


def test_a_temperature_and_weights_of_rewards_hold_from_the_next_step_on(tmp_path):
    settings = GrpoConfig(
        model=save_model(tmp_path / "m"),
        task=Echo(),
        training=GrpoTraining(steps=10, prompts_per_step=2, generations=2, lr=0.01, schedule="constant"),
        sampling=SamplingConfig(max_new_tokens=4),
        runtime=RuntimeConfig(threads=1),
    )
    run = new_run(tmp_path, "grpo")
    for args, at in (
        ({"temperature": 0.01, "reward_weights.long": 0, "reward_weights.even": 2}, 3),
        ({"temperature": 0}, 4),
        ({"reward_weights.lang": 0}, 4),
    ):
        run.inbox.post(Command("set", args, at=at))
    attempt(grpo, run, settings)
    assert [event["outcome"].partition("; ")[0].partition(", not")[0] for event in run.events("command")] == [
        "applied",
        "rejected: temperature must be above 0",
        "rejected: there is no setting 'reward_weights.lang'",
    ]
    for event in run.events("rollout"):
        long, even = (0.0, 2.0) if event["step"] > 3 else (1.0, 0.5)
        parts = {"long": long * event["rewards"]["long"], "even": even * (event["rewards"]["even"] or 0.0)}
        assert event["reward"] == pytest.approx(sum(parts.values()))
    # Almost greedy: the completions of a prompt are alike, but for a tie. Who trains and who generates agree about it.
    assert all(values["logprob_gap/max"] < 1e-3 for values in metrics_of(run).values())
    answers: dict[tuple[int, str], set[str]] = {}
    for event in run.events("rollout"):
        answers.setdefault((event["step"], event["id"]), set()).add(event["completion"])
    before, after = (
        [len(found) == 1 for (step, _), found in answers.items() if (step > 3) is late] for late in (False, True)
    )
    assert not any(before)
    assert sum(after) >= len(after) - 1
