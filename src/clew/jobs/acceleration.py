"""The model that is trained: loaded by Transformers, or by Unsloth on a CUDA machine that has it.

Unsloth replaces layers of the common architectures by its own kernels. The calls are written from the source of version
2026.10.9 (`unsloth/models/loader.py` and `llama.py`); they could not be run here, because it needs a GPU.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from clew.errors import MissingLibrary, UserError
from clew.jobs.tuning import LoraConfig, TuningConfig, peft_config
from clew.models.quantization import Quantization, quiet_bitsandbytes
from clew.models.source import ModelSource

if TYPE_CHECKING:
    import torch

Accelerator = Literal["none", "auto", "unsloth"]


def accelerate(choice: Accelerator, device: torch.device) -> bool:
    """Return whether a model is to be loaded by Unsloth, which is imported then: it must come before TRL.

    Args:
        choice: ``auto`` takes it on CUDA where it is installed.
        device: Where the model is trained.

    Raises:
        UserError: If it is asked for, and this machine has no CUDA or no Unsloth.
    """
    quiet_bitsandbytes()  # TRL imports it, too
    there = device.type == "cuda" and find_spec("unsloth") is not None
    if choice == "unsloth" and device.type != "cuda":
        raise UserError(
            f"accelerator=unsloth needs CUDA, and this run is on {device.type}", hint="set accelerator=none, or auto"
        )
    if choice == "unsloth" and not there:
        raise MissingLibrary(
            "accelerator=unsloth needs the library 'unsloth', which is not installed",
            hint="install it as docs/jobs.md says, or set accelerator=none",
        )
    if choice == "none" or not there:
        return False
    importlib.import_module("unsloth")
    return True


def load_trainable(
    source: ModelSource,
    device: torch.device,
    *,
    lora: LoraConfig | None,
    quantize: Quantization,
    training: TuningConfig,
    seed: int,
    unsloth: bool,
) -> tuple[Any, Any]:
    """Load a model that is to be trained.

    Args:
        source: The model; one that brings an adapter goes on with it.
        device: Where the model is trained.
        lora: The new adapter; None for none.
        quantize: How the weights of linear layers are kept.
        training: Its switches for memory and precision.
        seed: Of the adapter's first weights.
        unsloth: What :func:`accelerate` said.

    Returns:
        The model, and PEFT's config of an adapter that is still to be added by the trainer; None where none is.

    Raises:
        UserError: If the model cannot be loaded in this way.
    """
    if unsloth:
        return _load_unsloth(source, lora, quantize, training, seed), None
    from clew.models.loading import load_model

    model = load_model(source, device=device, quantize=quantize, trainable_adapter=True)
    return model, peft_config(lora) if lora and source.adapter is None else None


def _load_unsloth(
    source: ModelSource, lora: LoraConfig | None, quantize: Quantization, training: TuningConfig, seed: int
) -> Any:
    from transformers import AutoConfig
    from unsloth import FastLanguageModel

    if source.adapter or source.gguf_file or quantize == "fp4":
        what = "an adapter" if source.adapter else "a .gguf file" if source.gguf_file else "quantize=fp4"
        raise UserError(f"Unsloth does not go on from {what} here", hint="set accelerator=none")
    context = AutoConfig.from_pretrained(source.base, trust_remote_code=False).max_position_embeddings
    checkpointing = "unsloth" if training.activation_checkpointing else False
    model, _ = FastLanguageModel.from_pretrained(
        model_name=source.base,
        max_seq_length=context,
        load_in_4bit=quantize == "nf4",
        load_in_8bit=quantize == "int8",
        full_finetuning=lora is None,
        use_gradient_checkpointing=checkpointing,
        use_exact_model_name=True,  # else it fetches a quantised copy of known models from a hub
        random_state=seed,
    )
    model.name_or_path = model.config._name_or_path = source.reference
    if lora is None:
        return model
    return FastLanguageModel.get_peft_model(
        model,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        use_gradient_checkpointing=checkpointing,
        random_state=seed,
        # Its own default is every linear layer but the output layer.
        **({} if lora.targets == ["all-linear"] else {"target_modules": lora.targets}),
    )
