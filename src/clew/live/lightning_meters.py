"""What Lightning has summed of the numbers that a module logs: a part of the state that its own checkpoints leave out.

Without it, the first mean over an epoch after a resume would be one over its rest, and whoever watches a metric would
not know its last value.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torchmetrics import Metric

_REDUCTIONS = {
    f"{home.__name__}.{name}": getattr(home, name) for home in (torch, builtins) for name in ("max", "min", "sum")
} | {"torch.mean": torch.mean}
_SEEN = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")


def meters(trainer: Any) -> dict[str, Any]:
    """Return the sums of a trainer, those of the metrics in its module, and the values that callbacks watch."""
    connector = trainer._logger_connector
    results = trainer.fit_loop.epoch_loop._results
    return {
        "results": {key: _result_state(result) for key, result in results.items()},
        "metrics": {name: _metric_state(metric) for name, metric in _metrics(trainer.lightning_module).items()},
        "seen": {name: dict(getattr(connector, name)) for name in _SEEN},
        "function": connector._current_fx,
        "first": connector._first_loop_iter,
    }


def set_meters(trainer: Any, state: Mapping[str, Any]) -> None:
    """Put back what :func:`meters` returned."""
    connector = trainer._logger_connector
    found = _metrics(trainer.lightning_module)
    for name, saved in state["metrics"].items():
        if name in found:
            _set_metric(found[name], saved)
    results = trainer.fit_loop.epoch_loop._results
    results.clear()
    for key, saved in state["results"].items():
        results[key] = _result(trainer, saved, found)
    for name in _SEEN:
        setattr(connector, name, dict(state["seen"][name]))
    connector._current_fx, connector._first_loop_iter = state["function"], state["first"]


def _metrics(module: torch.nn.Module) -> dict[str, Metric]:
    return {name: part for name, part in module.named_modules() if isinstance(part, Metric)}


def _metric_state(metric: Metric) -> dict[str, Any]:
    values = {name: getattr(metric, name) for name in metric._defaults}
    return {"values": values, "updates": metric._update_count, "computed": metric._computed}


def _set_metric(metric: Metric, state: Mapping[str, Any]) -> None:
    for name, value in state["values"].items():
        setattr(metric, name, _on(metric.device, value))
    metric._update_count, metric._computed = state["updates"], _on(metric.device, state["computed"])


def _on(device: torch.device, value: Any) -> Any:
    """A value, on a device where it is a tensor or a list of some."""
    if isinstance(value, list):
        return [_on(device, item) for item in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _result_state(result: Any) -> dict[str, Any]:
    about = {item.name: getattr(result.meta, item.name) for item in fields(result.meta) if item.name != "_sync"}
    reduction = about.pop("reduce_fx")
    about["reduce_fx"] = f"{'builtins' if reduction.__module__ == 'builtins' else 'torch'}.{reduction.__name__}"
    return {
        "meta": about,
        "sync": [result.meta.sync.should, result.meta.sync.rank_zero_only],
        "state": _metric_state(result) if result.is_tensor else None,
        "latest": result._forward_cache,
        "reset": result.has_reset,
    }


def _result(trainer: Any, state: Mapping[str, Any], found: Mapping[str, Metric]) -> Any:
    about = dict(state["meta"])
    meta = _Metadata(**{**about, "reduce_fx": _REDUCTIONS[about["reduce_fx"]]})
    should, first_only = state["sync"]
    meta.sync = _Sync(_should=should, fn=trainer.strategy.reduce, rank_zero_only=first_only)
    result = _ResultMetric(meta, is_tensor=state["state"] is not None)
    device = trainer.strategy.root_device
    if state["state"] is None:
        result.value = found[about["metric_attribute"]]
    else:
        result.to(device)
        _set_metric(result, state["state"])
    result._forward_cache, result.has_reset = _on(device, state["latest"]), state["reset"]
    return result
