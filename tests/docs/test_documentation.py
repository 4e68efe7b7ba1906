"""Every code block of the README and the docs is run, in its order, by somebody who follows only the page.

A block below ``<!-- file: NAME -->`` is written to that file. A ``sh`` block is run line by line: ``clew`` as it
stands, ``make`` as a dry run (its targets run this test). A ``python`` block without a file is run as a script. A
``text`` block shows a file tree, whose paths must exist. Capital words such as RUN are placeholders: there the verb
must exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}(_[A-Z]+)*\b")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    file: str | None
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found["language"], found["text"], found["file"], text[: found.start()].count("\n") + 1)
        for found in BLOCK.finditer(text)
    ]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A random model with a chat template, in the place of one that would have to be downloaded."""
    import torch

    from clew.models.config import ModelConfig
    from clew.models.decoder import Decoder
    from clew.models.exchange import save_huggingface
    from clew.models.tokenizers import ByteTokenizer, vocab_size

    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    folder = tmp_path_factory.mktemp("models") / "smollm2-135m-instruct"
    save_huggingface(Decoder(ModelConfig(depth=1), vocab_size(tokenizer), context=128), tokenizer, folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_runs(page, tmp_path, small_model):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / small_model.name).symlink_to(small_model)
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.file:
            (tmp_path / block.file).write_text(block.text)
        elif block.language == "sh":
            for line in filter(None, (line.partition("#")[0].strip() for line in block.text.splitlines())):
                run_line(line, tmp_path, where)
        elif block.language == "python":
            check(subprocess.run([sys.executable, "-c", block.text], **options(tmp_path)), where, block.text)
        elif block.language == "text":
            check_tree(block.text, where)
        else:
            raise AssertionError(f"{where}: a block that nothing runs: name its file, or its language")


def run_line(line: str, folder: Path, where: str) -> None:
    words = shlex.split(line)
    if words[0] == "make":
        check(subprocess.run(["make", "--dry-run", *words[1:]], **options(ROOT)), where, line)
    elif words[0] == "clew" and PLACEHOLDER.search(line):
        check(subprocess.run([sys.executable, "-m", "clew.cli", words[1], "--help"], **options(folder)), where, line)
    elif words[0] == "clew":
        check(subprocess.run([sys.executable, "-m", "clew.cli", *words[1:]], **options(folder)), where, line)
    else:
        raise AssertionError(f"{where}: the test does not know how to run {line!r}")


def options(folder: Path) -> dict[str, object]:
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    return {
        "cwd": folder,
        "env": environment,
        "capture_output": True,
        "text": True,
        "timeout": 240,
        "stdin": subprocess.DEVNULL,
    }


def check(done: subprocess.CompletedProcess[str], where: str, what: str) -> None:
    assert done.returncode == 0, f"{where}: {what}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def check_tree(text: str, where: str) -> None:
    """Each line names a path by its indentation below the line above."""
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        parents = [item for item in parents if item[0] < indent]
        path = "".join(item for _, item in parents) + name
        assert (ROOT / path).exists(), f"{where}: {path} is not there"
        parents.append((indent, name))


def test_the_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
