"""Carries recipes out: from scores and fields to sample numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from clew.errors import UserError
from clew.inspection.clusters import cluster
from clew.inspection.id_lists import check_ids, read_ids
from clew.inspection.recipes import Choice, Cluster, Everything, Extreme, Named, Recipe, Region, Where
from clew.inspection.samples import Part, Scorer, Selection
from clew.inspection.undisturbed import undisturbed
from clew.inspection.walking import Known, Tell, Walk, chunks_of, finite_rows, score_all

if TYPE_CHECKING:
    from clew.inspection.samples import Floats, Ids


@undisturbed()
def choose(
    recipe: Recipe,
    scorer: Scorer | None,
    *,
    seed: int,
    progress: Tell | None,
    cancelled: Callable[[], bool] | None,
) -> Selection:
    """Carry a recipe out; see :meth:`clew.inspection.recipes.Recipe.select`."""
    walk = Walk(progress, cancelled)
    if scorer is None:
        assert not recipe.needs, "whoever has no scorer chooses by number only"
        return _selection(recipe, [_named(term.choice, None) for term in recipe.terms])
    with score_all(scorer, recipe.needs, walk) as known:
        chosen = [_choose(term.choice, known, scorer, walk, seed) for term in recipe.terms]
        if recipe.order.endswith("-first"):
            assert known.loss is not None
            chosen = [by_loss(ids, known.loss, hardest=recipe.order == "hard-first") for ids in chosen]
    return _selection(recipe, chosen)


def _selection(recipe: Recipe, chosen: list[Ids]) -> Selection:
    said = {"text": str(recipe), "order": recipe.order}
    parts = tuple(Part(ids, term.weight) for ids, term in zip(chosen, recipe.terms, strict=True))
    return Selection(parts, said, shuffled=recipe.order == "shuffled")


def _choose(choice: Choice, known: Known, scorer: Scorer, walk: Walk, seed: int) -> Ids:
    """The numbers of a part [n] int64; never none."""
    match choice:
        case Everything():
            ids = np.arange(known.size, dtype=np.int64)
        case Extreme():
            ids = _extreme(choice, _loss(known))
        case Region():
            ids = np.flatnonzero((_loss(known) >= choice.low) & (_loss(known) <= choice.high))
        case Cluster():
            ids = _cluster(choice, known, seed)
        case Where():
            ids = _where(choice, known, scorer, walk)
        case Named():
            ids = _named(choice, known.size)
    if not len(ids):
        raise UserError(f"{choice} chooses none of the {known.size} samples", hint=_span(known))
    return ids


def _extreme(choice: Extreme, loss: Floats) -> Ids:
    """The highest or lowest losses; of equal ones the smaller number first. Exact: 15 % of 100 is 15."""
    having = np.flatnonzero(~np.isnan(loss))
    if choice.percent is None:
        count = choice.count or 0
        if count > len(having):
            raise UserError(f"{choice} is more than there are: {len(having)} samples have a loss")
    else:
        count = math.ceil(Fraction(choice.percent) * len(having) / 100)
    return np.sort(by_loss(having, loss, hardest=choice.hardest)[:count])


def by_loss(ids: Ids, loss: Floats, *, hardest: bool) -> Ids:
    """Order by loss, then by number; those without a loss come last."""
    keys = loss[ids]
    return ids[np.lexsort((ids, -keys if hardest else keys))]


def _cluster(choice: Cluster, known: Known, seed: int) -> Ids:
    found = {"loss": known.loss, "margin": known.margin, "embedding": known.embedding}[choice.by]
    if found is None:  # there are no samples
        return np.zeros(0, dtype=np.int64)
    chunks = chunks_of(found)
    labels = cluster(chunks, _loss(known), choice.of, usable=finite_rows(chunks), seed=seed)
    return np.flatnonzero(labels == choice.number)


def _where(choice: Where, known: Known, scorer: Scorer, walk: Walk) -> Ids:
    condition, scores = choice.condition, {"loss": known.loss, "margin": known.margin}
    used = {name: values for name, values in scores.items() if values is not None and name in condition.names}
    found: list[int] = []
    missing = set(condition.names) - {*scores}
    for ids in walk.batches(0, known.size, scorer.batch_size):
        for number, fields in zip(ids.tolist(), scorer.fields(ids), strict=True):
            missing -= fields.keys()
            here = {name: float(values[number]) for name, values in used.items()}
            if any(map(math.isnan, here.values())):
                continue  # what has no loss is never chosen by it
            try:
                if condition.holds({**fields, **here}):
                    found.append(number)
            except UserError as error:
                raise UserError(error.what, where=f"sample {number}", hint=error.hint) from None
        walk.tell(int(ids[-1]) + 1, known.size, "conditions")
    if missing and known.size:
        raise UserError(f"no sample has a field {min(missing)!r}", hint=f"there is {', '.join(_fields(scorer))}")
    return np.array(found, dtype=np.int64)


def _fields(scorer: Scorer) -> list[str]:
    return sorted({*scorer.fields(np.zeros(1, dtype=np.int64))[0], "loss", "margin"})


def _named(choice: Choice, size: int | None) -> Ids:
    assert isinstance(choice, Named)
    found = read_ids(choice.file) if choice.file else check_ids(choice.ids)
    if size is not None and (beyond := found[found >= size]).size:
        raise UserError(f"there is no sample {beyond[0]}; there are {size}, from 0", where=str(choice.file or "ids"))
    return found


def _loss(known: Known) -> Floats:
    """The losses; empty where there are no samples."""
    return known.loss if known.loss is not None else np.zeros(0)


def _span(known: Known) -> str:
    """Between what the losses lie, for somebody who has chosen nothing."""
    having = _loss(known)[~np.isnan(_loss(known))]
    if known.loss is None:
        return ""
    return f"losses lie between {having.min():.4g} and {having.max():.4g}" if having.size else "none has a loss"
