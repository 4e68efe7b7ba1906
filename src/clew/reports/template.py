"""Templates: a user's Markdown with placeholders such as ``{{ results }}`` and ``{{ metric:eval.exact }}``.

Nothing in a template is executed: a placeholder is a name from a fixed list, and perhaps what it is asked for. All
text around them stays as it is; ``\\{{`` stands for two braces that begin no placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clew.errors import UserError

_MARK = re.compile(r"(?P<escaped>\\\{\{)|\{\{(?P<inner>[^\n]*?)\}\}|(?P<open>\{\{)")
ESCAPE_HINT = r"text that is no placeholder begins with \{{"


@dataclass(frozen=True)
class Placeholder:
    """A place to be filled.

    Args:
        name: Such as ``metric``.
        argument: What stands behind the colon; empty without one.
        line: Number of its line, from 1.
        alone: Whether nothing else stands on the line, so that it may become a table or a figure.
    """

    name: str
    argument: str
    line: int
    alone: bool

    def __str__(self) -> str:
        inner = f"{self.name}:{self.argument}" if self.argument else self.name
        return f"{{{{ {inner} }}}}"


@dataclass(frozen=True)
class Problem:
    """What is wrong in a line of a template."""

    line: int
    what: str
    hint: str


@dataclass(frozen=True)
class Template:
    """A template taken apart.

    Args:
        path: The file, for what is said about it.
        parts: Text and placeholders, in their order.
    """

    path: Path
    parts: tuple[str | Placeholder, ...]

    def refuse(self, problems: Iterable[Problem]) -> None:
        """Tell all problems at once.

        Raises:
            UserError: If there is one; several stand on a line each.
        """
        found = sorted(problems, key=lambda problem: problem.line)
        if len(found) == 1:
            raise UserError(found[0].what, where=f"{self.path}:{found[0].line}", hint=found[0].hint)
        if found:
            lines = "".join(f"\n  {self.path}:{one.line}: {one.what}; {one.hint}" for one in found)
            raise UserError(f"{len(found)} problems in the template:{lines}")


def read_template(path: Path) -> Template:
    """Read a template.

    Raises:
        UserError: If it cannot be read, is not UTF-8, or a placeholder in it is not closed; with file and line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"the template cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UserError("the template is not UTF-8 text", where=str(path), hint="save it as UTF-8") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Template:
    """Take a template's text apart.

    Raises:
        UserError: If a placeholder is not closed on its line.
    """
    parts: list[str | Placeholder] = []
    problems: list[Problem] = []
    end = 0
    for mark in _MARK.finditer(text):
        parts.append(text[end : mark.start()])
        end = mark.end()
        if mark["escaped"]:
            parts.append("{{")
        elif mark["inner"] is not None:
            parts.append(_placeholder(text, mark))
        else:
            line = _line_number(text, mark.start())
            problems.append(Problem(line, "{{ is not closed by }} on its line", ESCAPE_HINT))
    template = Template(path, tuple(part for part in (*parts, text[end:]) if part != ""))
    template.refuse(problems)
    return template


def _placeholder(text: str, mark: re.Match[str]) -> Placeholder:
    name, _, argument = mark["inner"].partition(":")
    begin = text.rfind("\n", 0, mark.start()) + 1
    rest = text[mark.end() :].partition("\n")[0]
    alone = begin == mark.start() and not rest.strip()
    return Placeholder(name.strip(), argument.strip(), _line_number(text, mark.start()), alone)


def _line_number(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
