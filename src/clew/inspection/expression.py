"""Conditions on a sample's fields, such as ``length > 200 and source == 'web'``.

The text is parsed by Python's own parser, and each node of the tree must be one of those that are known here; it then
becomes closures. Nothing is handed to the interpreter, so a condition can neither reach anything nor run for long.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from clew.errors import UserError, did_you_mean
from clew.inspection.mistakes import mistake

MAX_LENGTH = 1000
MAX_NODES = 400
MAX_DEPTH = 40
FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int]] = {
    "len": (len, 1),
    "abs": (abs, 1),
    "lower": (str.lower, 1),
    "upper": (str.upper, 1),
    "startswith": (str.startswith, 2),
    "endswith": (str.endswith, 2),
}
"""What can be called, and with how many arguments."""
_HINT = (
    "there are comparisons, in, and, or, not, + - * / // %, numbers, texts in quotes, lists of these, names of "
    f"fields, {', '.join(f'{name}()' for name in FUNCTIONS)}"
)

Values = Mapping[str, Any]
_Run = Callable[[Values], Any]
_Two = Callable[[Any, Any], Any]

_COMPARE: Mapping[type[ast.cmpop], _Two] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_ARITHMETIC: Mapping[type[ast.operator], _Two] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@dataclass(frozen=True)
class Expression:
    """A condition that has been read and checked.

    Attributes:
        text: As it was given.
        names: The fields that it speaks of.
    """

    text: str
    names: frozenset[str]
    _run: _Run = field(compare=False, repr=False)

    def holds(self, values: Values) -> bool:
        """Say whether the condition is true of a sample.

        Args:
            values: The sample's fields; one that it does not have is ``None``.

        Raises:
            UserError: If something cannot be compared or computed.
        """
        try:
            return bool(self._run(values))
        except (TypeError, ValueError, ArithmeticError) as error:
            missing = min((name for name in self.names if name not in values), default="")
            if missing:
                raise UserError(f"there is no field {missing!r}", hint=did_you_mean(missing, values)) from None
            raise UserError(f"{self.text!r} cannot be decided: {error}") from None


def read_expression(text: str, start: int = 0) -> Expression:
    """Read a condition.

    Args:
        text: The condition.
        start: Where it stands in the whole that somebody wrote, for errors.

    Raises:
        UserError: If it is none, or holds anything that is not known here; with the place.
    """
    if len(text) > MAX_LENGTH:
        raise mistake(f"a condition has at most {MAX_LENGTH} characters, and this one {len(text)}", start)
    # One line, so that columns are places; blanks before it would be an indentation.
    flat = text.translate({ord(blank): " " for blank in "\t\n\r\f\v"})
    start += len(flat) - len(flat.lstrip())
    flat = flat.strip()
    tree = _tree(flat, start)
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise mistake(f"a condition has at most {MAX_NODES} parts", start)
    run = _Reader(flat, start).read(tree)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {*FUNCTIONS}
    return Expression(flat, frozenset(names), run)


def _tree(text: str, start: int) -> ast.expr:
    if not text:
        raise mistake("there is no condition", start, "such as length > 200 and source == 'web'")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser's advice on style is not for whoever writes a condition
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        place = error.offset - 1 if error.offset else len(text)  # no place is the end
        raise mistake(f"this cannot be read: {error.msg}", start + place, _HINT) from None
    except (ValueError, RecursionError, MemoryError):
        raise mistake("this cannot be read", start, _HINT) from None


class _Reader:
    """Makes closures of a tree, and knows where its parts stand.

    Args:
        text: What was parsed.
        start: Where it stands in the whole.
    """

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._start = start

    def read(self, node: ast.expr, depth: int = 0) -> _Run:
        """Return what computes a part; UserError if it is none of those that are known."""
        if depth > MAX_DEPTH:
            raise self._refusal(node, f"a condition is at most {MAX_DEPTH} parts deep")
        parts = [self.read(part, depth + 1) for part in self._parts(node)]
        match node:
            case ast.BoolOp():
                return _joined(parts, until=isinstance(node.op, ast.Or))
            case ast.UnaryOp() if type(node.op) in _UNARY:
                return _applied(_UNARY[type(node.op)], parts)
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return _applied(_numeric(_ARITHMETIC[type(node.op)]), parts)
            case ast.Compare():
                return _compared([_COMPARE[type(sign)] for sign in node.ops], parts)
            case ast.Call(func=ast.Name(id=name)):
                return _applied(FUNCTIONS[name][0], parts)
            case ast.Tuple() | ast.List():
                return lambda values: [part(values) for part in parts]
            case ast.Name(id=name) if name not in FUNCTIONS and not name.startswith("__"):
                return lambda values: values.get(name)
            case ast.Constant(value=value) if value is None or type(value) in (bool, int, float, str):
                return lambda values: value
        raise self._refusal(node)

    def _parts(self, node: ast.expr) -> Sequence[ast.expr]:
        """The parts of a part, checked as far as their number and kind go."""
        match node:
            case ast.BoolOp(values=parts):
                return parts
            case ast.UnaryOp(operand=part):
                return [part]
            case ast.BinOp(left=left, right=right):
                return [left, right]
            case ast.Compare(left=left, ops=ops, comparators=others):
                for sign, other in zip(ops, others, strict=True):
                    # Whether two numbers or texts are one object is chance.
                    if isinstance(sign, ast.Is | ast.IsNot) and not (
                        isinstance(other, ast.Constant) and other.value is None
                    ):
                        raise self._refusal(node, "'is' is for None only")
                return [left, *others]
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                if len(args) != FUNCTIONS[name][1]:
                    raise self._refusal(node, f"{name}() takes {FUNCTIONS[name][1]}, not {len(args)}")
                return args
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return parts
            case ast.Name() | ast.Constant():
                return []
        raise self._refusal(node)

    def _refusal(self, node: ast.expr, reason: str = "") -> UserError:
        found = ast.get_source_segment(self._text, node) or ""
        shown = found if len(found) <= 40 else f"{found[:37]}..."
        column = len(self._text.encode()[: node.col_offset].decode())  # the parser counts bytes
        return mistake(reason or f"{shown!r} cannot stand in a condition", self._start + column, _HINT)


def _joined(parts: Sequence[_Run], *, until: bool) -> _Run:
    """``and``, or ``or``: the first value whose truth decides, else the last."""

    def run(values: Values) -> Any:
        for part in parts[:-1]:
            if bool(value := part(values)) is until:
                return value
        return parts[-1](values)

    return run


def _compared(signs: Sequence[_Two], parts: Sequence[_Run]) -> _Run:
    """A chain of comparisons, each part computed once and only as far as it is needed."""

    def run(values: Values) -> Any:
        left, result = parts[0](values), True
        for sign, part in zip(signs, parts[1:], strict=True):
            right = part(values)
            result = sign(left, right)
            if not result:
                return result
            left = right
        return result

    return run


def _applied(function: Callable[..., Any], parts: Sequence[_Run]) -> _Run:
    return lambda values: function(*(part(values) for part in parts))


def _numeric(function: _Two) -> _Two:
    """Arithmetic of numbers only: ``'a' * 10**9`` is memory, and ``'%99999d' % 1`` as well."""

    def run(left: Any, right: Any) -> Any:
        for value in (left, right):
            if not isinstance(value, Real):
                raise TypeError(f"{value!r} is no number")
        return function(left, right)

    return run
