"""Reinforcement learning on a task's rewards: GRPO (Shao et al. 2024, arXiv:2402.03300), by TRL's ``GRPOTrainer``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from clew.config import NOT_HASHED, Plugin, config
from clew.engines.vllm import require_vllm
from clew.errors import UserError, require
from clew.jobs.acceleration import Accelerator, accelerate, load_trainable
from clew.jobs.base import CheckpointConfig, JobConfig, RuntimeConfig, job
from clew.jobs.probe import EvaluateConfig, asked
from clew.jobs.rating import Published
from clew.jobs.rollouts import RolloutRecorder
from clew.jobs.tuning import (
    LoraConfig,
    TuningConfig,
    check_context,
    conclude,
    keep_float32,
    newest,
    trainer_arguments,
)
from clew.jobs.watch import check_watched, watch_of
from clew.models.quantization import Quantization, check_trainable
from clew.models.source import ModelReference, check_reference, resolve
from clew.runs.journal import Event
from clew.session import Outcome, Session
from clew.session.surface import LiveConfig
from clew.tasks import Chat, Example, Task, messages_of, prompt_ids, render_prompt, require_parts, uses_chat


@config
class GrpoTraining(TuningConfig):
    """How long, and in what batches."""

    lr: Annotated[float, Field(ge=0)] = 1e-5
    """Peak learning rate of AdamW; 0 changes nothing, which shows what a run measures besides."""
    steps: Annotated[int, Field(ge=1)] = 100
    """Optimizer steps; each one generates anew, so no step learns from another policy's completions."""
    prompts_per_step: Annotated[int, Field(ge=1)] = 4
    """Different prompts in one step."""
    generations: Annotated[int, Field(ge=2)] = 8
    """Completions for each prompt; their mean reward is the baseline of the group."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Completions in one forward pass; must divide prompts_per_step * generations; null means all of them."""
    loss: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    """How token losses are averaged: dapo over all of a step (arXiv:2503.14476), bnpo over a forward pass."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Whether advantages are divided by a standard deviation, and whose."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the model at the start; 0 needs no reference model."""
    max_logprob_gap: Annotated[float, Field(gt=0)] | None = None
    """Fail if generating and training disagree by more nats about a sampled token; null only logs it (logprob_gap)."""

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
    engine: Literal["transformers", "vllm"] = "transformers"
    """What draws them: the model that is trained, or vLLM beside it on the same GPU."""


@config
class GrpoConfig(JobConfig):
    """Reinforcement learning of a model on a task's rewards."""

    model: ModelReference
    """The model to start from: a folder, a hub id, a URL, a .gguf file, or a run as run:NAME[@best|@last|@STEP]."""
    task: Annotated[Task, Plugin("task")]
    """Where prompts and rewards come from."""
    lora: LoraConfig | None = Field(default_factory=LoraConfig)
    """Train an adapter; null trains every weight. A model that brings an adapter goes on with that one."""
    quantize: Quantization = "none"
    """Keep the model's linear layers in 8 bits (int8) or 4 (nf4, fp4) while an adapter is trained: QLoRA."""
    accelerator: Accelerator = "none"
    """unsloth loads the model by Unsloth, on CUDA; auto does where it is installed."""
    chat: Chat = "auto"
    """Whether prompts go through the tokenizer's chat template; auto does when there is one."""
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    """How completions are drawn."""
    training: GrpoTraining = Field(default_factory=GrpoTraining)
    """Optimizer, steps and groups."""
    evaluate: EvaluateConfig | None = None
    """Ask the task's problems during the training; null never does."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When to save; every new best is saved besides, where evaluate.best_by or training.early_stopping look for it."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device and threads."""
    live: Annotated[LiveConfig, NOT_HASHED] = Field(default_factory=LiveConfig)
    """What the run notes about itself while it goes on, and what it does in trouble."""
    publish: Published = "last"
    """Publish the weights after the last step, or those of the best checkpoint."""

    def __post_init__(self) -> None:
        check_watched(self, validates=False)


def _check(config: GrpoConfig, runs: Path) -> None:
    check_reference(config.model, runs)
    source = resolve(config.model, runs)
    if config.training.beta and config.lora is None and source.gguf_file and source.adapter is None:
        raise UserError(
            "training.beta needs the model a second time as the reference, which a .gguf file cannot be loaded for",
            where=config.model,
            hint="train an adapter, whose base is the reference; or write the model as a folder with the job export",
        )
    if config.quantize != "none" and config.lora is None:
        check_trainable(config.quantize, resolve(config.model, runs))
    require_parts(config.task, "prompts", "rewards", needed_by="grpo")
    if config.evaluate is not None:
        asked(config.task, config.evaluate, "grpo")
    _prompts(config)  # reads all data, so that a bad row shows before a run is made of it


@job(check=_check)
def grpo(session: Session[GrpoConfig]) -> Outcome:
    """Improve a model on a task's rewards by group-relative policy optimisation."""
    config = session.config
    from clew.train.devices import prepare

    problems = asked(config.task, config.evaluate, "grpo") if config.evaluate else []
    device = prepare(config.runtime.device, config.runtime.threads, config.seed)
    unsloth = accelerate(config.accelerator, device)  # before TRL is imported
    require("trl", extra="tune")

    from clew.jobs.policy import PolicyTrainer
    from clew.jobs.policy_settings import policy_settings
    from clew.live.huggingface import train
    from clew.live.language_rows import ExampleRows
    from clew.models.loading import load_tokenizer

    source = resolve(config.model, session.run.path.parent)
    tokenizer = load_tokenizer(source)
    prompts = _prompts(config)
    training = config.training
    recorder = RolloutRecorder(session, config.task, prompts, generations=training.generations)
    model, adapter = load_trainable(
        source,
        device,
        lora=config.lora,
        quantize=config.quantize,
        training=config.training,
        seed=config.seed,
        unsloth=unsloth,
    )
    trainer = PolicyTrainer(
        weights=recorder.weights,
        max_logprob_gap=training.max_logprob_gap,
        model=model,
        reward_funcs=recorder.functions(),
        args=_arguments(session, device),
        train_dataset=_dataset(config, model, tokenizer, prompts),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    keep_float32(trainer.model)
    watch = watch_of(config, trainer.model, tokenizer, problems)
    finished = train(
        session,
        trainer,
        policy=config.checkpoint,
        live=config.live,
        watch=watch,
        rows=lambda split: ExampleRows(config.task, _prompts(config, split), tokenizer, config.chat),
        more=policy_settings(trainer, recorder),
        section="training",
    )
    notes = {
        "prompts": len(prompts),
        "skipped_rows": len(config.task.skipped("prompts", "train")),
        **watch.notes(trainer.state.max_steps, finished),
    }
    return conclude(session, trainer, tokenizer, config.publish, _final_metrics, notes)


def _prompts(config: GrpoConfig, split: str = "train") -> Sequence[Example]:
    prompts = config.task.prompts(split)
    if not prompts:
        raise UserError(f"the task has no {split} prompts", hint="grpo needs at least one")
    return prompts


def _dataset(config: GrpoConfig, model: Any, tokenizer: Any, prompts: Sequence[Example]) -> Any:
    """Render the prompts for TRL, each with its place.

    Raises:
        UserError: If a prompt is empty, or does not fit into the model's context together with its completion.
    """
    import datasets

    new_tokens = config.sampling.max_new_tokens
    for example in prompts:
        length, where = len(prompt_ids(example.prompt, tokenizer, config.chat)), f"train prompt {example.id}"
        if not length:
            raise UserError("the prompt is empty", where=where)
        check_context(
            model,
            f"a prompt has {length} tokens, {length + new_tokens} with sampling.max_new_tokens={new_tokens}",
            length + new_tokens,
            where=where,
            hint="shorten or drop the prompt, or lower sampling.max_new_tokens",
        )
    rows = [{"prompt": _prompt(one, tokenizer, config.chat), "index": place} for place, one in enumerate(prompts)]
    return datasets.Dataset.from_list(rows)


def _prompt(example: Example, tokenizer: Any, chat: Chat) -> Any:
    """Messages where there is a chat template, which TRL then applies; else plain text."""
    text = render_prompt(example.prompt, tokenizer, chat)  # refuses a template that would lose a turn
    return messages_of(example.prompt) if uses_chat(tokenizer, chat) else text


def _arguments(session: Session[GrpoConfig], device: Any) -> Any:
    import trl

    from clew.live.huggingface import scratch_directory

    config, training = session.config, session.config.training
    batch = training.prompts_per_step * training.generations
    return trl.GRPOConfig(
        output_dir=str(scratch_directory(session)),
        num_generations=training.generations,
        num_iterations=1,
        max_completion_length=config.sampling.max_new_tokens,
        temperature=config.sampling.temperature,
        top_p=config.sampling.top_p,
        **_generator(config.sampling, device),
        beta=training.beta,
        loss_type=training.loss,
        scale_rewards=training.scale_rewards,
        shuffle_dataset=not config.task.keeps_order(),
        **trainer_arguments(
            training,
            device=device,
            seed=config.seed,
            steps=training.steps,
            batch_size=batch,
            micro_batch_size=training.micro_batch_size or batch,
        ),
    )


def _generator(sampling: SamplingConfig, device: Any) -> dict[str, Any]:
    """Return TRL's arguments for the engine that draws completions.

    Raises:
        UserError: If it is vLLM, and this machine has no CUDA or no vLLM.
    """
    if sampling.engine == "transformers":
        return {}
    if device.type != "cuda":
        raise UserError(
            f"sampling.engine=vllm needs CUDA, and this run is on {device.type}",
            hint="set sampling.engine=transformers",
        )
    require_vllm("sampling.engine=vllm")
    return {"use_vllm": True, "vllm_mode": "colocate"}


def _final_metrics(events: Sequence[Event], last: int = 10) -> dict[str, float]:
    """Mean reward of the last steps, and the newest evaluation, whichever attempt wrote them."""
    rewards = [float(event["values"]["reward"]) for event in events if "reward" in event["values"]][-last:]
    found = {"reward": sum(rewards) / len(rewards)} if rewards else {}
    return found | newest(events, "eval/")
