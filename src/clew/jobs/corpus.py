"""What a pretraining is fed with: a tokenizer, and samples by split, from a task, token files or a mixture of them."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.config import content_digest
from clew.data.config import DataConfig, TaskSource, TextsConfig, TokensSource
from clew.data.packing import Samples, Windows, pack
from clew.data.stored import Interleaved, Joined, StoredWindows
from clew.data.tokens import META, TokenFiles, is_token_folder, open_tokens
from clew.data.writing import write_tokens
from clew.errors import DataError, UserError
from clew.jobs.tokenizing import fingerprint, load_beside, put_beside, texts_of_files, without_places
from clew.models.tokenizers import encode_all, vocab_size

if TYPE_CHECKING:
    from clew.models.tokenizers import TokenizerConfig
    from clew.tasks import Task

CACHE = "tokens"
"""The folder of a workspace in which files that a config names are kept tokenized."""


@dataclass(frozen=True)
class Corpus:
    """What a training reads.

    Attributes:
        tokenizer: Whose tokens the samples hold.
        splits: Samples by split; one without text is not there.
        shares: Size and weight of each source of ``train``; empty where it is one.
        names: What each of these sources is called.
        is_stored: Whether the samples lie in token files rather than in memory.
    """

    tokenizer: Any
    splits: Mapping[str, Samples]
    shares: Sequence[tuple[int, float]] = ()
    names: Sequence[str] = ()
    is_stored: bool = False


def check_source(data: DataConfig) -> None:
    """Check, before anything expensive starts, that what a source names is there.

    Raises:
        DataError: If it is not, or is not finished.
    """
    for part in _parts(data):
        path = Path(part.path)
        if path.is_dir():
            _opened(path, "train")
        elif not path.is_file():
            raise DataError("there is no such folder of tokens, and no such file", where=str(path))


def read_corpus(data: DataConfig, task: Task, tokenizer: TokenizerConfig, workspace: Path) -> Corpus:
    """Return tokenizer and samples, as the config says.

    Args:
        data: What, and how it is packed.
        task: Its documents are read if nothing else is named.
        tokenizer: For texts; folders of tokens bring their own.
        workspace: Files are tokenized into it, once.

    Raises:
        DataError: If something cannot be read.
        UserError: If the parts of a mixture have different tokenizers.
    """
    if isinstance(data.source, TaskSource):
        return _of_task(data, task, tokenizer)
    parts = _parts(data)
    built = _tokenizer(parts, tokenizer)
    found = [_part(part, built, workspace) for part in parts]
    windows = [{split: _windows(files, data) for split, files in part.items()} for part in found]
    train = [part["train"] for part in windows]
    held_out = [part["validation"] for part in windows if "validation" in part]
    mixed: dict[str, Samples] = {"train": train[0] if len(train) == 1 else Joined(train)}
    if held_out:
        mixed["validation"] = held_out[0] if len(held_out) == 1 else Interleaved(held_out)
    if isinstance(data.source, TokensSource):
        return Corpus(built, mixed, is_stored=True)
    shares = [(len(one), part.weight) for one, part in zip(train, data.source.parts, strict=True)]
    return Corpus(built, mixed, shares, _names(parts), is_stored=True)


def _of_task(data: DataConfig, task: Task, config: TokenizerConfig) -> Corpus:
    tokenizer = config.build(task.documents("train"))
    splits: dict[str, Samples] = {}
    for split in ("train", "validation"):
        tokens = pack(
            encode_all(tokenizer, task.documents(split)),
            eos=tokenizer.eos_token_id,
            vocab_size=vocab_size(tokenizer),
            max_tokens=data.max_tokens,
        )
        if len(tokens) > 1:
            splits[split] = Windows(tokens, data.seq_len)
    return Corpus(tokenizer, splits)


def _parts(data: DataConfig) -> Sequence[TextsConfig]:
    source = data.source
    if isinstance(source, TaskSource):
        return ()
    return [source] if isinstance(source, TokensSource) else source.parts


def _tokenizer(parts: Sequence[TextsConfig], config: TokenizerConfig) -> Any:
    """The one of the folders, or the config's for files alone."""
    folders = [Path(part.path) for part in parts if Path(part.path).is_dir()]
    if not folders:
        texts = (text for part in parts for text in without_places(texts_of_files([Path(part.path)], part.text)))
        return config.build(texts)
    found = [load_beside(folder) for folder in folders]
    for folder, other in zip(folders[1:], found[1:], strict=True):
        if fingerprint(other) != fingerprint(found[0]):
            raise UserError(
                f"its tokens are not of the tokenizer that made those of {folders[0]}",
                where=str(folder),
                hint="make all parts of a mixture with one tokenizer: clew tokenize --tokenizer",
            )
    return found[0]


def _part(part: TextsConfig, tokenizer: Any, workspace: Path) -> dict[str, TokenFiles]:
    """The token files of a source, by split."""
    path = Path(part.path)
    found = {"train": _opened(path, "train") if path.is_dir() else _cached(path, part.text, tokenizer, workspace)}
    if part.validation is not None:
        found["validation"] = _cached(Path(part.validation), part.text, tokenizer, workspace)
    elif path.is_dir() and (held_out := open_tokens(path, "validation")) is not None:
        found["validation"] = held_out
    return found


def _opened(folder: Path, split: str) -> TokenFiles:
    found = open_tokens(folder, split) if is_token_folder(folder) else None
    if found is None:
        raise DataError(f"this folder has no {split} tokens", where=str(folder), hint="clew tokenize makes them")
    return found


def _cached(path: Path, column: str, tokenizer: Any, workspace: Path) -> TokenFiles:
    """The token files of a file of texts: made now, or what an earlier run has made of the same content."""
    said = f"{content_digest(str(path))} {column} {fingerprint(tokenizer)}"
    folder = workspace / CACHE / f"{path.stem}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    # All processes of a run come here at once: one makes the files, the others wait for them.
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_token_folder(folder) and (folder / "train" / META).is_file():
            return _opened(folder, "train")
        return write_tokens(folder, "train", texts_of_files([path], column), put_beside(folder, tokenizer))


def _windows(files: TokenFiles, data: DataConfig) -> Samples:
    try:
        return StoredWindows(files.rows(), data.seq_len, files.digest, max_tokens=data.max_tokens)
    except ValueError:
        raise DataError("there are too few tokens for a sample", where=str(files.folder)) from None


def _names(parts: Sequence[TextsConfig]) -> list[str]:
    """Short names, numbered where two are the same."""
    names = [Path(part.path).stem for part in parts]
    return [name if names.count(name) == 1 else f"{name}#{number}" for number, name in enumerate(names, start=1)]
