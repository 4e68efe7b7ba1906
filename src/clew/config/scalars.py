"""How text becomes a scalar: the core rules of YAML 1.2, where ``1e-4`` is a number and ``no`` is a word."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import yaml

_CORE: Final = (
    ("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), ("~", "n", "N", "")),
    ("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), tuple("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), tuple("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.nan|\.NaN|\.NAN"
        ),
        tuple("-+.0123456789"),
    ),
)


def _anchored(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(rf"(?:{pattern.pattern})\Z")


class CoreLoader(yaml.SafeLoader):
    """Composes nodes; reads scalars by the core rules only."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own interface; filled below, then left alone


class CoreDumper(yaml.SafeDumper):
    """Writes scalars so that YAML 1.1 and 1.2 readers both read back what was meant."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value that occurs twice twice."""
        return True


for _tag, _pattern, _first in _CORE:
    CoreLoader.add_implicit_resolver(_tag, _anchored(_pattern), list(_first))
    CoreDumper.add_implicit_resolver(_tag, _anchored(_pattern), list(_first))


def read_scalar(tag: str, text: str) -> Any:
    """The value of a scalar node.

    Raises:
        ValueError: The tag is none of the plain ones, or the text does not fit it.
    """
    read = _READERS.get(tag.rpartition(":")[2]) if tag.startswith("tag:yaml.org,2002:") else None
    if read is None:
        raise ValueError(f"the tag {tag!r} is not allowed")
    return read(text)


def _read_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _read_int(text: str) -> int:
    # Zeros in front mean nothing in YAML 1.2: 010 is ten.
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


def _read_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _read_null(text: str) -> None:
    return None


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "str": str,
    "int": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "null": _read_null,
}


def to_yaml(value: Any) -> str:
    """Write plain values as YAML that reads back as itself; strings that look like something else are quoted.

    Args:
        value: Mappings, lists and scalars, as :func:`clew.config.dump` returns them.
    """
    text: str = yaml.dump(value, Dumper=CoreDumper, sort_keys=False, allow_unicode=True, width=4096)
    # A scalar alone is followed by an end-of-document mark, which no reader needs.
    return text.removesuffix("...\n")


def _write_str(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # PyYAML takes these for line ends, but does not quote them where a key stands.
    if any(mark in value for mark in "\x85\u2028\u2029\ufeff"):
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"')
    block = "\n" in value.rstrip("\n") and not value[0].isspace()
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if block else None)


def _write_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = repr(value)
    if text.lstrip("-") in ("inf", "nan"):
        text = text.replace("inf", ".inf").replace("nan", ".nan")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _write_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    short = len(value) <= 8 and all(isinstance(item, str | int | float | None) for item in value)
    short = short and sum(len(str(item)) for item in value) <= 80
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)


CoreDumper.add_representer(str, _write_str)
CoreDumper.add_representer(float, _write_float)
CoreDumper.add_representer(list, _write_list)
