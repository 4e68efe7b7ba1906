"""``clew tokenize``: texts become token files, which trainings read without loading them."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.cli.finding import workspace_of
from clew.cli.text import is_terminal
from clew.errors import DataError, UserError

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.data.tokens import TokenFiles
    from clew.data.writing import Progress
    from clew.jobs.pretrain import PretrainConfig

_CONFIGS = (".yaml", ".yml")


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="CONFIG|FILE",
        help="files of texts (JSON lines, JSON, CSV, TSV, Parquet, plain lines), whose tokens follow in this order; or "
        "a config of the job pretrain, whose task and tokenizer are taken, and key=value over it",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to")
    parser.add_argument("--split", choices=("train", "validation"), help="of a config only this one; of files: train")
    parser.add_argument("--text", default="text", metavar="COLUMN", help="of files: the column (default: text)")
    parser.add_argument(
        "--tokenizer", metavar="byte|FOLDER", help="of files: a folder with one; without it the output's own, or bytes"
    )
    parser.add_argument(
        "--on-bad-row",
        choices=("error", "skip"),
        default="error",
        help="of files: what a bad row does (default: error)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)"
    )


def main(arguments: Namespace) -> int:
    """Make the files, and say what they hold; what is there already and whole is kept."""
    if arguments.workers < 1:
        raise UserError("--workers must be at least 1")
    folder = Path(arguments.output)
    config = _config(arguments)
    for split, texts, encoding in _of_files(arguments, folder) if config is None else _of_task(arguments, config):
        print(f"{folder / split}: {_made(arguments, folder, split, texts, encoding)}")
    return 0


def _made(arguments: Namespace, folder: Path, split: str, texts: Iterator[tuple[str, str]], encoding: Any) -> str:
    """Make one split, and say what it holds, and what became of one that was there."""
    from clew.data.writing import write_tokens

    before, kept = _before(folder, split), 0

    def seen(progress: Progress) -> None:
        nonlocal kept
        kept = progress.kept
        show(progress)

    with _shown(f"{folder.name}/{split}", arguments.level) as show:
        made = write_tokens(folder, split, texts, encoding, workers=arguments.workers, progress=seen)
    if kept:
        some = "" if kept == len(made.shards) else f"{kept} of "
        return f"{_told(made)}, {some}which {'was' if kept == 1 else 'were'} there already"
    return _told(made) + (f", in place of {_told(before)}" if before and before.digest != made.digest else "")


def _before(folder: Path, split: str) -> TokenFiles | None:
    """The split as it was; None where there was none, or one that was not whole."""
    from clew.data.tokens import open_tokens

    try:
        return open_tokens(folder, split)
    except DataError:
        return None


def _config(arguments: Namespace) -> PretrainConfig | None:
    """The config that is named; None for files."""
    named = [word for word in arguments.sources if Path(word).suffix.lower() in _CONFIGS]
    values = [word for word in arguments.sources if word not in named and "=" in word and not Path(word).exists()]
    if not named:
        if values:
            raise UserError(f"{values[0]!r} is a value of a config, and there is none", hint="name the config first")
        return None
    if len(named) > 1 or len(named) + len(values) != len(arguments.sources):
        raise UserError("give files, or one config and values over it", where="tokenize")
    for option in ("text", "tokenizer"):
        if getattr(arguments, option) not in (None, "text"):
            raise UserError(f"--{option} is for files", hint="a config says it itself")
    return _pretraining(Path(named[0]), values, arguments)


def _pretraining(path: Path, values: Sequence[str], arguments: Namespace) -> PretrainConfig:
    from clew import api
    from clew.jobs import LoadedJob
    from clew.jobs.pretrain import PretrainConfig

    work = api.read(path, values, workspace=workspace_of(arguments))
    if not isinstance(work, LoadedJob) or not isinstance(work.config, PretrainConfig):
        raise UserError("this is no config of the job pretrain", where=str(path), hint="name files of texts instead")
    return work.config


def _of_task(arguments: Namespace, config: PretrainConfig) -> Iterator[tuple[str, Iterator[tuple[str, str]], Any]]:
    """Each split of a task: its name, its texts, and what makes tokens of them."""
    from clew.jobs.tokenizing import put_beside, texts_of_task
    from clew.tasks import require_parts

    require_parts(config.task, "documents", needed_by="tokenize")
    encoding = put_beside(Path(arguments.output), config.tokenizer.build(config.task.documents("train")))
    for split in [arguments.split] if arguments.split else ["train", "validation"]:
        # A task need not have anything to validate on.
        if split == "train" or next(iter(config.task.documents(split)), None) is not None:
            yield split, texts_of_task(config.task, split), encoding


def _of_files(arguments: Namespace, folder: Path) -> Iterator[tuple[str, Iterator[tuple[str, str]], Any]]:
    from clew.data.tokens import TOKENIZER
    from clew.jobs.tokenizing import load_beside, put_beside, texts_of_files
    from clew.models.tokenizers import ByteTokenizer, HuggingFaceTokenizer

    said = arguments.tokenizer
    if said is None and (folder / TOKENIZER).is_dir():
        tokenizer = load_beside(folder)
    elif said in (None, "byte"):
        tokenizer = ByteTokenizer().build([])
    elif Path(said).is_dir():
        beside = Path(said) / TOKENIZER
        tokenizer = HuggingFaceTokenizer(path=str(beside if beside.is_dir() else said)).build([])
    else:
        raise UserError(f"there is no folder {said}", where="--tokenizer", hint="give 'byte', or a tokenizer's folder")
    texts = texts_of_files([Path(word) for word in arguments.sources], arguments.text, arguments.on_bad_row)
    yield arguments.split or "train", texts, put_beside(folder, tokenizer)


def _told(made: TokenFiles) -> str:
    shards = "1 shard" if len(made.shards) == 1 else f"{len(made.shards)} shards"
    return f"{made.num_documents:,} documents, {made.num_tokens:,} tokens in {shards}"


@contextmanager
def _shown(name: str, level: str | None) -> Iterator[Callable[[Progress], None]]:
    """Show on a terminal how far it is."""
    if not is_terminal() or level == "quiet":
        yield lambda progress: None
        return
    from rich.console import Console

    with Console(stderr=True).status(name) as status:
        yield lambda progress: status.update(
            f"{name}: {progress.documents:,} documents, {progress.text_bytes / 1e6:,.0f} MB, {progress.tokens:,} tokens"
            + (f" ({progress.kept} shards were there)" if progress.kept else "")
        )
