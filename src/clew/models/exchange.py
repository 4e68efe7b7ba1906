"""To and from a Hugging Face folder: the decoder is a `LlamaForCausalLM` under other names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clew.errors import UserError
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.runs.files import path_inside, read_json

_TOP = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


def save_huggingface(model: Decoder, tokenizer: Any, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a folder that `AutoModelForCausalLM` and `AutoTokenizer` load.

    Args:
        model: The decoder; its weights are written in their dtype.
        tokenizer: A `PreTrainedTokenizerFast` with eos and pad.
        folder: An existing folder.
        weights: By the decoder's names, those to write instead of its present ones.
    """
    as_huggingface(model, tokenizer, weights).cpu().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def as_huggingface(model: Decoder, tokenizer: Any, weights: Mapping[str, Tensor] | None = None) -> Any:
    """Return a `LlamaForCausalLM` over the very weights of the decoder, on its device: what trains one trains both.

    Args:
        model: The decoder.
        tokenizer: Its tokenizer.
        weights: By the decoder's names, those to take instead of its present ones; tied ones may stand there once.
    """
    from transformers import LlamaForCausalLM

    config = _llama_config(model, tokenizer)
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
    named = {**model.state_dict(), **(weights or {})}
    if model.shape.tied:
        named["head.weight"] = named["embed.weight"]
    llama.load_state_dict({foreign_name(name): weight.detach() for name, weight in named.items()}, assign=True)
    llama.tie_weights()
    # Its wavelengths are no weights, so they are still where no numbers are.
    with model.embed.weight.device:
        llama.model.rotary_emb = type(llama.model.rotary_emb)(config)
    return llama


def save_without_weights(model: Decoder, tokenizer: Any, folder: Path) -> None:
    """Write what :func:`save_huggingface` does, but for the weights themselves.

    Args:
        model: The decoder, whose weights may be anywhere.
        tokenizer: Its tokenizer.
        folder: An existing folder.
    """
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        llama = LlamaForCausalLM(_llama_config(model, tokenizer))
    llama.config.architectures = [type(llama).__name__]
    llama.config.save_pretrained(folder)
    llama.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_huggingface(folder: Path) -> Decoder:
    """Read a Llama folder into a decoder, with float32 weights on the CPU; one tensor of the files is read at a time.

    Raises:
        UserError: If the folder's model is not one that the decoder can compute exactly, or its weights are not there.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    _check_supported(config, folder)
    model = Decoder(_native_config(config), config.vocab_size, config.max_position_embeddings)
    wanted = {foreign_name(name): weight for name, weight in model.named_parameters()}
    read_tensors(folder, wanted)
    return model


@torch.no_grad()
def read_tensors(folder: Path, wanted: Mapping[str, Tensor]) -> None:
    """Fill tensors from safetensors files, which may be shards, so that no second copy of all is ever in memory.

    Args:
        folder: Holds ``model.safetensors``, or shards with their index.
        wanted: By the names in the files; they keep their dtype.

    Raises:
        UserError: If one is missing, or has another shape there.
    """
    from safetensors import safe_open

    for path, names in _shards(folder, wanted).items():
        with safe_open(path, framework="pt") as file:
            there = set(file.keys())
            for name in names:
                if name not in there:
                    raise UserError(f"{path.name} does not hold {name}", where=str(folder))
                tensor = file.get_tensor(name)
                if tensor.shape != wanted[name].shape:
                    shapes = f"{list(tensor.shape)}, and not {list(wanted[name].shape)}"
                    raise UserError(f"{name} has the shape {shapes}", where=str(folder))
                wanted[name].copy_(tensor)


def _shards(folder: Path, names: Iterable[str]) -> dict[Path, list[str]]:
    """Return which tensors to read from which file."""
    index = folder / "model.safetensors.index.json"
    places = read_json(index)["weight_map"] if index.is_file() else {}
    found: dict[Path, list[str]] = {}
    for name in names:
        found.setdefault(path_inside(folder, places.get(name, "model.safetensors")), []).append(name)
    for path in found:
        if not path.is_file():
            raise UserError(f"the weights are not there: {path.name}", where=str(folder))
    return found


def foreign_name(name: str) -> str:
    """Translate a decoder's name, such as ``layers.3.attention.query.weight``, into Llama's name for it."""
    if name in _TOP:
        return _TOP[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{_IN_LAYER[rest.removesuffix('.weight')]}.weight"


def _llama_config(model: Decoder, tokenizer: Any) -> Any:
    from transformers import LlamaConfig

    shape = model.shape
    return LlamaConfig(
        vocab_size=model.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=model.context,
        rms_norm_eps=model.config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": model.config.rope_theta},
        tie_word_embeddings=shape.tied,
        dtype=model.embed.weight.dtype,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _native_config(config: Any) -> ModelConfig:
    return ModelConfig(
        depth=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        mlp_width=config.intermediate_size,
        tied=config.tie_word_embeddings,
        rope_theta=config.rope_parameters["rope_theta"],
        norm_eps=config.rms_norm_eps,
    )


def _check_supported(config: Any, folder: Path) -> None:
    """Refuse whatever would load but compute something else."""
    if config.model_type != "llama":
        raise UserError(f"the decoder reads 'llama' models, and this is {config.model_type!r}", where=str(folder))
    differences = {
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "hidden_act": config.hidden_act != "silu",
        "rope_type": config.rope_parameters.get("rope_type", "default") != "default",
        "head_dim": config.head_dim * config.num_attention_heads != config.hidden_size,
    }
    for name, differs in differences.items():
        if differs:
            raise UserError(f"the decoder does not support this model's {name}", where=str(folder))
