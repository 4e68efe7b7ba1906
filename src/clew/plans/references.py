"""References between stages: ``${sft.artifacts.adapter}`` stands for what the stage ``sft`` made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clew.config.tree import Origin, Tree, leaves, replace_leaves
from clew.errors import ConfigError, RunFailed, did_you_mean
from clew.runs import Run

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_HINT = "write ${STAGE.artifacts.NAME}, ${STAGE.metrics.NAME} or ${STAGE.run}"
# A stage's name may hold dots itself: it ends where one of these words begins.
_PARTS = re.compile(r"(?P<stage>.+?)\.(?P<rest>run|(?:artifacts|metrics)\..+)")


def references(tree: Tree) -> Iterator[tuple[str, str, Origin]]:
    """Yield ``(stage, rest, origin)`` for each reference in a tree, ``rest`` being such as ``artifacts.model``."""
    for _, leaf in leaves(tree):
        for value in leaf.value if isinstance(leaf.value, list) else [leaf.value]:
            for match in _REFERENCE.finditer(value) if isinstance(value, str) else ():
                stage, rest = split_reference(match.group(1))
                if not rest:
                    raise ConfigError(f"{match.group(0)} is no reference", where=leaf.origin.where, hint=_HINT)
                yield stage, rest, leaf.origin


def split_reference(text: str) -> tuple[str, str]:
    """Return what stands between ``${`` and ``}`` as ``(stage, rest)``; ``rest`` is empty if it is no reference."""
    found = _PARTS.fullmatch(text)
    return (found["stage"], found["rest"]) if found else (text, "")


def resolve_references(tree: Tree, lookup: Callable[[str, str, Origin], Any]) -> Tree:
    """Replace every reference by ``lookup(stage, rest, origin)``.

    A leaf that is one reference takes the value with its type; a reference inside of a text is put in as text.
    """

    def replaced(value: Any, key: str, origin: Origin) -> Any:
        if not isinstance(value, str):
            return value
        if whole := _REFERENCE.fullmatch(value):
            return lookup(*split_reference(whole.group(1)), origin)
        return _REFERENCE.sub(lambda match: str(lookup(*split_reference(match.group(1)), origin)), value)

    return replace_leaves(tree, replaced)


def value_from_run(run: Run, rest: str, where: str) -> Any:
    """Return what a completed run offers under ``artifacts.NAME``, ``metrics.NAME`` or ``run``.

    Raises:
        RunFailed: If the run has no such output; with what it has.
    """
    if rest == "run":
        return f"run:{run.id}"
    result = run.result
    assert result is not None, "only completed stages are looked up"
    kind, _, name = rest.partition(".")
    paths = {key: str(run.path / item.path) for key, item in result.artifacts.items()}
    found: Mapping[str, Any] = paths if kind == "artifacts" else result.metrics
    if name not in found:
        raise RunFailed(f"the stage has no {rest!r}", where=where, hint=did_you_mean(name, found))
    return found[name]


def sample_value(stage: str, rest: str, origin: Origin) -> Any:
    """A stand-in of the right type, for checking a stage before its inputs exist."""
    return 0.5 if rest.startswith("metrics.") else f"${{{stage}.{rest}}}"
