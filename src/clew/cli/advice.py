"""What is advised where something has not completed."""

from __future__ import annotations

from clew.runs import JobResult


def ends_so_again(result: JobResult | None) -> bool:
    """Say whether another attempt cannot end otherwise, as long as nothing is mended."""
    return result is not None and result.failure is not None and result.failure.lasting


def way_on(name: str, *, mend: bool, is_plan: bool = False) -> str:
    """Return how something that has not completed is gone on with.

    Args:
        name: Of the run or the pipeline.
        mend: Whether something must be mended first; see :func:`ends_so_again`.
        is_plan: Whether it is a pipeline.
    """
    resume = f"clew resume {name}"
    if not mend:
        return resume
    again = "change the file, and clew run it again"
    other = again if is_plan else f"clew fork {name} key=value, or clew run FILE key=value --name NAME"
    return f"mend that, then {resume} (if only another config helps: {other})"
