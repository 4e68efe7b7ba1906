"""A tokenizer as the metadata of a GGUF file.

GGUF holds a vocabulary, merges and special ids, but only the *name* of how text is split before the merges: a program
that reads the file must know that name. So byte-level BPE tokenizers are written whose split has one, and others are
refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clew.errors import UserError, require

# Steps of splitting, in `tokenizers`' JSON, and llama.cpp's name for them (`llama_vocab::impl::load`).
_BYTE_LEVEL_SPLITS = {
    ("ByteLevel",): "gpt-2",
    ("Digits", "ByteLevel"): "smollm",
}


def add_tokenizer(writer: Any, tokenizer: Any, folder: Path, rows: int) -> None:
    """Add a tokenizer to the metadata of a GGUF file.

    Args:
        writer: A ``gguf.GGUFWriter``.
        tokenizer: A ``PreTrainedTokenizerFast``.
        folder: A scratch folder, for the files from which the library reads merges, special ids and chat template.
        rows: Rows of the model's embedding table; ids without a token are filled up to it.

    Raises:
        UserError: If GGUF has no form for this tokenizer.
    """
    gguf = require("gguf", extra="gguf")
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    writer.add_tokenizer_model("gpt2")  # the format's name for byte-level BPE
    writer.add_tokenizer_pre(_split_name(core))
    tokens, kinds = _tokens(core, rows, gguf.TokenType)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    tokenizer.save_pretrained(folder)
    merges = bool(core["model"]["merges"])
    gguf.SpecialVocab(folder, load_merges=merges, n_vocab=rows).add_to_gguf(writer, quiet=True)
    if not merges:  # llama.cpp insists on the list
        kinds = gguf.GGUFValueType
        writer.add_key_value("tokenizer.ggml.merges", [], kinds.ARRAY, sub_type=kinds.STRING)
    if tokenizer.bos_token_id is None:
        writer.add_add_bos_token(False)  # llama.cpp would take a token of its own choice


def open_writer(path: Path, architecture: str) -> Any:
    """Return a ``gguf.GGUFWriter`` that can write an empty list, too: the format can, the library would not."""
    gguf = require("gguf", extra="gguf")
    array = gguf.GGUFValueType.ARRAY

    class Writer(gguf.GGUFWriter):  # type: ignore[name-defined, misc]
        def _pack_val(self, val: Any, vtype: Any, add_vtype: bool, sub_type: Any = None) -> Any:
            if vtype != array or len(val):
                return super()._pack_val(val, vtype, add_vtype, sub_type)
            kind = self._pack("I", vtype) if add_vtype else b""
            return kind + self._pack("I", sub_type) + self._pack("Q", 0)

    return Writer(path, architecture)


def _tokens(core: Any, rows: int, kinds: Any) -> tuple[list[str], list[int]]:
    """Return the token of every id, and what kind of token it is."""
    vocabulary = {index: token for token, index in core["model"]["vocab"].items()}
    kind = dict.fromkeys(vocabulary, int(kinds.NORMAL))
    for added in core["added_tokens"]:
        vocabulary[added["id"]] = added["content"]
        kind[added["id"]] = int(kinds.CONTROL if added["special"] else kinds.USER_DEFINED)
    if max(vocabulary) >= rows:
        raise UserError(f"the tokenizer has ids up to {max(vocabulary)}, but the model only {rows} embeddings")
    return (
        [vocabulary.get(index, f"[PAD{index}]") for index in range(rows)],
        [kind.get(index, int(kinds.UNUSED)) for index in range(rows)],
    )


def _split_name(core: Any) -> str:
    if core["model"]["type"] != "BPE" or (core["decoder"] or {}).get("type") != "ByteLevel":
        raise UserError("only byte-level BPE tokenizers can be written to GGUF", hint=_ADVICE)
    if not core["model"]["merges"]:
        return "gpt-2"  # nothing is merged, wherever text is split
    name = _known_split(core["pre_tokenizer"])
    # Of all names here, only Qwen's goes with a normalizer, which llama.cpp leaves out, too.
    if name is None or (core["normalizer"] and not (name == "qwen2" and core["normalizer"]["type"] == "NFC")):
        raise UserError("GGUF has no name for how this tokenizer splits text", hint=_ADVICE)
    return name


_ADVICE = "export a Hugging Face folder, and convert it with the tools of the program that is to read it"


def _known_split(splitter: Any) -> str | None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    steps = [] if splitter is None else splitter.get("pretokenizers", [splitter])
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    if steps[-1]["use_regex"]:
        whole_digits = any(step["type"] == "Digits" and not step["individual_digits"] for step in steps)
        return None if whole_digits else _BYTE_LEVEL_SPLITS.get(tuple(step["type"] for step in steps))
    if len(steps) != 2 or steps[0]["type"] != "Split" or steps[0]["behavior"] != "Isolated" or steps[0]["invert"]:
        return None
    pattern = steps[0]["pattern"].get("Regex")
    return next((name for name, known in GGUF_PRE_TOKENIZER_SPLITS.items() if known == pattern), None)
