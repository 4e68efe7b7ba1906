"""Rows of a user's file, one at a time, each with the place that an error names.

JSON lines and CSV are streamed; a JSON list is read whole; Parquet comes in batches. A bad row is an item among the
others, an error that nobody has raised: whether it ends the reading is for the caller to say.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clew.errors import DataError, did_you_mean, require

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row | DataError]]


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield ``(place, row)`` of a file; the place is such as ``train.jsonl:17``.

    Raises:
        DataError: As :func:`scan_rows`, and at the first bad row.
    """
    for place, row in scan_rows(path):
        if isinstance(row, DataError):
            raise row
        yield place, row


def scan_rows(path: Path) -> Rows:
    """Yield ``(place, row)`` of a file, and for a row that cannot be read ``(place, error)``.

    The format follows the name: ``.jsonl`` (or ``.ndjson``), ``.json``, ``.csv``, ``.tsv``, ``.parquet``, or ``.txt``
    with one text a line, which becomes the column ``text``.

    Raises:
        DataError: If the file as a whole cannot be read: missing, empty, of an unknown format.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(_READERS))
        raise DataError(f"unknown data format {path.suffix!r}", where=path.name, hint=f"known: {known}")
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), hint=_neighbour(path))
    empty = True
    for item in reader(path):
        empty = False
        yield item
    if empty:
        raise DataError("the file has no rows", where=path.name)


def _neighbour(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    return did_you_mean(path.name, [item.name for item in path.parent.iterdir() if item.suffix in _READERS])


def _lines(path: Path) -> Iterator[tuple[str, str | DataError]]:
    """Yield lines with their places; for bytes that are no UTF-8, an error."""
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            place = f"{path.name}:{number}"
            try:
                yield place, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield place, DataError(f"byte {error.start + 1} of this line is not UTF-8", where=place)


def _text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield lines with their places, where one bad line spoils the whole file."""
    for place, line in _lines(path):
        if isinstance(line, DataError):
            raise line
        yield place, line


def _jsonl(path: Path) -> Rows:
    for place, line in _lines(path):
        if isinstance(line, DataError):
            yield place, line
        elif line.strip():
            yield place, _parsed_object(line, place)


def _parsed_object(line: str, place: str) -> Row | DataError:
    try:
        return _object(_parse(line, place), place)
    except DataError as error:
        return error


def _json(path: Path) -> Rows:
    text = "".join(line for _, line in _text_lines(path))
    if not text.strip():
        return
    values = _parse(text, path.name)
    if not isinstance(values, list):
        raise DataError(
            f"this is {kind_of(values)}, not a list of rows", where=path.name, hint="one row a line? name it .jsonl"
        )
    for number, value in enumerate(values, start=1):
        place = f"{path.name}: row {number}"
        yield place, _object(value, place)


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise DataError(f"not valid JSON: {error.msg} ({line}column {error.colno})", where=place) from None
    except RecursionError:
        raise DataError("not valid JSON: nested too deeply", where=place) from None


def _object(value: Any, place: str) -> Row | DataError:
    if not isinstance(value, dict):
        return DataError(f"a row must be an object, this is {kind_of(value)}", where=place)
    return value


def _delimited(delimiter: str) -> Callable[[Path], Rows]:
    def read(path: Path) -> Rows:
        undecoded: list[DataError] = []
        reader = csv.reader(_decodable(path, undecoded), delimiter=delimiter, strict=True)
        columns: list[str] | None = None
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                yield from ((error.where, error) for error in undecoded)
                return
            except csv.Error as error:
                place = f"{path.name}:{reader.line_num}"
                problem = DataError(f"not valid CSV: {error}", where=place)
                if columns is None:
                    raise problem from None
                yield place, problem
                continue
            if columns is None:
                if undecoded:
                    raise undecoded[0]
                columns = cells
                continue
            yield from ((error.where, error) for error in undecoded)
            undecoded.clear()
            if cells:
                place = f"{path.name}:{reader.line_num}"
                yield place, _cells(columns, cells, place)

    return read


def _decodable(path: Path, undecoded: list[DataError]) -> Iterator[str]:
    """Yield the lines for a CSV reader; one that is no UTF-8 is left out, as an empty line that keeps the count."""
    for _, line in _lines(path):
        if isinstance(line, DataError):
            undecoded.append(line)
            yield "\n"
        else:
            yield line


def _cells(columns: list[str], cells: list[str], place: str) -> Row | DataError:
    if len(cells) != len(columns):
        return DataError(f"{len(cells)} cells, but there are {len(columns)} columns", where=place)
    return dict(zip(columns, cells, strict=True))


def _parquet(path: Path) -> Rows:
    pyarrow, parquet = require("pyarrow", extra="data"), require("pyarrow.parquet", extra="data")
    try:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}: row {number}", row
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"not a Parquet file: {str(error).splitlines()[0]}", where=path.name) from None


def _text(path: Path) -> Rows:
    for place, line in _lines(path):
        if isinstance(line, DataError):
            yield place, line
        elif line.strip():
            yield place, {"text": line.rstrip("\r\n")}


def kind_of(value: Any) -> str:
    """Return what a value is, in the words of somebody who wrote the file."""
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), "nothing")


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".csv": _delimited(","),
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    ".tsv": _delimited("\t"),
    ".txt": _text,
}
