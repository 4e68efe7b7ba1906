"""A Llama, Qwen2 or Qwen3 in memory as a GGUF file, the format of llama.cpp and what is built on it.

Layout and names of the metadata: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The order of the rows in a
Llama's query and key matrices differs: llama.cpp rotates neighbouring numbers, Transformers the two halves of a head.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.errors import UserError, require
from clew.models.gguf_tokenizer import add_tokenizer, open_writer

if TYPE_CHECKING:
    import numpy as np

GgufType = Literal["float32", "float16", "bfloat16", "q8_0"]
"""How matrices are stored; q8_0 is 8 bits with a scale for each 32 numbers. Vectors are always float32."""

# For each type: that of a tensor, and that of a file whose matrices are mostly of it.
_TYPES = {
    "float32": ("F32", "ALL_F32"),
    "float16": ("F16", "MOSTLY_F16"),
    "bfloat16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}
_ARCHITECTURES = ("llama", "qwen2", "qwen3")


def save_gguf(model: Any, tokenizer: Any, path: Path, kind: GgufType) -> None:
    """Write a model and its tokenizer to one file.

    Args:
        model: A ``LlamaForCausalLM``, ``Qwen2ForCausalLM`` or ``Qwen3ForCausalLM`` on the CPU.
        tokenizer: Its tokenizer: byte-level BPE.
        path: The file.
        kind: How matrices are stored.

    Raises:
        UserError: If the model computes something that the file could not say, or the tokenizer has no form in GGUF.
    """
    gguf = require("gguf", extra="gguf")
    _check_supported(model.config)
    tensor_type, file_type = _TYPES[kind]
    writer = open_writer(path, model.config.model_type)
    writer.add_file_type(gguf.LlamaFileType[file_type])
    _add_sizes(writer, model.config)
    with tempfile.TemporaryDirectory() as scratch:
        add_tokenizer(writer, tokenizer, Path(scratch), model.config.vocab_size)
    names = gguf.get_tensor_name_map(_architecture(gguf, model.config), model.config.num_hidden_layers)
    for name, tensor in _tensors(model):
        foreign = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if foreign is None:
            raise UserError(f"GGUF has no name for the tensor {name}")
        _add_tensor(writer, foreign, tensor, gguf.GGMLQuantizationType[tensor_type])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tensor(writer: Any, name: str, tensor: np.ndarray[Any, Any], kind: Any) -> None:
    from gguf import GGMLQuantizationType, quants

    if tensor.ndim == 1:
        kind = GGMLQuantizationType.F32
    elif kind == GGMLQuantizationType.Q8_0 and tensor.shape[-1] % 32:
        kind = GGMLQuantizationType.F16  # its rows do not fall into blocks
    writer.add_tensor(name, quants.quantize(tensor, kind), raw_dtype=kind)


def _tensors(model: Any) -> Any:
    """Yield names and float32 arrays; the output layer is left out where it is the embedding table."""
    config = model.config
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.float().numpy()
        if config.model_type == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            query = name.endswith("q_proj.weight")
            array = _interleaved(array, config.num_attention_heads if query else config.num_key_value_heads)
        yield name, array


def _interleaved(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Bring the rows of each head [D, C] from halves to neighbours: 0, D/2, 1, D/2 + 1, ..."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _add_sizes(writer: Any, config: Any) -> None:
    head = _head_width(config)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _architecture(gguf: Any, config: Any) -> Any:
    return next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type)


def _check_supported(config: Any) -> None:
    """Refuse what the file could not say, so that another program would compute something else."""
    if config.model_type not in _ARCHITECTURES:
        raise UserError(
            f"a {config.model_type!r} model cannot be written as GGUF here, only {', '.join(_ARCHITECTURES)}",
            hint="export a Hugging Face folder, and use the converter of llama.cpp",
        )
    differences = {
        "attention_bias": getattr(config, "attention_bias", False),
        "mlp_bias": getattr(config, "mlp_bias", False),
        "hidden_act": config.hidden_act != "silu",
        "rope_type": config.rope_parameters.get("rope_type", "default") != "default",
        "sliding window": getattr(config, "use_sliding_window", False),
    }
    for name, differs in differences.items():
        if differs:
            raise UserError(f"this model's {name} cannot be written as GGUF here")
