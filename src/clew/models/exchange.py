"""To and from a Hugging Face folder: the decoder is a `LlamaForCausalLM` under other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clew.checkpoints.tensors import Span, are_equal, tensors_of
from clew.errors import UserError
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.models.source import refuse_pickle
from clew.runs.files import read_json

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
_CONFIG = "config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_BUFFER = "rotary_emb.inv_freq"
"""How a tensor's name ends that old versions of Transformers have saved; it follows from the config."""


@dataclass(frozen=True)
class Found:
    """A Llama folder that the decoder computes exactly, of whose weights nothing has been read.

    Attributes:
        folder: Where it is.
        config: The decoder's sizes.
        vocab_size: Rows of the embedding.
        context: The most positions that it was made for.
        tensors: Where its weights lie, by their names there.
    """

    folder: Path
    config: ModelConfig
    vocab_size: int
    context: int
    tensors: Mapping[str, Span]

    @property
    def num_parameters(self) -> int:
        """The trained numbers; tied ones count once."""
        return self.config.shape.num_parameters(self.vocab_size)

    def fill(self, model: Decoder) -> None:
        """Copy the weights into a decoder of these sizes, one tensor after the other.

        Raises:
            UserError: If it has others.
        """
        read_tensors(self.folder, {foreign_name(name): weight for name, weight in model.named_parameters()})


def find_huggingface(folder: Path) -> Found:
    """Look through a Llama folder, and compare its files with what its config says; no weights are read.

    Raises:
        UserError: If the decoder cannot compute exactly this model, or something of it is missing or damaged.
    """
    if not folder.is_dir():
        raise UserError("there is no such folder", where=str(folder))
    config = _read_config(folder)
    refuse_pickle(folder)
    native, tensors = _native_config(config), tensors_of(folder)
    with torch.device("meta"):
        model = Decoder(native, config.vocab_size, config.max_position_embeddings)
    wanted = {foreign_name(name): tuple(weight.shape) for name, weight in model.named_parameters()}
    for name, shape in wanted.items():
        if name not in tensors:
            raise UserError(f"the weights do not hold {name}, which {_CONFIG} asks for", where=str(folder))
        if tensors[name].shape != shape:
            raise _misshapen(folder, name, tensors[name].shape, shape)
        if tensors[name].dtype not in _FLOATS:
            raise UserError(
                f"{name} is stored as {tensors[name].dtype}, and not as numbers to train", where=str(folder)
            )
    _check_others(folder, tensors, wanted)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        hint = "write it there: tokenizer.save_pretrained(folder)"
        raise UserError("there is no tokenizer beside the weights", where=str(folder), hint=hint)
    return Found(folder, native, config.vocab_size, config.max_position_embeddings, tensors)


def _check_others(folder: Path, tensors: Mapping[str, Span], wanted: Mapping[str, object]) -> None:
    """Refuse tensors of which the config says nothing; a tied output layer may stand there once more."""
    head, embedding = _TOP["head.weight"], _TOP["embed.weight"]
    for name in sorted(tensors.keys() - wanted.keys()):
        if name == head:
            if not are_equal(tensors[head], tensors[embedding]):
                what = f"{_CONFIG} says that {head} and {embedding} are one tensor, and they differ"
                raise UserError(what, where=str(folder))
        elif not name.endswith(_BUFFER):
            raise UserError(f"the weights hold {name}, of which {_CONFIG} says nothing", where=str(folder))


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
    config = _read_config(folder)
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
        UserError: If one is missing, or has another shape there, or a file is damaged.
    """
    from safetensors import safe_open

    there = tensors_of(folder)
    files: dict[Path, list[str]] = {}
    for name, tensor in wanted.items():
        if name not in there:
            raise UserError(f"the weights do not hold {name}", where=str(folder))
        if there[name].shape != tuple(tensor.shape):
            raise _misshapen(folder, name, there[name].shape, tuple(tensor.shape))
        files.setdefault(there[name].path, []).append(name)
    for path, names in files.items():
        with safe_open(path, framework="pt") as file:
            for name in names:
                wanted[name].copy_(file.get_tensor(name))


def _misshapen(folder: Path, name: str, there: tuple[int, ...], wanted: tuple[int, ...]) -> UserError:
    return UserError(f"{name} has the shape {list(there)}, and not {list(wanted)}", where=str(folder))


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


def _read_config(folder: Path) -> Any:
    """Return the config of a folder, of a model that the decoder computes exactly."""
    from transformers import AutoConfig

    try:
        said = read_json(folder / _CONFIG)
        kind = said.get("model_type") if isinstance(said, dict) else None
        if kind != "llama":
            raise UserError(f"the decoder reads 'llama' models, and this is {kind!r}", where=str(folder))
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        _native_config(config)
    except FileNotFoundError:
        raise UserError(f"there is no {_CONFIG}", where=str(folder)) from None
    except UserError:
        raise
    except Exception as error:  # its checks raise classes of their own
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{_CONFIG} cannot be used: {reason}", where=str(folder)) from error
    _check_supported(config, folder)
    return config


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
    differences = {
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "hidden_act": config.hidden_act != "silu",
        "rope_type": config.rope_parameters.get("rope_type", "default") != "default",
        "head_dim": config.head_dim * config.num_attention_heads != config.hidden_size,
        "quantization_config": bool(getattr(config, "quantization_config", None)),
    }
    for name, differs in differences.items():
        if differs:
            raise UserError(f"the decoder does not support this model's {name}", where=str(folder))
