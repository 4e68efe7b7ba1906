"""Where merge methods are found by name."""

from __future__ import annotations

from clew.config import Registry

BUILTIN = {
    "average": "clew.merging.methods.average:Average",
    "linear": "clew.merging.methods.linear:Linear",
    "swa": "clew.merging.methods.swa:Swa",
    "fisher": "clew.merging.methods.fisher:Fisher",
    "slerp": "clew.merging.methods.slerp:Slerp",
    "task_arithmetic": "clew.merging.methods.task_arithmetic:TaskArithmetic",
    "ties": "clew.merging.methods.ties:Ties",
    "dare": "clew.merging.methods.dare:Dare",
}


def method_registry() -> Registry:
    """Return the registry of merge methods: what ships, and what other packages offer as ``clew.merge_methods``."""
    return Registry("method", BUILTIN, "clew.merge_methods")
