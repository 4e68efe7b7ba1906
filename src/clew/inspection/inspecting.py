"""An inspection: everything that is to be known of a split's samples, streamed into a folder.

::

    identity.json    of which weights, samples and options the parts are
    parts/           the samples, see clew.inspection.parts
    points.parquet   id, x, y (principal components of the embeddings) and cluster of each sample
    summary.json     the figures of the whole; written last

Samples are looked at once. Parts that are there already are kept; what needs all samples is computed from the parts,
which are read again for it. Memory does not grow with the samples, but for some thirty bytes for each.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clew.errors import UserError, require
from clew.inspection.clusters import Labels, cluster
from clew.inspection.parts import (
    FOLDER,
    PART_ROWS,
    columns_of,
    embeddings,
    is_whole,
    num_parts,
    numbers,
    part_path,
    table,
    write_part,
)
from clew.inspection.projection import Plane, Principal, Projection
from clew.inspection.samples import Scorer
from clew.inspection.summary import summarize
from clew.inspection.undisturbed import undisturbed
from clew.inspection.walking import Chunks, Points, Tell, Walk, chunks_of, finite_rows
from clew.runs.files import link_tree, read_json, write_json

if TYPE_CHECKING:
    from clew.inspection.samples import Floats

GROUP_ROWS = 512
"""Rows that are held in memory before they are written, to the next whole batch."""
_SEED = 0


@dataclass(frozen=True)
class Options:
    """What is wanted of an inspection.

    Attributes:
        clusters: How many; none with 0. There are never more than samples.
        tokens: Whether the losses of single tokens are wanted.
        limit: Only so many samples, from the first on; None is all of them.
    """

    clusters: int = 8
    tokens: bool = True
    limit: int | None = None


@undisturbed()
def inspect(
    scorer: Scorer,
    folder: Path,
    options: Options,
    *,
    identity: Mapping[str, Any],
    before: Path | None = None,
    progress: Tell | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Look at every sample of a split.

    Args:
        scorer: Looks at the samples.
        folder: Where to; parts that were written there for the same samples by the same weights are kept.
        options: What is wanted.
        identity: Which weights and samples these are, as JSON; it stands in the summary.
        before: An inspection that may be of the same weights and samples: its parts are taken then.
        progress: Is told how far it is after each group of rows.
        cancelled: Says whether to give up. The parts that are there stay.

    Returns:
        The content of ``summary.json``.

    Raises:
        UserError: If there are no samples, or it was cancelled.
        MissingLibrary: Without pyarrow, or without scikit-learn if there are embeddings or clusters.
    """
    size = min(len(scorer), options.limit or len(scorer))
    if not size:
        raise UserError("there are no samples to inspect")
    walk = Walk(progress, cancelled)
    _prepare(folder, {**identity, "samples": size, "tokens": options.tokens}, before)
    for number in range(num_parts(size)):
        start, stop = number * PART_ROWS, min((number + 1) * PART_ROWS, size)
        path = part_path(folder, number)
        if not is_whole(path, stop - start):
            write_part(path, _groups(scorer, start, stop, size, options.tokens, walk))
        walk.tell(stop, size)
    loss = numbers(folder, "loss")
    plane, labels, about = _map(folder, loss, options.clusters, walk)
    _write_points(folder / "points.parquet", plane, labels)
    summary = {**identity, **summarize(folder, loss, labels), **about}
    write_json(folder / "summary.json", summary)
    return summary


def _prepare(folder: Path, identity: Mapping[str, Any], before: Path | None) -> None:
    """Keep what is of the same weights and samples, here or in an earlier inspection; begin anew otherwise."""
    if _identity(folder) == identity:
        for torn in (folder / FOLDER).glob(".*"):  # of a process that was killed
            torn.unlink()
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if before is not None and _identity(before) == identity:
        link_tree(before / FOLDER, folder / FOLDER)
    else:
        (folder / FOLDER).mkdir()
    write_json(folder / "identity.json", dict(identity))


def _identity(folder: Path) -> Any:
    try:
        return read_json(folder / "identity.json")
    except (OSError, ValueError):
        return None


def _groups(scorer: Scorer, start: int, stop: int, size: int, tokens: bool, walk: Walk) -> Iterator[Any]:
    """Yield the tables of a part, group by group."""
    arrow = require("pyarrow", extra="data")
    waiting, rows = [], 0
    for ids in walk.batches(start, stop, scorer.batch_size):
        waiting.append(table(ids, scorer.score(ids, tokens=tokens), scorer.fields(ids)))
        rows += len(ids)
        if rows >= GROUP_ROWS or ids[-1] + 1 == stop:
            yield arrow.concat_tables(waiting)
            waiting, rows = [], 0
            walk.tell(int(ids[-1]) + 1, size)


def _map(folder: Path, loss: Floats, count: int, walk: Walk) -> tuple[Plane, Labels, dict[str, Any]]:
    """Place the samples in a plane, and sort them into clusters: by their embeddings, else by their losses."""
    plane = np.full((len(loss), 2), np.nan, dtype=np.float32)
    about: dict[str, Any] = {"projection": None}
    by_embedding = "embedding" in columns_of(folder)
    chunks = _watched(embeddings(folder) if by_embedding else chunks_of(loss), walk)
    usable = finite_rows(chunks)
    if by_embedding and usable.any():
        fitted = _fitted(chunks, usable)
        start = 0
        for part in chunks():
            plane[start : start + len(part)] = fitted.of(part)
            start += len(part)
        about["projection"] = {"method": "pca", "explained": [round(float(one), 6) for one in fitted.explained]}
    count = min(count, int(usable.sum()))
    labels = np.zeros(len(loss), dtype=np.int32)
    if count:
        labels = cluster(chunks, loss, count, usable=usable, seed=_SEED)
        about["clustered_by"] = "embedding" if by_embedding else "loss"
    return plane, labels, about


def _watched(chunks: Chunks, walk: Walk) -> Chunks:
    """The same rows, with a look up before each chunk."""

    def read() -> Iterator[Points]:
        for part in chunks():
            walk.check()
            yield part

    return read


def _fitted(chunks: Chunks, usable: Any) -> Projection:
    found, start = Principal(), 0
    for part in chunks():
        found.add(part[usable[start : start + len(part)]])
        start += len(part)
    return found.fit()


def _write_points(path: Path, plane: Plane, labels: Labels) -> None:
    arrow = require("pyarrow", extra="data")
    columns = {
        "id": arrow.array(np.arange(len(labels), dtype=np.int64)),
        "x": arrow.array(plane[:, 0], from_pandas=True),
        "y": arrow.array(plane[:, 1], from_pandas=True),
        "cluster": arrow.array(labels, mask=labels == 0),
    }
    write_part(path, [arrow.table(columns)])
