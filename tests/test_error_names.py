"""What is left of an error in a journal or a result is its name and its text; people read what they need of both."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from clew.errors import cause, is_for_people
from clew.runs import Failure

SOURCE = Path(__file__).parents[1] / "src/clew"


def errors_of_this_package() -> set[str]:
    """Names of all classes that come from ClewError, from the text of the package: nothing is imported."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    found = {"ClewError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def test_every_error_of_this_package_is_told_without_its_name() -> None:
    assert {name for name in errors_of_this_package() if not name.startswith("_") and not is_for_people(name)} == set()


@pytest.mark.parametrize(
    ("kind", "reason", "told"),
    [
        ("UserError", "task: there is no file (name another)", "task: there is no file (name another)"),
        ("ValueError", "boom", "ValueError: boom"),
        ("KeyError", "", "KeyError"),
        ("killed", "the worker was killed by SIGKILL", "the worker was killed by SIGKILL"),
        ("stopped", "stop was asked for at step 3", "stop was asked for at step 3"),
    ],
)
def test_other_exceptions_keep_their_name(kind: str, reason: str, told: str) -> None:
    assert cause(kind, reason) == Failure(kind, reason).cause == told
