"""Reinforcement learning on a task's rewards: GRPO (Shao et al. 2024, arXiv:2402.03300), by TRL's ``GRPOTrainer``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from clew.config import Plugin, config
from clew.errors import UserError, require
from clew.jobs.base import CheckpointConfig, JobConfig, RuntimeConfig, job
from clew.jobs.tuning import LoraConfig, TuningConfig, peft_config, publish, trainer_arguments
from clew.models.source import ModelReference, check_reference, resolve
from clew.session import Outcome, Session
from clew.tasks import Chat, Example, Reward, Task, messages_of, render_prompt, require_parts, uses_chat


@config
class GrpoTraining(TuningConfig):
    """How long, and in what batches."""

    lr: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate of AdamW."""
    steps: Annotated[int, Field(ge=1)] = 100
    """Optimizer steps; each one generates anew, so no step learns from another policy's completions."""
    prompts_per_step: Annotated[int, Field(ge=1)] = 4
    """Different prompts in one step."""
    generations: Annotated[int, Field(ge=2)] = 8
    """Completions for each prompt; their mean reward is the baseline of the group."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Completions in one forward pass; must divide prompts_per_step * generations; null means all of them."""
    loss: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    """How token losses are averaged; dapo divides by all tokens of the batch (arXiv:2503.14476)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Whether advantages are divided by a standard deviation, and whose."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the model at the start; 0 needs no reference model."""

    def __post_init__(self) -> None:
        batch = self.prompts_per_step * self.generations
        if self.micro_batch_size is not None and batch % self.micro_batch_size:
            raise ValueError(
                f"prompts_per_step * generations ({batch}) must be a multiple of "
                f"micro_batch_size ({self.micro_batch_size})"
            )


@config
class SamplingConfig:
    """How completions are drawn."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """Longest completion, in tokens."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logits before sampling."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the smallest set of tokens that has this probability."""


@config
class GrpoConfig(JobConfig):
    """Reinforcement learning of a model on a task's rewards."""

    model: ModelReference
    """The model to start from: a folder, a hub id, a .gguf file, or a run as run:NAME[@best|@last|@STEP]."""
    task: Annotated[Task, Plugin("task")]
    """Where prompts and rewards come from."""
    lora: LoraConfig | None = Field(default_factory=LoraConfig)
    """Train an adapter; null trains every weight. A model that brings an adapter goes on with that one."""
    chat: Chat = "auto"
    """Whether prompts go through the tokenizer's chat template; auto does when there is one."""
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    """How completions are drawn."""
    training: GrpoTraining = Field(default_factory=GrpoTraining)
    """Optimizer, steps and groups."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When to save."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device and threads."""


def _check(config: GrpoConfig, runs: Path) -> None:
    check_reference(config.model, runs)
    require_parts(config.task, "prompts", "rewards", needed_by="grpo")
    _prompts(config)  # reads all data, so that a bad row shows before a run is made of it


@job(check=_check)
def grpo(session: Session[GrpoConfig]) -> Outcome:
    """Improve a model on a task's rewards by group-relative policy optimisation."""
    config = session.config
    trl = require("trl", extra="tune")
    import datasets

    from clew.models.loading import load_model, load_tokenizer
    from clew.session.huggingface import train
    from clew.train.devices import prepare

    device = prepare(config.runtime.device, config.runtime.threads, config.seed)
    source = resolve(config.model, session.run.path.parent)
    tokenizer = load_tokenizer(source)
    prompts = _prompts(config)
    rewards = config.task.rewards()
    recorder = RolloutRecorder(session, prompts, rewards)
    trainer = trl.GRPOTrainer(
        model=load_model(source, device=device, trainable_adapter=True),
        reward_funcs=recorder.functions(),
        args=_arguments(session, device, rewards),
        train_dataset=datasets.Dataset.from_list(
            [
                {"prompt": _prompt(example, tokenizer, config.chat), "index": index}
                for index, example in enumerate(prompts)
            ]
        ),
        processing_class=tokenizer,
        peft_config=peft_config(config.lora) if config.lora and source.adapter is None else None,
    )
    train(session, trainer, config.checkpoint)
    publish(session, trainer.model, tokenizer)
    skipped = len(config.task.skipped("prompts", "train"))
    return Outcome(metrics=_final_metrics(session), notes={"prompts": len(prompts), "skipped_rows": skipped})


def _prompts(config: GrpoConfig) -> Sequence[Example]:
    prompts = config.task.prompts("train")
    if not prompts:
        raise UserError("the task has no train prompts", hint="grpo needs at least one")
    return prompts


def _prompt(example: Example, tokenizer: Any, chat: Chat) -> Any:
    """Messages where there is a chat template, which TRL then applies; else plain text."""
    text = render_prompt(example.prompt, tokenizer, chat)  # refuses a template that would lose a turn
    return messages_of(example.prompt) if uses_chat(tokenizer, chat) else text


class RolloutRecorder:
    """Scores completions with a task's rewards, and journals each rollout with all of them.

    Args:
        session: The live run.
        prompts: The task's prompts; the data set's column ``index`` points into them.
        rewards: The named, weighted rewards.
    """

    def __init__(self, session: Session[Any], prompts: Sequence[Example], rewards: Sequence[Reward]) -> None:
        self._session = session
        self._prompts = prompts
        self._rewards = rewards
        self._scores: dict[str, list[float | None]] = {}

    def functions(self) -> list[Callable[..., list[float | None]]]:
        """Return one reward function for TRL for each reward, in their order."""
        return [self._function(reward) for reward in self._rewards]

    def _function(self, reward: Reward) -> Callable[..., list[float | None]]:
        def score(**batch: Any) -> list[float | None]:
            return self._score(reward, **batch)

        score.__name__ = reward.name  # TRL names its metrics by it, and looks through functools.partial
        return score

    def _score(
        self, reward: Reward, *, completions: list[Any], index: list[int], trainer_state: Any, **_: Any
    ) -> list[float | None]:
        """Score one batch; the last reward of the batch completes the rollouts."""
        examples = [self._prompts[number] for number in index]
        # TRL hands conversations back as conversations: the answer is the last message.
        texts = [item if isinstance(item, str) else str(item[-1]["content"]) for item in completions]
        scores = [reward.score(example, text) for example, text in zip(examples, texts, strict=True)]
        self._scores[reward.name] = scores
        if reward.name == self._rewards[-1].name:
            self._record(examples, texts, int(trainer_state.global_step) + 1)
        return scores

    def _record(self, examples: Sequence[Example], completions: Sequence[str], step: int) -> None:
        for position, (example, completion) in enumerate(zip(examples, completions, strict=True)):
            parts = {reward.name: self._scores[reward.name][position] for reward in self._rewards}
            total = sum(reward.weight * (parts[reward.name] or 0.0) for reward in self._rewards)
            self._session.event(
                "rollout",
                step=step,
                id=example.id,
                prompt=example.prompt,
                completion=completion,
                rewards=parts,
                reward=total,
            )


def _arguments(session: Session[GrpoConfig], device: Any, rewards: Sequence[Reward]) -> Any:
    import trl

    from clew.session.huggingface import scratch_directory

    config, training = session.config, session.config.training
    batch = training.prompts_per_step * training.generations
    return trl.GRPOConfig(
        output_dir=str(scratch_directory(session)),
        num_generations=training.generations,
        num_iterations=1,
        max_completion_length=config.sampling.max_new_tokens,
        temperature=config.sampling.temperature,
        top_p=config.sampling.top_p,
        beta=training.beta,
        loss_type=training.loss,
        scale_rewards=training.scale_rewards,
        shuffle_dataset=not config.task.keeps_order(),
        reward_weights=[reward.weight for reward in rewards],
        **trainer_arguments(
            training,
            device=device,
            seed=config.seed,
            steps=training.steps,
            batch_size=batch,
            micro_batch_size=training.micro_batch_size or batch,
        ),
    )


def _final_metrics(session: Session[GrpoConfig], last: int = 10) -> dict[str, float]:
    """Mean reward of the last steps that the journal holds, whichever attempt wrote them."""
    rewards = [event["values"]["reward"] for event in session.run.events("metric") if "reward" in event["values"]]
    recent = [float(value) for value in rewards[-last:]]
    return {"reward": sum(recent) / len(recent)} if recent else {}
