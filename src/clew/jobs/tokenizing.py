"""Texts of files and tasks, with their places, on their way into token files; and the tokenizer beside them."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from clew.data.shards import Encoding
from clew.data.tokens import META, SPLITS, TOKENIZER
from clew.errors import DataError, UserError
from clew.models.tokenizers import HuggingFaceTokenizer, vocab_size
from clew.runs.files import sync_directory, sync_tree
from clew.tasks import Task
from clew.tasks.columns import text_of
from clew.tasks.rows import scan_rows


def fingerprint(tokenizer: Any) -> str:
    """Return SHA-256 of all that decides which tokens a tokenizer makes of a text, and of its eos token."""
    content = f"{tokenizer.backend_tokenizer.to_str()} {tokenizer.eos_token_id}"
    return hashlib.sha256(content.encode()).hexdigest()


def load_beside(folder: Path) -> Any:
    """Return the tokenizer of a folder of token files.

    Raises:
        DataError: If it is not there.
    """
    if not (folder / TOKENIZER / "tokenizer.json").is_file():
        raise DataError("this is no folder that clew tokenize made: it has no tokenizer", where=str(folder))
    return HuggingFaceTokenizer(path=str(folder / TOKENIZER)).build([])


def put_beside(folder: Path, tokenizer: Any) -> Encoding:
    """Save the tokenizer into a folder of token files, whole or not at all, and return what makes tokens with it.

    Raises:
        UserError: If the folder has finished splits that another tokenizer made.
    """
    place, asked = folder / TOKENIZER, fingerprint(tokenizer)
    if not (place / "tokenizer.json").is_file() or fingerprint(load_beside(folder)) != asked:
        finished = [split for split in SPLITS if (folder / split / META).is_file()]
        if place.is_dir() and finished:
            raise UserError(
                f"another tokenizer made the {' and the '.join(finished)} tokens of this folder",
                where=str(folder),
                hint="give another folder, or remove this one",
            )
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{TOKENIZER}-{secrets.token_hex(4)}"
        tokenizer.save_pretrained(str(temporary))
        sync_tree(temporary)
        shutil.rmtree(place, ignore_errors=True)
        temporary.rename(place)
        sync_directory(folder)
    return Encoding(place, asked, tokenizer.eos_token_id, vocab_size(tokenizer))


def texts_of_files(
    paths: Sequence[Path], column: str = "text", on_bad_row: Literal["error", "skip"] = "error"
) -> Iterator[tuple[str, str]]:
    """Yield ``(place, text)`` of files, one after the other; the place is such as ``train.jsonl:17``.

    Args:
        paths: Files of any form that :func:`clew.tasks.rows.scan_rows` reads.
        column: The column of texts.
        on_bad_row: Whether a row that cannot be used ends it, or is left out.

    Raises:
        DataError: If a file cannot be read, or at the first bad row unless those are skipped.
    """
    for path in paths:
        for place, row in scan_rows(path):
            try:
                if isinstance(row, DataError):
                    raise row
                text = text_of(row, column, place, "--text")
            except DataError:
                if on_bad_row == "error":
                    raise
                continue
            yield place, text


def texts_of_task(task: Task, split: str) -> Iterator[tuple[str, str]]:
    """Yield ``(place, text)`` of a task's documents; the place is such as ``train: document 17``."""
    for number, text in enumerate(task.documents(split), start=1):
        yield f"{split}: document {number}", text


def without_places(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the texts alone, such as a tokenizer is trained on."""
    return (text for _, text in texts)
