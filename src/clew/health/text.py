"""A report for people: the word, what is wrong and what to do, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

MISSING = "–"
_MOST_LAYERS = 6


def render(report: Mapping[str, Any], name: str) -> str:
    """Return a report as text, without a line break at its end.

    Args:
        report: What :func:`clew.health.report.health_report` returned, also after a way through JSON.
        name: What it is about.
    """
    where = "" if report.get("step") is None else f", at step {report['step']}"
    lines = [f"{name}: {report.get('verdict')}{where}"]
    lines += [f"  {finding.get('word')!s:<4}  {finding.get('text')}" for finding in report.get("findings") or ()]
    facts = [fact for area in _TELLERS if report.get(area) for fact in _told(area, report[area])]
    width = max((len(label) for label, _ in facts), default=0)
    lines += ["", *(f"{label:<{width}}  {text}".rstrip() for label, text in facts)] if facts else []
    table = _told("layers", report.get("numerics") or {})
    return "\n".join([*lines, *(["", *(text for _, text in table)] if table else [])])


def _told(area: str, section: Any) -> list[tuple[str, str]]:
    try:
        return list({**_TELLERS, "layers": _layers}[area](section))
    except (KeyError, TypeError, ValueError, AttributeError):
        # Another version, or a job of somebody's own, may have written it otherwise.
        return []


_Facts = Iterator[tuple[str, str]]


def _losses(section: Mapping[str, Any]) -> _Facts:
    spikes = section["num_spikes"]
    seen = f"{_plural(section['count'], 'loss', 'losses')}, {_plural(spikes, 'spike')}"
    yield "loss", f"{figure(section['newest'])} ({seen})"


def _numerics(section: Mapping[str, Any]) -> _Facts:
    source = f", from the {section['gradient_from']}" if section["gradient_from"] not in (None, "grad") else ""
    yield "gradient", f"norm {figure(section['gradient_norm'])}{source}"
    yield "weights", f"norm {figure(section['weight_norm'])}"
    lost = ", ".join(section["not_finite"])
    yield "not finite", lost or "nothing"


def _activations(section: Mapping[str, Any]) -> _Facts:
    layers = section["layers"].values()
    for kind in ("dead", "saturated"):
        counted = [layer for layer in layers if kind in layer]
        if counted:
            units, stuck = sum(layer["units"] for layer in counted), sum(layer[kind] for layer in counted)
            yield f"{kind} units", f"{stuck:,} of {units:,}"


def _throughput(section: Mapping[str, Any]) -> _Facts:
    slow = "" if section["p95_seconds"] is None else f", one in twenty {_seconds(section['p95_seconds'])}"
    yield "step", f"{_seconds(section['median_seconds'])}{slow}"
    yield "waiting", f"for data {_percent(section['data_share'])}, in pauses {_percent(section['pause_share'])}"
    if section["tokens_per_second"] is not None:
        yield "tokens", f"{section['tokens_per_second']:,.0f} a second"
    if section["gpu_idle"] is not None:
        yield "GPU", f"idle {_percent(section['gpu_idle'])}"


def _determinism(section: Mapping[str, Any]) -> _Facts:
    switch = "on" if section["deterministic_algorithms"] else "off"
    dtypes = ", ".join(section["dtypes"])
    where = f"{_plural(section['threads'], 'thread')}, {dtypes} on {section['device']}"
    yield "repeatable", f"seed {section['seed']}, {where}, deterministic kernels {switch}"
    if section["data"]:
        yield "data", ", ".join(f"{name} {value}" for name, value in section["data"].items())


def _distribution(section: Mapping[str, Any]) -> _Facts:
    times = ", ".join(_seconds(seconds) for seconds in section["median_seconds"])
    yield "ranks", f"{section['ranks']}; a step takes {times}"


def _history(section: Mapping[str, Any]) -> _Facts:
    refused = f" ({section['refused']} refused)" if section["refused"] else ""
    yield (
        "run",
        ", ".join(
            (
                _plural(section["attempts"], "attempt"),
                _plural(section["pauses"], "pause"),
                _plural(section["checkpoints"], "checkpoint"),
                _plural(section["commands"], "command") + refused,
            )
        ),
    )


_TELLERS: Mapping[str, Callable[[Mapping[str, Any]], _Facts]] = {
    "losses": _losses,
    "numerics": _numerics,
    "activations": _activations,
    "throughput": _throughput,
    "determinism": _determinism,
    "distribution": _distribution,
    "history": _history,
}


def _layers(section: Mapping[str, Any]) -> _Facts:
    """The layers that are moved most, as the lines of a table; those of which that is not known come last."""
    layers: Mapping[str, Mapping[str, Any]] = section.get("layers") or {}
    order = sorted(layers, key=lambda name: -_size(layers[name]["ratio"]))
    shown = order[:_MOST_LAYERS]
    rows = [["layer", "weights", "gradient", "update/weights"]]
    rows += [[name, *(figure(layers[name][key]) for key in ("weight", "gradient", "ratio"))] for name in shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *rest in rows if shown else []:
        yield "", "  ".join([name.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])
    if more := len(order) - len(shown):
        yield "", f"and {more} more layers, which are moved less"


def _size(ratio: Any) -> float:
    value = float("-inf") if ratio is None else float(ratio)
    return float("inf") if value != value else value


def figure(value: Any) -> str:
    """Write a figure with four digits; a dash for what is not known."""
    return MISSING if value is None else f"{float(value):.4g}"


def _percent(share: Any) -> str:
    return MISSING if share is None else f"{100 * float(share):.0f} %"


def _seconds(value: Any) -> str:
    if value is None:
        return MISSING
    return f"{1000 * float(value):.3g} ms" if float(value) < 1 else f"{float(value):.3g} s"


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
