"""From a :class:`ModelSource` to a Transformers model and tokenizer in memory.

Code that comes with a model is never run: ``trust_remote_code`` stays off, and weights that are a pickle are not read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from clew.errors import UserError, require
from clew.models.quantization import Quantization, quantization_config, quiet_bitsandbytes
from clew.models.source import ModelSource

T = TypeVar("T")


def load_model(
    source: ModelSource,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    *,
    quantize: Quantization = "none",
    trainable_adapter: bool = False,
) -> Any:
    """Load a causal language model, with its adapter if it has one.

    Args:
        source: Where it is.
        dtype: Of the weights: a name such as ``bfloat16``, or a dtype.
        device: Where the weights go.
        quantize: Whether the linear layers' weights are kept in 8 or 4 bits; the others keep the dtype.
        trainable_adapter: Whether the adapter's weights are to be trained on; otherwise nothing is.

    Returns:
        A ``PreTrainedModel``, or a ``PeftModel`` around one. Its ``name_or_path`` is ``source.reference``, which is
        what an adapter that is trained on it will name as its base.

    Raises:
        UserError: If it cannot be found, read or quantised.
    """
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if quantize != "none":
        model = _load_quantized(source, kind, device, quantize, trains=trainable_adapter)
    else:
        model = _load_gguf(source, kind) if source.gguf_file else _load_base(source, kind)
    model.name_or_path = model.config._name_or_path = source.reference
    if source.adapter:
        quiet_bitsandbytes()
        peft = require("peft", extra="tune")
        with _explained(str(source.adapter)), warnings.catch_warnings():
            # Otherwise the parts that are missing would be those of a fresh adapter, which does nothing.
            warnings.filterwarnings("error", message=".*missing adapter keys", category=UserWarning)
            model = peft.PeftModel.from_pretrained(model, str(source.adapter), is_trainable=trainable_adapter)
    # Quantised weights are where they belong already.
    return (model if quantize != "none" else model.to(device)).eval()


def load_tokenizer(source: ModelSource) -> Any:
    """Load the tokenizer: the adapter's if it brings one, else the base's. It has a padding token afterwards.

    Raises:
        UserError: If it cannot be found or read.
    """
    from transformers import AutoTokenizer

    folder = source.tokenizer_folder
    if folder is not None or source.gguf_file is None:
        name, more = str(folder or source.base), {}
    else:
        require("gguf", extra="gguf")
        name, more = source.base, {"gguf_file": source.gguf_file}
    tokenizer = _from_pretrained(AutoTokenizer.from_pretrained, name, **more)
    if tokenizer.pad_token_id is None and tokenizer.eos_token is None:
        raise UserError(
            "the tokenizer has neither a padding token nor an end token",
            where=name,
            hint="set one of them and save it: tokenizer.pad_token = '<pad>'; tokenizer.save_pretrained(folder)",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load_base(source: ModelSource, dtype: torch.dtype) -> Any:
    return _load_weights(source.base, dtype=dtype, use_safetensors=True)


def _load_weights(name: str, **more: Any) -> Any:
    """Load a model, all of whose weights must be there: Transformers would go on with random ones."""
    from transformers import AutoModelForCausalLM

    model, report = _from_pretrained(AutoModelForCausalLM.from_pretrained, name, output_loading_info=True, **more)
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"the weights are not of the model that config.json describes: {len(missing)} are missing, such as "
            f"{missing[0]}",
            where=name,
            hint="config.json and the weights must be of the same model",
        )
    return model


def _load_quantized(
    source: ModelSource, dtype: torch.dtype, device: str | torch.device, kind: Quantization, *, trains: bool
) -> Any:
    # Adapters are trained in bfloat16 on CUDA (see `TuningConfig.precision`), so 4-bit weights are unpacked to it.
    product = torch.bfloat16 if trains and torch.device(device).type == "cuda" else dtype
    model = _load_weights(
        source.base,
        dtype=dtype,
        use_safetensors=True,
        device_map={"": device},
        quantization_config=quantization_config(kind, source, product),
    )
    if trains:
        peft = require("peft", extra="tune")
        # The trainer turns checkpointing of activations on where it is asked for.
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return model


def _load_gguf(source: ModelSource, dtype: torch.dtype) -> Any:
    """Load a GGUF file with its weights unpacked.

    Without ``dequantize`` Transformers keeps a quantizer beside the model, which can then be neither saved nor trained.
    """
    from transformers import GgufConfig

    require("gguf", extra="gguf")
    return _load_weights(
        source.base,
        gguf_file=source.gguf_file,
        quantization_config=GgufConfig(dequantize=True),
        dtype=dtype,
    )


def _from_pretrained(load: Callable[..., T], name: str, **more: Any) -> T:
    with _explained(name):
        return load(name, trust_remote_code=False, **more)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what a loader raises about files and networks into one sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, UserWarning) as error:
        reason = _reason(error)
        if Path(name).is_dir():
            raise UserError(f"this model cannot be loaded: {reason}", where=name) from error
        raise UserError(
            f"there is no folder {name!r}, and no such model in the local cache or on a hub that can be reached",
            hint="give the path of a model folder or a .gguf file, or download the model first",
        ) from error


def _reason(error: Exception) -> str:
    """The first line; where shapes differ, both libraries say it in words for programmers."""
    text = str(error)
    if "missing adapter keys" in text:
        return "its weights are not those that adapter_config.json describes"
    if "mismatched_sizes" in text or "size mismatch" in text:
        return "its weights have other shapes than those of the model that they are for"
    return next((line for line in text.splitlines() if line.strip()), type(error).__name__)
