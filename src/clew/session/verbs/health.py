"""Health: say how the training is doing, and change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clew.session.surface import Checkable, capable
from clew.session.verbs.base import Boundary, Verb


def note_health(boundary: Boundary) -> dict[str, Any]:
    """Ask the trainer how it is doing, and put its report into the journal.

    Args:
        boundary: Where the run stands.

    Returns:
        The verdict and its findings, without the numbers.

    Raises:
        UserError: If the trainer does not say such things.
    """
    report = capable(boundary.surface, Checkable).health()
    boundary.event("health", report=dict(report))
    return {"verdict": report.get("verdict"), "findings": [_text(one) for one in report.get("findings") or ()]}


def _text(finding: Any) -> str:
    return str(finding.get("text")) if isinstance(finding, Mapping) else str(finding)


def _health(boundary: Boundary, args: Mapping[str, Any]) -> dict[str, Any]:
    return note_health(boundary)


HEALTH = Verb("health", _health)
