"""What a request to merge into a live trainer asks for, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from clew.config import Plugin, config, load
from clew.errors import UserError, did_you_mean
from clew.merging.methods import MergeMethod, method_registry
from clew.session.surface import MergeRequest


@config
class _Said:
    """The part of a config that a request holds."""

    method: Annotated[MergeMethod, Plugin("method", word=True)]
    """How."""


@dataclass(frozen=True)
class Asked:
    """A merge that makes sense as far as its words go.

    Attributes:
        method: How.
        said: The method with all of its options, as in a config.
        weights: One for each source.
        names: What each source is called.
    """

    method: MergeMethod
    said: Mapping[str, Any]
    weights: list[float]
    names: list[str]

    @property
    def shares(self) -> list[dict[str, Any]]:
        """The sources with their shares, or with their factors where the method takes such."""
        whole = 1.0 if self.method.any_weights else sum(self.weights)
        return [
            {"source": name, "share": weight / whole} for name, weight in zip(self.names, self.weights, strict=True)
        ]


def method_of(said: Mapping[str, Any] | str) -> tuple[MergeMethod, dict[str, Any]]:
    """Return a method, and how it is written with all of its options.

    Only methods that are registered by a name are found: a request is data, and must not make a process import a file.

    Args:
        said: A name, or a mapping with ``type`` and options.

    Raises:
        UserError: If there is no such method or option; with the nearest.
    """
    registry = method_registry()
    name = said if isinstance(said, str) else said.get("type")
    if not isinstance(name, str) or name not in registry.names():
        raise UserError(f"unknown method {name!r}", hint=did_you_mean(str(name), registry.names()))
    loaded = load({"method": said}, root=_Said, registries={"method": registry})
    method: MergeMethod = loaded.value.method
    return method, loaded.plain["method"]


def asked(request: MergeRequest) -> Asked:
    """Read a request.

    Raises:
        UserError: If there is no such method, or sources and weights do not fit it.
    """
    method, said = method_of(request.method)
    weights = [float(weight) for weight in request.weights] or [1.0] * len(request.sources)
    if len(weights) != len(request.sources):
        raise UserError(f"{len(weights)} weights for {len(request.sources)} sources")
    method.check(weights)
    if method.adds_models:
        raise UserError("a live merge takes only the sources that it names", hint="name the checkpoints as sources")
    if request.base is not None and not method.uses_base:
        raise UserError("this method uses no base", hint="leave base out")
    return Asked(method, said, weights, list(request.names))
