"""A task's own way to make a batch, checked before it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clew.errors import UserError
from clew.tasks import Task


class Collation:
    """A data collator for ``Trainer``: the task's, around the default one.

    Args:
        task: Whose :meth:`clew.tasks.hooks.Hooks.collate` is called.
        default: TRL's own collator.
    """

    def __init__(self, task: Task, default: Callable[..., dict[str, Any]]) -> None:
        self._task = task
        self._default = default

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch.

        Raises:
            UserError: If it is not a row for each example, with the tensors that training needs in one shape.
        """
        batch = self._task.collate(features, self._default)
        shapes = {name: tuple(getattr(batch.get(name), "shape", ())) for name in ("input_ids", "labels")}
        if "attention_mask" in batch:
            shapes["attention_mask"] = tuple(batch["attention_mask"].shape)
        rows, *others = shapes.values()
        if len(rows) != 2 or rows[0] != len(features) or any(other != rows for other in others):
            found = ", ".join(f"{name} {list(shape) or 'missing'}" for name, shape in shapes.items())
            raise UserError(
                f"collate() of the task {type(self._task).__name__} gave {found} for {len(features)} examples",
                hint="all of them are tensors [examples, tokens]; call default(features) and change what it returns",
            )
        return batch
