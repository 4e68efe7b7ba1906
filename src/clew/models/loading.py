"""From a :class:`ModelSource` to a Transformers model and tokenizer in memory.

Code that comes with a model is never run (``trust_remote_code`` stays off).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from clew.errors import UserError, require
from clew.models.source import ModelSource

T = TypeVar("T")


def load_model(
    source: ModelSource,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    *,
    trainable_adapter: bool = False,
) -> Any:
    """Load a causal language model, with its adapter if it has one.

    Args:
        source: Where it is.
        dtype: Of the weights: a name such as ``bfloat16``, or a dtype.
        device: Where the weights go.
        trainable_adapter: Whether the adapter's weights are to be trained on; otherwise nothing is.

    Returns:
        A ``PreTrainedModel``, or a ``PeftModel`` around one. Its ``name_or_path`` is ``source.reference``, which is
        what an adapter that is trained on it will name as its base.

    Raises:
        UserError: If it cannot be found or read.
    """
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    model = _load_gguf(source, kind) if source.gguf_file else _load_base(source, kind)
    model.name_or_path = model.config._name_or_path = source.reference
    if source.adapter:
        peft = require("peft", extra="tune")
        with _explained(str(source.adapter)):
            model = peft.PeftModel.from_pretrained(model, str(source.adapter), is_trainable=trainable_adapter)
    return model.to(device).eval()


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
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load_base(source: ModelSource, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return _from_pretrained(AutoModelForCausalLM.from_pretrained, source.base, dtype=dtype)


def _load_gguf(source: ModelSource, dtype: torch.dtype) -> Any:
    """Load a GGUF file with its weights unpacked.

    Without ``dequantize`` Transformers keeps a quantizer beside the model, which can then be neither saved nor trained.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    require("gguf", extra="gguf")
    return _from_pretrained(
        AutoModelForCausalLM.from_pretrained,
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
    except (OSError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if Path(name).is_dir():
            raise UserError(f"this model cannot be loaded: {reason}", where=name) from error
        raise UserError(
            f"there is no folder {name!r}, and no such model in the local cache or on a hub that can be reached",
            hint="give the path of a model folder or a .gguf file, or download the model first",
        ) from error
