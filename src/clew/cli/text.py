"""How the command line writes numbers, times and tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clew.errors import UserError

PREFERRED = ("reward", "loss", "exact", "accuracy", "val_loss")
"""The figure that stands for a run where there is room for one; without any of these, the first one."""


def headline(metrics: Mapping[str, Any]) -> str:
    """Return the one figure that says how a run is doing, such as ``loss 0.412``; empty when there is none."""
    name = next((name for name in PREFERRED if name in metrics), next(iter(metrics), ""))
    return f"{name} {number(metrics[name])}" if name else ""


def figures(metrics: Mapping[str, Any]) -> str:
    """Return all figures in a line."""
    return ", ".join(f"{name} {number(value)}" for name, value in metrics.items())


def number(value: Any) -> str:
    """Write a figure with four digits; journals hold what is not finite as text, which ``float`` reads."""
    return f"{float(value):.4g}"


def clock(seconds: float) -> str:
    """Write a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def age(seconds: float) -> str:
    """Write how long ago something was, in one unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(num_bytes: float) -> str:
    """Write a number of bytes."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


def parse_size(text: str, where: str) -> int:
    """Read a number of bytes, such as ``500MB`` or ``5 GB``; units are powers of 1000, as :func:`size` writes them.

    Raises:
        UserError: If it is none; ``where`` says whose value it was.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kKMGT]?)B?", text.strip())
    found = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if found < 1:
        raise UserError(f"{text!r} is no number of bytes", where=where, hint="write it as 5GB or 500MB")
    return found


def one_line(text: str, limit: int = 200) -> str:
    """Return a text without line breaks, cut to a length."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 3]}..."


def is_terminal() -> bool:
    """Say whether a person looks at stdout."""
    return sys.stdout.isatty()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows: with lines and colours in a terminal, in plain columns elsewhere."""
    body = [list(row) for row in rows]
    if is_terminal():
        _print_rich(columns, body)
        return
    widths = [max(len(row[index]) for row in [list(columns), *body]) for index in range(len(columns))]
    for row in [list(columns), *body]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


_STYLES = {
    "running": "green",
    "completed": "bold green",
    "failed": "bold red",
    "interrupted": "yellow",
    "stopped": "yellow",
    "unknown": "magenta",
}
