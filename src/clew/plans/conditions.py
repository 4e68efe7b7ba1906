"""Conditions: ``when: ${eval.metrics.exact} < 0.9``.

Comparisons of references, numbers and texts, joined by ``and``, ``or``, ``not`` and brackets. The text is parsed, each
node of the tree must be one of those that are known here, and nothing is ever handed to the interpreter.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clew.config.tree import Leaf, Node, Origin
from clew.errors import ConfigError, RunFailed

REFERENCE = re.compile(r"\$\{([^}]*)\}")
MAX_LENGTH = 1000
_PREFIX = "_reference_"
_HINT = "such as ${eval.metrics.exact} < 0.9 and not ${eval.metrics.count} == 0"
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
Lookup = Callable[[str], Any]
"""From what stands between ``${`` and ``}`` to its value."""


@dataclass(frozen=True)
class Condition:
    """A condition that has been read and checked."""

    text: str
    origin: Origin
    _tree: ast.expr
    _references: tuple[str, ...]

    def holds(self, lookup: Lookup) -> bool:
        """Say whether the condition is true.

        Raises:
            RunFailed: If two values cannot be compared, or one is no number any more (``nan``).
        """
        return bool(self._value(self._tree, lookup))

    def _value(self, node: ast.expr, lookup: Lookup) -> Any:
        if isinstance(node, ast.BoolOp):
            values = (self._value(item, lookup) for item in node.values)
            return all(values) if isinstance(node.op, ast.And) else any(values)
        if isinstance(node, ast.UnaryOp):
            value = self._value(node.operand, lookup)
            return not value if isinstance(node.op, ast.Not) else -value
        if isinstance(node, ast.Compare):
            return self._compare(node, lookup)
        if isinstance(node, ast.Name):
            return self._look_up(node.id, lookup)
        assert isinstance(node, ast.Constant)
        return node.value

    def _compare(self, node: ast.Compare, lookup: Lookup) -> bool:
        left = self._value(node.left, lookup)
        for sign, item in zip(node.ops, node.comparators, strict=True):
            right = self._value(item, lookup)
            if isinstance(left, str) != isinstance(right, str):
                raise RunFailed(
                    f"when: a text and a number cannot be compared: {left!r} and {right!r}", where=self.where
                )
            if not _COMPARE[type(sign)](left, right):
                return False
            left = right
        return True

    def _look_up(self, name: str, lookup: Lookup) -> Any:
        if name in _WORDS:
            return _WORDS[name]
        reference = self._references[int(name.removeprefix(_PREFIX))]
        value = lookup(reference)
        if isinstance(value, float) and math.isnan(value):
            raise RunFailed(f"when: ${{{reference}}} is nan, which cannot be compared", where=self.where)
        return value

    @property
    def where(self) -> str:
        """The place that says it."""
        return self.origin.where


_WORDS = {"true": True, "false": False}


def read_condition(node: Node) -> Condition:
    """Read what stands after ``when:``.

    Raises:
        ConfigError: If it is anything else than a condition.
    """
    where = node.origin.where
    value = node.value if isinstance(node, Leaf) else None
    if isinstance(value, bool):
        value = str(value).lower()
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("'when' must be a condition", where=where, hint=_HINT)
    if len(value) > MAX_LENGTH or _PREFIX in value:
        raise ConfigError(f"when: a condition has at most {MAX_LENGTH} characters", where=where)
    found = [match.group(1) for match in REFERENCE.finditer(value)]
    numbers = iter(range(len(found)))
    text = " ".join(REFERENCE.sub(lambda _: f" {_PREFIX}{next(numbers)} ", value).split())
    try:
        tree = ast.parse(text, mode="eval").body
        _check_truth(tree)
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
        reason = error.args[0] if isinstance(error, _NotAllowed) else "it cannot be read"
        raise ConfigError(f"when: {value.strip()!r}: {reason}", where=where, hint=_HINT) from None
    return Condition(value.strip(), node.origin, tree, tuple(found))


class _NotAllowed(ValueError):
    """A part that no condition has."""


def _check_truth(node: ast.expr) -> None:
    """Check what is true or false."""
    if isinstance(node, ast.BoolOp):
        for item in node.values:
            _check_truth(item)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check_truth(node.operand)
    elif isinstance(node, ast.Compare):
        for item in (node.left, *node.comparators):
            _check_value(item)
        if any(type(sign) not in _COMPARE for sign in node.ops):
            raise _NotAllowed("it may compare by < <= > >= == != only")
    elif not (isinstance(node, ast.Name) and node.id in _WORDS):
        _check_value(node)
        raise _NotAllowed("it compares nothing")


def _check_value(node: ast.expr) -> None:
    """Check what is compared."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
        if not isinstance(node, ast.Constant) or isinstance(node.value, str):
            raise _NotAllowed("a minus may stand before numbers only")
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, str):
        if isinstance(node.value, str) and _PREFIX in node.value:
            raise _NotAllowed("a reference stands inside quotes")
    elif isinstance(node, ast.Name):
        if not node.id.startswith(_PREFIX):
            raise _NotAllowed(f"{node.id!r} is no reference, and a text needs quotes")
    else:
        raise _NotAllowed("it may hold references, numbers and texts only")
