"""Everything that trains under a session, each as small as it can be and of the same length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from tuning_support import Echo

import clew
from clew.config import config
from clew.data.config import DataConfig
from clew.engines import GenerationConfig
from clew.jobs.base import CheckpointConfig, RuntimeConfig
from clew.jobs.grpo import GrpoConfig, GrpoTraining, SamplingConfig, grpo
from clew.jobs.pretrain import PretrainConfig, pretrain
from clew.jobs.probe import EvaluateConfig
from clew.jobs.script import ScriptConfig
from clew.jobs.sft import SftConfig, SftTraining, sft
from clew.jobs.tuning import LoraConfig
from clew.live.script import newest_metrics, surrounded
from clew.models.config import ModelConfig
from clew.session import Outcome, Session
from clew.session.surface import LiveConfig
from clew.tasks import Task
from clew.train import TrainingConfig
from clew.train.schedules import Constant
from tiny_jobs import CountConfig, count

STEPS, LR, SAMPLES, BATCH = 14, 0.01, 40, 8
POLICY = CheckpointConfig(every=5)
LIVE = LiveConfig(digest_every=1)
RUNTIME = RuntimeConfig(threads=1)


@dataclass(frozen=True)
class Place:
    """Where an adapter finds what it needs.

    Attributes:
        model: A tiny language model.
        folder: Scratch space.
    """

    model: str
    folder: Path


@dataclass(frozen=True)
class Adapter:
    """One way to train.

    Attributes:
        make: Returns the job and its config.
        rate: What it calls the learning rate in its metrics; empty where there is none.
        clip: What it calls the bound of the gradient's norm; empty where there is none.
        batch: What it calls the size of a batch; empty where there is none.
        is_large: Whether an attempt takes seconds.
        cannot: The verbs that it cannot carry out, with the reasons that it gives.
    """

    make: Callable[[Place], tuple[Any, Any]]
    rate: str = "lr"
    clip: str = "max_grad_norm"
    batch: str = "batch_size"
    is_large: bool = False
    cannot: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Script:
    """A job that is somebody's program."""

    body: Callable[[Place], None]
    place: Place

    def run(self, session: Session[Any]) -> Outcome:
        """Run it as ``clew resume`` would."""
        with surrounded(session):
            self.body(self.place)
        return Outcome(metrics=newest_metrics(session))


def script(body: Callable[[Place], None]) -> Callable[[Place], tuple[Any, Any]]:
    """Make an adapter of a program."""
    return lambda place: (Script(body, place), ScriptConfig(script=None, seed=3, checkpoint=POLICY, live=LIVE))


# Jobs.


@config
class Rhymes(Task):
    """Three words over and over."""

    def documents(self, split: str) -> Iterable[str]:
        return ["one two three"] * 60


def counting(place: Place) -> tuple[Any, Any]:
    return count, CountConfig(until=STEPS, every=5)


def pretraining(place: Place) -> tuple[Any, Any]:
    training = TrainingConfig(
        steps=STEPS, batch_size=4, lr=LR, schedule=Constant(), log_every=1, validate_every=None, max_grad_norm=None
    )
    return pretrain, PretrainConfig(
        task=Rhymes(),
        model=ModelConfig(depth=1, width=16, heads=2),
        data=DataConfig(seq_len=16),
        training=training,
        checkpoint=POLICY,
        runtime=RUNTIME,
        live=LIVE,
    )


def tuning(place: Place) -> tuple[Any, Any]:
    training = SftTraining(steps=STEPS, batch_size=4, lr=LR, schedule="constant", validate_every=1000)
    return sft, SftConfig(
        model=place.model,
        task=Echo(),
        training=training,
        lora=LoraConfig(rank=2, dropout=0.1),
        checkpoint=POLICY,
        runtime=RUNTIME,
        live=LIVE,
    )


def improving(place: Place) -> tuple[Any, Any]:
    return grpo, GrpoConfig(
        model=place.model,
        task=Echo(),
        training=GrpoTraining(steps=STEPS, prompts_per_step=2, generations=2, lr=LR, schedule="constant"),
        sampling=SamplingConfig(max_new_tokens=4),
        evaluate=EvaluateConfig(every=1000, limit=4, generation=GenerationConfig(max_new_tokens=4)),
        checkpoint=POLICY,
        runtime=RUNTIME,
        live=LIVE,
    )


# Programs.


def network() -> nn.Module:
    """Dropout and batch norm, so that random numbers and buffers count."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def samples(count: int = SAMPLES) -> TensorDataset:
    """Points in four dimensions, of three kinds."""
    generator = torch.Generator().manual_seed(count)
    kinds = torch.randint(0, 3, (count,), generator=generator)
    return TensorDataset(torch.randn(count, 4, generator=generator) + kinds[:, None], kinds)


def looping(place: Place) -> None:
    """A plain loop."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    points, kinds = samples(12).tensors

    def evaluate() -> dict[str, Tensor]:
        return {"val_loss": F.cross_entropy(model(points), kinds)}

    with clew.session(
        model=model,
        optimizer=optimizer,
        data=samples(),
        batch_size=BATCH,
        steps=STEPS,
        max_grad_norm=None,
        loss_fn=F.cross_entropy,
        evaluate=evaluate,
        log_every=1,
    ) as live:
        for inputs, targets in live.batches():
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            live.clip_gradients()
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            live.step(loss=loss, lr=rate)


def accelerated(place: Place) -> None:
    """A loop with Accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    loader = DataLoader(samples(), batch_size=BATCH, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    points, kinds = samples(12).tensors
    with clew.session(
        model=model,
        optimizer=optimizer,
        data=loader,
        steps=STEPS,
        max_grad_norm=None,
        loss_fn=F.cross_entropy,
        evaluate=lambda: {"val_loss": F.cross_entropy(model(points), kinds)},
        log_every=1,
    ) as live:
        for inputs, targets in live.batches():
            loss = F.cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            live.clip_gradients()
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            optimizer.zero_grad()
            live.step(loss=loss, lr=rate)


def fitting(place: Place) -> None:
    """One call."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    training = DataLoader(samples(), batch_size=BATCH, shuffle=True)
    clew.Trainer(log_every=1, validate_every=1000).fit(
        model, optimizer, F.cross_entropy, training, DataLoader(samples(12), batch_size=6), max_steps=STEPS
    )


def lightning(place: Place) -> None:
    """Lightning."""
    import lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = F.cross_entropy(self.network(batch[0]), batch[1])
            self.log("loss", loss, on_epoch=True)
            return loss

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.log("val_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=LR)

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=STEPS, log_every_n_steps=1, num_sanity_val_steps=0, limit_val_batches=2, **quiet
    )
    training = DataLoader(samples(), batch_size=BATCH, shuffle=True)
    with clew.attach_lightning(trainer):
        trainer.fit(Module(), training, DataLoader(samples(12), batch_size=6))


def hugging_face(place: Place) -> None:
    """A plain ``Trainer`` of Transformers, with our callback."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(place.model)
    texts = [f"{'abcdefgh'[: 3 + number % 5]}={number % 10}" for number in range(SAMPLES)]
    rows = [tokenizer(text, padding="max_length", max_length=12) for text in texts]
    data = [{**row, "labels": row["input_ids"]} for row in rows]
    arguments = TrainingArguments(
        str(place.folder / "out"),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=LR,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
    )
    model = AutoModelForCausalLM.from_pretrained(place.model)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data[:12], processing_class=tokenizer
    )
    trainer.add_callback(clew.callback(trainer))
    trainer.train()


NOTHING = {
    "evaluate": "this job has nothing to evaluate while it runs",
    "health": "this job does not say how it is doing",
    "inspect": "this job cannot look at single samples",
    "select": "this job's data cannot be chosen while it runs",
    "reset": "this job cannot be put back",
    "merge": "nothing can be merged into this job",
}
"""What a job answers that can only be saved and loaded."""

ADAPTERS = {
    "count": Adapter(counting, rate="", cannot=NOTHING),
    "pretrain": Adapter(pretraining),
    "sft": Adapter(tuning, rate="learning_rate", is_large=True),
    "grpo": Adapter(improving, rate="learning_rate", batch="prompts_per_step", is_large=True),
    "hugging face": Adapter(script(hugging_face), rate="learning_rate"),
    "lightning": Adapter(script(lightning), clip="gradient_clip_val"),
    "fit": Adapter(script(fitting)),
    "plain loop": Adapter(script(looping)),
    "accelerate loop": Adapter(script(accelerated)),
}
