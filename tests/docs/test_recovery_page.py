"""The page of recovery names a test for each promise, and each test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/recovery.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
PROMISES = TEXT.partition("## Each promise and its test\n")[2].partition("\n## ")[0]


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_each_promise_names_its_test() -> None:
    rows = [line for line in PROMISES.splitlines() if line.startswith("| ") and not line.startswith("| promise ")]
    assert len(rows) >= 25
    assert [row for row in rows if not NAMED.search(row.rpartition(" | ")[2] or row)] == []


def test_all_tests_that_it_names_are_there() -> None:
    named = NAMED.findall(TEXT)
    assert len(named) >= 40
    missing = [file for file, _ in named if not (ROOT / file).is_file()]
    assert missing == []
    assert [f"{file}::{name}" for file, name in named if name and name not in names_in(ROOT / file)] == []
