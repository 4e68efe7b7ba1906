"""From numbers to a word, and sentences that say what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Word = Literal["well", "look", "bad"]
WORDS: tuple[Word, ...] = ("well", "look", "bad")
"""From the best to the worst."""

RATIO_LOOK = 0.1
"""An update so large beside its weights: about 1e-3 is usual (Karpathy, cs231n.github.io/neural-networks-3/#ratio)."""
RATIO_BAD = 1.0
"""An update as large as the weights: what they had learnt is gone after a step."""
WARM_UPDATES = 20
"""Weights that begin at zero (LoRA's B) are moved by 1/t of their size in Adam's step t: until then it is no sign."""
STUCK_LOOK = 0.4
"""This share of a layer's units never active or always at an end: a learning rate that is too high kills as much as
40 % of a network's ReLUs (cs231n.github.io/neural-networks-1/#actfun)."""
DATA_LOOK = 0.2
"""This share of a step waiting for data: a fifth of the machine is paid for and not used."""
LATE_LOOK = 3.0
"""One step in twenty takes so many times the usual."""
LATE_SECONDS = 0.02
"""And is later by so much: below it, it is the operating system's doing."""
IDLE_LOOK = 0.5
"""The GPU has nothing to do for half of the time."""
SKEW_LOOK = 1.2
"""The slowest rank takes so many times the middle one's time: the others wait for the difference."""
STRAGGLER_DATA = 0.1
"""One rank waits for its data by so much more of a step than the middle one."""
_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """Something that is worth knowing.

    Attributes:
        word: How bad it is; ``well`` for what is only good to know.
        area: The section of the report that it is from.
        text: A sentence with the numbers in it, and what to do.
    """

    word: Word
    area: str
    text: str


def verdict(report: Mapping[str, Any]) -> tuple[Word, list[Finding]]:
    """Judge a report.

    Args:
        report: What :func:`clew.health.report.health_report` or :func:`clew.health.journal.journal_report` returned,
            also after a way through JSON. A section that is missing or None says nothing.

    Returns:
        The worst word of all findings (``well`` without any), and the findings, the worst first.
    """
    found = [finding for area in AREAS if report.get(area) is not None for finding in _judge(area, report[area])]
    found.sort(key=lambda finding: -WORDS.index(finding.word))
    return (found[0].word if found else "well"), found


def _judge(area: str, section: Any) -> list[Finding]:
    try:
        return [Finding(word, area, text) for word, text in _JUDGES[area](section)]
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        # Another version, or a job of somebody's own, may have written it otherwise: what it says is not lost by that.
        return []


def judged(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with its verdict and its findings in front."""
    word, findings = verdict(report)
    return {"verdict": word, "findings": [asdict(finding) for finding in findings], **report}


_Judged = Iterator[tuple[Word, str]]


def _numerics(section: Mapping[str, Any]) -> _Judged:
    bad: Mapping[str, Any] = section.get("not_finite") or {}
    if any("weights" in what for what in bad.values()):
        yield "bad", f"{_counted(bad, 'weights', 'weights')}; put it back: clew reset RUN --to STEP, with a lower lr"
    if any("optimizer" in what for what in bad.values()):
        advice = "clew reset RUN --optimizer forgets them"
        yield "bad", f"{_counted(bad, 'optimizer', 'values of the optimizer')}; {advice}"
    if any("gradients" in what for what in bad.values()):
        kept = section.get("optimizer_state") and not any(what.keys() - {"gradients"} for what in bad.values())
        text = _counted(bad, "gradients", "gradients")
        if kept:
            yield "look", f"{text}, and that step was left out; now and then that is usual with float16"
        else:
            yield "bad", f"{text}; the next step spoils the weights: lower lr, or the bound of the gradient's norm"
    layers: Mapping[str, Any] = section.get("layers") or {}
    yield from _ratios(layers)
    # A parameter without a gradient is told from one whose gradient was dropped by the others.
    there = "grad" in (section.get("gradient_from") or "")
    idle = [name for name, layer in layers.items() if _is_unreached(layer, there)]
    if idle and len(idle) < len(layers):
        yield "look", f"no gradient reaches {_names(idle)}; is it used, and meant to be trained?"


def _ratios(layers: Mapping[str, Any]) -> _Judged:
    ratios = {name: number(layer.get("ratio")) for name, layer in layers.items() if _is_warm(layer)}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None and ratio >= RATIO_LOOK}
    if not known:
        return
    name = max(known, key=lambda one: known[one])
    others = f" ({len(known)} layers are above {RATIO_LOOK:g})" if len(known) > 1 else ""
    word: Word = "bad" if known[name] >= RATIO_BAD else "look"
    moves = f"a step moves {name} by {known[name]:.2g} of its size{others}, where 0.001 is usual"
    yield word, f"{moves}; lower lr, or warm it up"


def _is_warm(layer: Mapping[str, Any]) -> bool:
    updates = layer.get("updates")
    return updates is None or updates >= WARM_UPDATES


def _is_unreached(layer: Mapping[str, Any], there: bool) -> bool:
    gradient, updates = number(layer.get("gradient")), layer.get("updates")
    if gradient is None:
        return there
    # LoRA's A has no gradient in the first step, since B is zero.
    return gradient == 0.0 and (updates is None or updates > 1)


def _losses(section: Mapping[str, Any]) -> _Judged:
    if lost := section.get("not_finite"):
        first = (section.get("lost") or {}).get("step")
        since = "" if first is None else f", the first at step {first}"
        yield "bad", f"{lost:,} of {section['count']:,} losses are not finite{since}; lower lr, or clip gradients"
    spikes: Sequence[Mapping[str, Any]] = section.get("spikes") or ()
    if not spikes:
        return
    newest = spikes[-1]
    where = "" if newest.get("step") is None else f" at step {newest['step']}"
    jumped = f"the loss jumped from {_shown(newest['usual'])} to {_shown(newest['value'])}{where}"
    if not section.get("recovered", True):
        yield "bad", f"{jumped} and has not come back; go back to a checkpoint from before, with a lower lr"
    else:
        count = section.get("num_spikes", len(spikes))
        yield "look", f"{jumped}{f', one of {count} spikes' if count > 1 else ''}, and came back; look at that batch"


def _activations(section: Mapping[str, Any]) -> _Judged:
    for kind, what, advice in (
        ("dead", "never active over a batch", "lower lr, or warm it up"),
        ("saturated", "at an end over a whole batch", "scale down what goes in, or lower lr"),
    ):
        shares = {name: layer[kind] / layer["units"] for name, layer in section["layers"].items() if layer.get(kind)}
        stuck = {name: share for name, share in shares.items() if share >= STUCK_LOOK}
        if not stuck:
            continue
        name = max(stuck, key=lambda one: stuck[one])
        word: Word = "bad" if stuck[name] >= 1 else "look"
        layer = section["layers"][name]
        others = f" ({len(stuck)} layers have that)" if len(stuck) > 1 else ""
        yield word, f"{layer[kind]:,} of {layer['units']:,} units of {name} are {what}{others}; {advice}"


def _throughput(section: Mapping[str, Any]) -> _Judged:
    waits, usual, late = (number(section.get(name)) for name in ("data_share", "median_seconds", "p95_seconds"))
    if waits is not None and waits >= DATA_LOOK:
        yield "look", f"{waits:.0%} of a step is waiting for data; load it with more workers, or ahead of time"
    if usual is not None and late is not None and late >= LATE_LOOK * usual and late - usual >= LATE_SECONDS:
        yield "look", f"one step in twenty takes {late:.3g} s, where {usual:.3g} s is usual; what else runs there?"
    idle = number(section.get("gpu_idle"))
    if idle is not None and idle >= IDLE_LOOK:
        yield "look", f"the GPU has nothing to do for {idle:.0%} of the time; make batches larger, or compile"
    if gaps := section.get("gaps"):
        gap = gaps[0]
        others = f", the longest of {section['num_gaps']} such gaps" if section["num_gaps"] > 1 else ""
        yield "look", f"no step came for {gap['seconds']:,.0f} s after step {gap['step']}{others}; what happened then?"


def _determinism(section: Mapping[str, Any]) -> _Judged:
    if known := section.get("nondeterministic"):
        yield "well", f"two runs may differ in the last bits: {'; '.join(known)}"


def _distribution(section: Mapping[str, Any]) -> _Judged:
    skew = number(section.get("skew"))
    if skew is not None and skew >= SKEW_LOOK:
        yield "look", f"rank {section['slowest']} takes {skew:.2g} times as long as the middle one; look at its machine"
    shares = [number(value) for value in section.get("data_share") or ()]
    known = sorted(share for share in shares if share is not None)
    if len(known) == len(shares) and len(known) > 1 and known[-1] - known[(len(known) - 1) // 2] >= STRAGGLER_DATA:
        rank = shares.index(known[-1])
        yield "look", f"rank {rank} waits for data {known[-1]:.0%} of a step, and the others for it; look at its disk"


def _history(section: Mapping[str, Any]) -> _Judged:
    for name, step in (section.get("not_finite") or {}).items():
        # An evaluation may have nothing to average; a gradient always has.
        word: Word = "bad" if "grad" in name or "loss" in name else "look"
        yield word, f"{name} is not finite at step {step}; go back to a checkpoint from before it, with a lower lr"
    if reason := section.get("failed"):
        yield "bad", f"the last attempt failed: {reason}"
    if damaged := section.get("bad_checkpoints"):
        what = "a checkpoint" if damaged == 1 else f"{damaged} checkpoints"
        yield "look", f"{what} did not verify and {'was' if damaged == 1 else 'were'} passed over; look at the disk"


_JUDGES: Mapping[str, Callable[[Mapping[str, Any]], _Judged]] = {
    "numerics": _numerics,
    "losses": _losses,
    "activations": _activations,
    "throughput": _throughput,
    "determinism": _determinism,
    "distribution": _distribution,
    "history": _history,
}
AREAS = tuple(_JUDGES)
"""The sections that are judged."""


def number(value: Any) -> float | None:
    """Return a figure of a report, where what is not finite is spelled out; None for what is not known."""
    return None if value is None else float(value)


def _shown(value: Any) -> str:
    return f"{float(value):.3g}"


def _counted(bad: Mapping[str, Mapping[str, Mapping[str, int]]], what: str, called: str) -> str:
    layers = [name for name, kinds in bad.items() if what in kinds]
    nan, infinite = (sum(bad[name][what][kind] for name in layers) for kind in ("nan", "inf"))
    counts = " and ".join(f"{count:,} {kind}" for count, kind in ((nan, "NaN"), (infinite, "infinite")) if count)
    return f"{called} are not finite ({counts}) in {_names(layers)}"


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
