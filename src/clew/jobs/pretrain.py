"""Pretrain: a decoder from scratch, on the documents of a task."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from clew.config import ADDED, NOT_HASHED, Plugin, config
from clew.data.config import DataConfig, TaskSource
from clew.errors import DataError, NotFinite, UserError
from clew.jobs.base import CheckpointConfig, JobConfig, RuntimeConfig, job
from clew.jobs.probe import EvaluateConfig, Probe, asked
from clew.jobs.rating import Published, Rating, best_checkpoint
from clew.models.config import ModelConfig
from clew.models.source import ModelReference, check_reference
from clew.models.tokenizers import ByteTokenizer, TokenizerConfig
from clew.session import Outcome, Session
from clew.session.surface import LiveConfig
from clew.sharding import MESH_AXES, MeshConfig
from clew.tasks import Example, Task, require_parts
from clew.train.config import TrainingConfig

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh

    from clew.data.packing import Samples
    from clew.jobs.corpus import Corpus
    from clew.jobs.pretrainer import Pretrainer
    from clew.models.decoder import Decoder
    from clew.train.slices import Slices


@config
class PretrainConfig(JobConfig):
    """A decoder from scratch; `model.depth` is the dial that sets its size, learning rate and horizon."""

    task: Annotated[Task, Plugin("task")]
    """Whose documents to train on, unless data.source says otherwise, and whose problems to ask."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The decoder."""
    start: Annotated[ModelReference | None, ADDED] = None
    """Weights to begin with instead of drawn ones: a Llama of the sizes in model, as a folder, `run:NAME` or a URL."""
    tokenizer: TokenizerConfig = Field(default_factory=ByteTokenizer)
    """How text becomes tokens; folders of tokens bring their own tokenizer."""
    data: DataConfig = Field(default_factory=DataConfig)
    """Where samples come from, and how documents become samples."""
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    """The native loop."""
    evaluate: EvaluateConfig | None = None
    """Ask the task's problems during the training; null never does."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When to save; every new best is saved besides, where evaluate.best_by or training.early_stopping look for it."""
    live: Annotated[LiveConfig, NOT_HASHED] = Field(default_factory=LiveConfig)
    """What the run notes about itself, and what it does when the loss is no longer finite."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device, threads, and processes."""
    mesh: Annotated[MeshConfig, NOT_HASHED] = Field(default_factory=MeshConfig)
    """How model and batches lie on the processes, when there are several; the layout changes no result."""
    publish: Published = "last"
    """Publish the weights after the last step, or those of the best checkpoint."""

    def __post_init__(self) -> None:
        one_step = self.training.batch_size * self.data.seq_len
        if self.training.tokens is not None and self.training.tokens < one_step:
            raise ValueError(
                f"training.tokens: {self.training.tokens} are less than the {one_step} of a single step "
                "(training.batch_size times data.seq_len)"
            )
        if self.needs_validation and self.training.validate_every is None:
            raise ValueError(
                "publish and training.validate_every: nothing decides which checkpoint is the best; "
                "validate, or set evaluate.best_by"
            )

    @property
    def rating(self) -> Rating:
        """What decides which checkpoint is the best."""
        return Rating.chosen(self.evaluate, "val_loss")

    @property
    def needs_validation(self) -> str:
        """The field that cannot do without a validation loss; empty when none needs it."""
        if self.training.early_stopping is not None:
            return "training.early_stopping"
        return "publish" if self.publish == "best" and self.rating.metric == "val_loss" else ""

    @property
    def keeps_best(self) -> bool:
        """Whether every new best is saved at once."""
        return bool(self.needs_validation) or self.publish == "best" or self.rating.metric != "val_loss"


def _check(config: PretrainConfig, runs: Path) -> None:
    if isinstance(config.data.source, TaskSource):
        require_parts(config.task, "documents", needed_by="pretrain")
        if next(iter(config.task.documents("train")), None) is None:
            raise _no_text(config)
    else:
        from clew.jobs.corpus import check_source

        check_source(config.data)
    if config.start is not None:
        check_reference(config.start, runs)
    if config.evaluate is not None:
        asked(config.task, config.evaluate, "pretrain")
    if config.runtime.ranks > 1:
        _check_ranks(config, runs)


def _check_ranks(config: PretrainConfig, runs: Path) -> None:
    """Refuse what is done in one process only, and a mesh that does not fit the model."""
    from clew.jobs.mesh import planned  # needs torch, as several ranks do

    if config.mesh.preset == "none" and config.mesh.sizes(1) == dict.fromkeys(MESH_AXES, 1):
        raise UserError(
            f"nothing says what {config.runtime.ranks} processes share",
            where="mesh.preset",
            hint="set mesh.preset=ddp, or fsdp where the weights are to be shared as well",
        )
    planned(config, config.mesh, config.runtime.ranks, runs)
    replicas = config.mesh.preset == "ddp"
    refused = {
        "training.compile": (
            config.training.compile,
            "compiled models train in one process only",
            "set runtime.ranks=1",
        ),
        "training.optimizer": (
            config.training.optimizer.type != "adamw" and not replicas,
            "muon needs whole matrices",
            "use adamw, or mesh.preset=ddp",
        ),
        "live.health_every": (
            config.live.health_every is not None and not replicas,
            "the health of shards cannot be told",
            "leave it out, or set mesh.preset=ddp",
        ),
    }
    for key, (is_there, what, hint) in refused.items():
        if is_there:
            raise UserError(what, where=key, hint=hint)


def _no_text(config: PretrainConfig) -> DataError:
    name = type(config.task).__name__
    return DataError(f"the task {name} has no text to train on", hint="look at its documents('train')")


@job(check=_check, ranks=True)
def pretrain(session: Session[PretrainConfig]) -> Outcome:
    """Train a decoder from scratch on a task's documents."""
    from clew.train.devices import prepare_rank

    config, ranks = session.config, session.ranks
    device = prepare_rank(config.runtime.device, config.runtime.threads, config.seed, ranks)
    if ranks.size == 1:
        return _pretrain(session, device)
    from clew.sharding.group import on_mesh

    with on_mesh(ranks, device, config.mesh.sizes(ranks.size)) as mesh:
        return _pretrain(session, device, mesh)


def _pretrain(session: Session[PretrainConfig], device: torch.device, mesh: DeviceMesh | None = None) -> Outcome:
    """Build everything on a device, or on this process's part of a mesh, train, and publish."""
    from clew.jobs.corpus import read_corpus
    from clew.jobs.pretrainer import EXPORTED, Pretrainer

    config = session.config
    problems = asked(config.task, config.evaluate, "pretrain") if config.evaluate else []
    corpus = read_corpus(config.data, config.task, config.tokenizer, session.run.path.parent.parent)
    tokenizer, splits = corpus.tokenizer, _splits(config, corpus)

    model = _decoder(session, tokenizer).to(device)
    num_parameters = model.shape.num_parameters(model.vocab_size)
    total = config.training.total_steps(seq_len=config.data.seq_len, num_parameters=num_parameters)
    lr = config.training.lr or model.shape.learning_rate
    slices = None if mesh is None else _split(config, model, mesh)
    asks = _asks(session, problems, model, tokenizer, slices)
    trainer = Pretrainer(
        model,
        tokenizer,
        splits,
        config.training,
        lr=lr,
        total_steps=total,
        seed=config.seed,
        problems=asks,
        workers=config.data.workers,
        shares=corpus.shares,
        slices=slices,
    )
    _train(session, trainer)
    notes: dict[str, Any] = {
        "parameters": num_parameters,
        "samples": len(splits["train"]),
        "skipped_rows": len(config.task.skipped("documents", "train")) if not corpus.is_stored else 0,
        "steps": trainer.step_number,
        "peak_lr": lr,
    }
    if corpus.shares and trainer.feed.selection is None:
        notes["mixture"] = dict(zip(corpus.names, trainer.feed.counts(trainer.feed.samples_seen), strict=True))
    if trainer.step_number < trainer.total_steps:
        notes["stopped_early"] = {"of_steps": trainer.total_steps, **trainer.patience.state()}
    if config.publish == "last":
        return _publish(session, trainer.export, trainer.latest, notes)
    if not session.ranks.leads:
        return Outcome()
    best = best_checkpoint(session.settled())
    metrics = {**trainer.latest, **_measured_at(session, best.step)}
    return _publish(
        session, partial(shutil.copytree, best.path / EXPORTED), metrics, {**notes, "published_step": best.step}
    )


def _decoder(session: Session[PretrainConfig], tokenizer: Any) -> Decoder:
    """Return a decoder with drawn weights, or with those that the config says to begin with."""
    from clew.models.decoder import Decoder
    from clew.models.tokenizers import vocab_size

    config = session.config
    if config.start is None:
        return Decoder(config.model, vocab_size(tokenizer), config.data.seq_len)
    from clew.jobs.starting import find_start

    found = find_start(config.start, session.run.path.parent, config.model, tokenizer)
    model = Decoder(config.model, found.vocab_size, config.data.seq_len)
    found.fill(model)
    return model


def _split(config: PretrainConfig, model: Decoder, mesh: DeviceMesh) -> Slices:
    """Leave a process its part of a model, and return how the training is cut."""
    from clew.sharding.parallel import parallelize
    from clew.train.meshed import Meshed

    parallelize(model, config.mesh, mesh)
    return Meshed(mesh)


def _publish(
    session: Session[PretrainConfig],
    write: Callable[[Path], object],
    metrics: Mapping[str, float],
    notes: dict[str, Any],
) -> Outcome:
    with session.artifact("model") as folder:
        write(folder)
    return Outcome(metrics=_final_metrics(metrics), notes=notes)


def _asks(
    session: Session[PretrainConfig], problems: Sequence[Example], model: Decoder, tokenizer: Any, slices: Slices | None
) -> Callable[[], dict[str, float]] | None:
    """Return what asks the problems; None where none are asked."""
    config = session.config
    if config.evaluate is None:
        return None
    probe = partial(_probe, config, problems, tokenizer)
    if slices is None:
        return probe(model).measure
    from clew.jobs.mirror import Mirror

    return Mirror(model, slices, probe, leads=session.ranks.leads).measure


def _probe(config: PretrainConfig, problems: Sequence[Example], tokenizer: Any, model: Decoder) -> Probe:
    from clew.engines.native import native_engine

    assert config.evaluate is not None
    return Probe(config.task, problems, config.evaluate, native_engine(model, tokenizer, seed=config.seed))


def _train(session: Session[PretrainConfig], trainer: Pretrainer) -> None:
    """Go from the newest checkpoint, or from the start, to the last step or to the end of patience."""
    session.attach(trainer, session.config.checkpoint, session.config.live)
    session.horizon(trainer.total_steps)
    while trainer.step_number < trainer.total_steps and not trainer.patience.is_out:
        trainer.step()
        rating = None
        try:
            rating = _look(session, trainer)
        except NotFinite as error:
            session.rescue(trainer.step_number, error)
        session.boundary(trainer.step_number, metric=rating)


def _look(session: Session[PretrainConfig], trainer: Pretrainer) -> float | None:
    """Measure and log what is due after a step, and keep a new best; return how the state is rated, if it counts."""
    config, step, total = session.config, trainer.step_number, trainer.total_steps
    measured: dict[str, float] = {}
    if trainer.held_out is not None and config.training.validates_at(step, total):
        measured["val_loss"] = trainer.validate(trainer.held_out)
    last = step == total or trainer.patience.is_out
    if trainer.problems is not None and config.evaluate is not None and (last or step % config.evaluate.every == 0):
        measured |= trainer.probe(trainer.problems)
    if step % config.training.log_every == 0 or last:
        session.log(step, trainer.measure())
    if measured:
        session.log(step, measured)
    rating = config.rating.of(measured)
    is_best = rating is not None and trainer.best.update(step, rating)
    if not config.keeps_best:
        return rating
    if is_best:
        session.checkpoint(step, metric=rating)
    # Only what is better than all before is rated: a stop in between must not make an equal one the best.
    return rating if is_best else None


def _splits(config: PretrainConfig, corpus: Corpus) -> Mapping[str, Samples]:
    """The samples by split; without ``validation`` where nothing is held out."""
    if "train" not in corpus.splits:
        raise _no_text(config)
    if "validation" not in corpus.splits and (needs := config.needs_validation):
        what = "data.source" if corpus.is_stored else f"the task {type(config.task).__name__}"
        where = "data.source" if corpus.is_stored else "its documents('validation')"
        raise DataError(
            f"{what} has no text to validate on, which {needs} needs", hint=f"look at {where}, or leave {needs} out"
        )
    return corpus.splits


def _measured_at(session: Session[PretrainConfig], step: int) -> dict[str, float]:
    events = [event["values"] for event in session.events("metric") if event["step"] == step]
    return {name: float(value) for values in events for name, value in values.items()}


def _final_metrics(latest: Mapping[str, float]) -> dict[str, float]:
    """The newest of what was logged; a trainer that was resumed after its last step has them from its state."""
    names = {"loss": "train_loss", "val_loss": "val_loss", "tokens": "tokens"}
    return {names.get(name, name): value for name, value in latest.items() if name in names or name.startswith("eval/")}
