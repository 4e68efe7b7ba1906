"""What came of all the faults, as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kills import CASES, upper_bound


def report(progress: dict[str, Any], counted: Path) -> tuple[str, bool]:
    """Return the text of ``faults.md``, and whether all is well.

    Args:
        progress: The kills and the runs.
        counted: What pytest has written about ``tests/faults``; it may be missing.
    """
    kills, runs = progress["kills"], progress["runs"]
    bad = [one for one in runs if one["different"]]
    lines = [
        "# Killed, and gone on",
        "",
        "| run | kills | while it started | runs | interval | most steps lost |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        of_it = [one for one in kills if one["case"] == case]
        lost = max((one["lost"] for one in of_it), default=0)
        starting = sum(one["when"] == "starting" for one in of_it)
        ended = sum(one["case"] == case for one in runs)
        lines.append(f"| {case} | {len(of_it)} | {starting} | {ended} | {CASES[case].every} | {lost} |")
    minutes = progress["seconds"] / 60
    lines += ["", f"{len(kills)} kills in {minutes:.0f} minutes; {len(runs)} runs were compared.", ""]
    if bad:
        lines += [f"{len(bad)} runs are not what was promised:", ""]
        lines += [f"- {one['run']}: {', '.join(one['different'])}" for one in bad]
    else:
        bound = 100 * upper_bound(0, max(1, len(kills)))
        lines += [f"0 of {len(kills)} kills did harm: less than {bound:.2f} % do, at 95 % (Clopper and Pearson)."]
    if counted.exists():
        lines += ["", *_enumerated(counted)]
    return "\n".join(lines) + "\n", not bad


def _enumerated(counted: Path) -> Iterator[str]:
    """Say how many faults the tests have tried, by what pytest has written down."""
    suite = next(ElementTree.parse(counted).iter("testsuite"))
    tried: Counter[str] = Counter()
    for found in suite.iter("property"):
        tried[found.attrib["name"]] += int(found.attrib["value"])
    yield f"In {float(suite.attrib['time']) / 60:.0f} minutes {suite.attrib['tests']} tests have tried:"
    yield ""
    yield from (f"- {name}: {number}" for name, number in tried.items())
    broken = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    if broken:
        yield from ("", f"{broken} of the tests have failed.")
