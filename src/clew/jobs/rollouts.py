"""From completions to rewards: scored by the task, journalled one by one with every reward, and shown to the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clew.errors import UserError
from clew.session import Session
from clew.tasks import Example, GroupReward, Reward, Rollout, Task

Scores = list[float | None]


class RolloutRecorder:
    """Scores completions with a task's rewards, and journals each rollout with all of them.

    Args:
        session: The live run.
        task: Whose rewards.
        prompts: The task's prompts; the data set's column ``index`` points into them.
        generations: Completions of each prompt; those of one follow each other.

    Raises:
        UserError: If two rewards have the same name.
    """

    def __init__(self, session: Session[Any], task: Task, prompts: Sequence[Example], *, generations: int) -> None:
        self._session = session
        self._task = task
        self._prompts = prompts
        self._generations = generations
        self._rewards: list[Reward | GroupReward] = [*task.rewards(), *task.group_rewards()]
        self.names = [reward.name for reward in self._rewards]
        self.chosen: dict[str, float] = {}
        """Weights that somebody has chosen while the run goes on, over those of the task."""
        self._scores: dict[str, Scores] = {}
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise UserError(f"the task {type(task).__name__} has two rewards with the name {twice[0]!r}")

    def functions(self) -> list[Callable[..., Scores]]:
        """Return one reward function for TRL for each reward, in the order of ``names``."""
        return [self._function(reward) for reward in self._rewards]

    def weights(self, step: int, total: int) -> list[float]:
        """Return the weights of the rewards in a step, in the order of ``names``.

        Args:
            step: The step, from 1.
            total: The last step, as far as is known.

        Raises:
            UserError: If the task weighs a reward that it does not have.
        """
        named = self._task.reward_weights(step, total)
        if unknown := sorted(named.keys() - set(self.names)):
            raise UserError(
                f"reward_weights() of the task {type(self._task).__name__} names {unknown[0]!r}, which is no reward",
                hint=f"known: {', '.join(self.names)}",
            )
        named = {**named, **self.chosen}
        return [float(named.get(reward.name, reward.weight)) for reward in self._rewards]

    def _function(self, reward: Reward | GroupReward) -> Callable[..., Scores]:
        def score(**batch: Any) -> Scores:
            return self._score(reward, **batch)

        score.__name__ = reward.name  # TRL names its metrics by it, and looks through functools.partial
        return score

    def _score(
        self,
        reward: Reward | GroupReward,
        *,
        completions: list[Any],
        index: list[int],
        trainer_state: Any,
        **_: Any,
    ) -> Scores:
        """Score one batch; the last reward of the batch completes the rollouts."""
        examples = [self._prompts[number] for number in index]
        # TRL hands conversations back as conversations: the answer is the last message.
        texts = [item if isinstance(item, str) else str(item[-1]["content"]) for item in completions]
        if isinstance(reward, GroupReward):
            scores = self._compare(reward, examples, texts)
        else:
            scores = [reward.score(example, text) for example, text in zip(examples, texts, strict=True)]
        self._scores[reward.name] = scores
        if reward.name == self.names[-1]:
            self._record(examples, texts, int(trainer_state.global_step) + 1, int(trainer_state.max_steps))
        return scores

    def _compare(self, reward: GroupReward, examples: Sequence[Example], texts: Sequence[str]) -> Scores:
        scores: Scores = []
        for start in range(0, len(texts), self._generations):
            answers = texts[start : start + self._generations]
            values = list(reward.score(examples[start], answers))
            if len(values) != len(answers):
                raise UserError(
                    f"the group reward {reward.name!r} gave {len(values)} values for {len(answers)} completions",
                    where=f"prompt {examples[start].id}",
                )
            scores += values
        return scores

    def _record(self, examples: Sequence[Example], completions: Sequence[str], step: int, total: int) -> None:
        weights = dict(zip(self.names, self.weights(step, total), strict=True))
        rollouts = []
        for position, (example, completion) in enumerate(zip(examples, completions, strict=True)):
            parts = {name: self._scores[name][position] for name in self.names}
            applied = [weights[name] * score for name, score in parts.items() if score is not None]
            rollouts.append(Rollout(example, completion, parts, sum(applied) if applied else None))
        for one in rollouts:
            self._session.event(
                "rollout",
                step=step,
                id=one.example.id,
                prompt=one.example.prompt,
                completion=one.completion,
                rewards=one.rewards,
                reward=one.reward,
            )
        if seen := self._task.on_rollouts(step, rollouts):
            self._session.log(step, {f"task/{name}": value for name, value in seen.items()})
