"""``clew diff``: two runs, configs or pipelines side by side: config with its origins, code, data, results."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clew.cli.finding import workspace_of
from clew.cli.sides import Side, Value, side_of
from clew.cli.text import one_line, print_table
from clew.config.problems import show
from clew.errors import UserError
from clew.runs.journal import spell_non_finite

if TYPE_CHECKING:
    from clew.cli.parser import Parser

_DIGEST_LENGTH = 12
_NOTHING = "-"


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("a", metavar="A", help="a run, a pipeline, or a config file")
    parser.add_argument("b", metavar="B", help="what to compare it with")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def main(arguments: Namespace) -> int:
    """Print what differs; two equal things are no failure, nor are two different ones."""
    workspace = workspace_of(arguments)
    left, right = side_of(arguments.a, workspace), side_of(arguments.b, workspace)
    if (left.kind == "pipeline") != (right.kind == "pipeline"):
        pipeline = left if left.kind == "pipeline" else right
        raise UserError(
            f"{pipeline.name} is a pipeline and the other is not",
            where="diff",
            hint="name the run of a stage: clew ls shows them",
        )
    if arguments.json:
        print(json.dumps(spell_non_finite(as_json(left, right)), indent=2, ensure_ascii=False))
    else:
        _print(left, right)
    return 0


def different(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ, or that one side does not have."""
    return [key for key in _keys(left, right) if key not in left or key not in right or left[key] != right[key]]


def _keys(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys((*left, *right)))


def _changed(left: Side, right: Side) -> list[str]:
    """Keys of the config whose values differ; a value that was said elsewhere is the same value."""
    return different({k: value for k, (value, _) in left.values.items()}, {k: v for k, (v, _) in right.values.items()})


def as_json(left: Side, right: Side) -> dict[str, Any]:
    """The comparison as JSON holds it; ``null`` stands for what a side does not have."""
    return {
        "a": {"name": left.name, "kind": left.kind},
        "b": {"name": right.name, "kind": right.kind},
        "config": {
            key: {"a": _value(left.values.get(key)), "b": _value(right.values.get(key))}
            for key in _changed(left, right)
        },
        "code": {"same": left.code == right.code, "a": left.code, "b": right.code},
        "data": {key: {"a": left.data.get(key), "b": right.data.get(key)} for key in different(left.data, right.data)},
        "results": {
            key: {"a": left.results.get(key), "b": right.results.get(key)} for key in _keys(left.results, right.results)
        },
    }


def _value(value: Value | None) -> dict[str, Any] | None:
    return None if value is None else {"value": value[0], "where": value[1]}


def _print(left: Side, right: Side) -> None:
    print(f"a  {left.kind} {left.name}\nb  {right.kind} {right.name}\n")
    _section("config", "values", left.values, _changed(left, right), right.values)
    _table(_changed(left, right), left.values, right.values, _cell)
    _section("code", "parts", left.code, different(left.code, right.code), right.code)
    if different(left.code, right.code):
        _table(different(left.code, right.code), left.code, right.code, _short)
    _section("data", "inputs", left.data, different(left.data, right.data), right.data)
    _table(different(left.data, right.data), left.data, right.data, _short)
    if left.results or right.results:
        print("results")
        print_table(("", "a", "b", "b - a"), _result_rows(left.results, right.results))


def _section(title: str, what: str, left: Mapping[str, Any], changed: list[str], right: Mapping[str, Any]) -> None:
    num = len(_keys(left, right))
    if not num:
        print(f"{title}: none")
    elif not changed:
        print(f"{title}: the same")
    else:
        print(f"{title}: different" if num == 1 else f"{title}: {len(changed)} of {num} {what} differ")


def _table(keys: list[str], left: Mapping[str, Any], right: Mapping[str, Any], cell: Any) -> None:
    if keys:
        print_table(("", "a", "b"), [[key, cell(left.get(key)), cell(right.get(key))] for key in keys])
        print()


def _cell(value: Value | None) -> str:
    return _NOTHING if value is None else f"{show(value[0])}  ({value[1]})"


def _short(digest: str | None) -> str:
    """Enough of a digest to tell it from others; the path itself where nothing is."""
    if digest is None:
        return _NOTHING
    return f"nothing at {digest}" if "/" in digest else digest[:_DIGEST_LENGTH]


def _result_rows(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[list[str]]:
    for key in _keys(left, right):
        before, after = left.get(key), right.get(key)
        yield [key, _figure(key, before), _figure(key, after), _gap(before, after)]


def _gap(before: Any, after: Any) -> str:
    return f"{after - before:+.4g}" if _is_number(before) and _is_number(after) else ""


def _figure(key: str, value: Any) -> str:
    if value is None:
        return _NOTHING
    if ".artifacts." in f".{key}":
        return _short(value)
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
