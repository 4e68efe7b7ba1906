"""Weights in 8 or 4 bits, by bitsandbytes.

Only the linear layers are quantised, the output layer and the embeddings are not. A quantised model can carry an
adapter that is trained (QLoRA, Dettmers et al. 2023, arXiv:2305.14314), but its own weights cannot be trained.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from clew.errors import UserError, require
from clew.models.source import ModelSource

if TYPE_CHECKING:
    import torch

Quantization = Literal["none", "int8", "nf4", "fp4"]
"""The bits of the weights: int8 is LLM.int8() (arXiv:2208.07339), nf4 and fp4 are the 4-bit types of QLoRA."""


def quantization_config(kind: Quantization, source: ModelSource, dtype: torch.dtype) -> Any:
    """Return Transformers' form of a quantization; None for none.

    Args:
        kind: Which one.
        source: The model that is to be loaded.
        dtype: In which 4-bit weights are unpacked to be multiplied.

    Raises:
        UserError: If bitsandbytes is missing, or the model is a GGUF file, which has a quantization of its own.
    """
    if kind == "none":
        return None
    if source.gguf_file:
        raise UserError(
            f"the weights of a .gguf file cannot be loaded as {kind}",
            where=source.reference,
            hint="write it as a Hugging Face folder with the job export first",
        )
    quiet_bitsandbytes()
    require("bitsandbytes", extra="quantize")
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def quiet_bitsandbytes() -> None:
    """Let bitsandbytes speak of errors only; before it is imported, which PEFT does wherever it is installed.

    Else it says at its import that a kernel cannot be fetched from a hub, and on a CPU with every product of an int8
    layer that it computes in float16.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def check_trainable(kind: Quantization, source: ModelSource) -> None:
    """Check that a model that is loaded as ``kind`` brings the adapter that is to be trained.

    Raises:
        UserError: If it does not, so that every weight would have to be trained.
    """
    if kind != "none" and source.adapter is None:
        raise UserError(
            f"the weights of a model that is loaded as {kind} cannot be trained, only an adapter beside them",
            hint="leave lora out of the config to train an adapter, or set quantize=none",
        )
