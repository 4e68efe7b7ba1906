"""What a job's config says about its model and its steps, as far as a mesh has to know it; nothing is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clew.errors import UserError
from clew.jobs.base import JobConfig
from clew.jobs.pretrain import PretrainConfig
from clew.jobs.sft import SftConfig
from clew.models.source import resolve
from clew.models.tokenizers import BpeTokenizer, TokenizerConfig, vocab_size
from clew.sharding import MeshConfig
from clew.sharding.declared import Declared
from clew.sharding.plan import Plan, plan
from clew.sharding.work import Work


def planned(config: JobConfig, mesh: MeshConfig, devices: int, runs: Path) -> Plan:
    """Say what a mesh makes of a job.

    Args:
        config: Of a pretraining or a fine-tuning. Of a fine-tuning all weights are planned as trained ones.
        mesh: The rules and sizes.
        devices: How many there would be.
        runs: The folder of runs, in which a model may be.

    Raises:
        UserError: If it is of another job, or the mesh does not fit its model.
    """
    if isinstance(config, PretrainConfig):
        declared, work = _of_pretrain(config, mesh)
    elif isinstance(config, SftConfig):
        declared, work = _of_sft(config, mesh, runs)
    else:
        raise UserError(
            f"{type(config).__name__} says nothing of a model's shape", hint="name the config of a pretrain or sft job"
        )
    return plan(declared, mesh.sizes(devices), mesh.rules, work)


def _of_pretrain(config: PretrainConfig, mesh: MeshConfig) -> tuple[Declared, Work]:
    import torch

    from clew.models.decoder import Decoder
    from clew.sharding.parallel import declare

    with torch.device("meta"):
        model = Decoder(config.model, _vocab_size(config.tokenizer), config.data.seq_len)
    training = config.training
    return declare(model, mesh), Work(
        batch_size=training.batch_size,
        seq_len=config.data.seq_len,
        micro_batch_size=training.micro_batch_size,
        activation_bytes=2 if training.precision == "bf16" else 4,
        checkpointing=training.activation_checkpointing,
        optimizer=training.optimizer.type,
    )


def _vocab_size(tokenizer: TokenizerConfig) -> int:
    """What a tokenizer that is still to be trained may have at the most; others are asked."""
    if isinstance(tokenizer, BpeTokenizer):
        return tokenizer.vocab_size
    return vocab_size(tokenizer.build([]))


def _of_sft(config: SftConfig, mesh: MeshConfig, runs: Path) -> tuple[Declared, Work]:
    from clew.sharding.parallel import declare

    source = resolve(config.model, runs)
    if source.gguf_file is not None or not source.is_local:
        raise UserError(
            "only a model folder can be looked at without loading it", where=config.model, hint="download it first"
        )
    training = config.training
    return declare(_on_meta(source.base), mesh), Work(
        batch_size=training.batch_size,
        seq_len=training.max_length,
        micro_batch_size=training.micro_batch_size,
        activation_bytes=2 if training.precision in ("bf16", "fp16") else 4,
        checkpointing=training.activation_checkpointing,
    )


def _on_meta(folder: str) -> Any:
    """A model of a folder's config, without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder, trust_remote_code=False), trust_remote_code=False
        )
