"""Carries scenarios out with a fault at each of their calls, or at a sample of them."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from power import Disk, read_trace, write
from scenarios import SCENARIOS
from shimmed import Ended, Fault, Mode, Zygote

ALL = os.environ.get("CLEW_FAULTS") == "all"
"""Whether everything is tried: ``make faults``. Else it is a sample, which the seed names."""
SEED = int(os.environ.get("CLEW_FAULTS_SEED", "0"))
NEVER = 1_000_000
_MORE = 50
"""How many calls more than at first a run may make, whose threads do not always come in the same order."""


class Bench:
    """Prepared folders, and where faults are met.

    Args:
        zygote: Carries out what meets them.
        scratch: A folder.
    """

    def __init__(self, zygote: Zygote, scratch: Path) -> None:
        self.zygote = zygote
        self._scratch = scratch
        self._place = scratch / "place"

    def points(self, scenario: str, fault: Fault, sample: int) -> Iterator[int]:
        """Yield at which calls a fault is met, after a look at how many there are: all, or so many of them."""
        ended = self.meet(scenario, replace(fault, mode=Mode.KILL), NEVER)
        assert ended.end == "ended", ended
        numbers = range(1, ended.count + 1)
        if ALL:
            yield from range(1, ended.count + _MORE)
        else:
            yield from sorted(random.Random(f"{SEED} {scenario} {fault}").sample(numbers, min(sample, len(numbers))))

    def meet(self, scenario: str, fault: Fault, number: int) -> Ended:
        """Let a fault happen at a call, and check what is left."""
        what = SCENARIOS[scenario]
        self._prepared(scenario)
        ended = self.zygote.run(
            scenario, self._place, fault, number, meanwhile=lambda pid: what.attend(self._place, pid)
        )
        self._check(scenario, ended, f"call {number} of {scenario}, {fault.mode.name}")
        return ended

    def lose_power(self, scenario: str, sample: int) -> int:
        """Build what may be left when the power goes, after each call; check each, and return how many there were."""
        start = self._prepared(scenario)
        trace = self._scratch / "trace"
        trace.unlink(missing_ok=True)
        recorded = self.zygote.run(scenario, self._place, Fault(Mode.RECORD), NEVER, trace=trace)
        assert recorded.end == "ended", recorded
        disk, tried = Disk(start, self._place), 0
        chosen = random.Random(f"{SEED} {scenario}")
        states = _states(disk, trace)
        total = sum(1 for _ in states)
        share = 1.0 if ALL else min(1.0, sample / total)
        for name, built in _states(Disk(start, self._place), trace):
            if chosen.random() >= share:
                continue
            tried += 1
            shutil.rmtree(self._place, ignore_errors=True)
            marks, content = built
            write(content, self._place)
            self._check(scenario, Ended("killed", marks), name)
        return tried

    def _prepared(self, scenario: str) -> Path:
        start = self._scratch / f"start-{scenario}"
        if not start.exists():
            start.mkdir()
            SCENARIOS[scenario].prepare(start)
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.copytree(start, self._place, symlinks=True)
        return start

    def _check(self, scenario: str, ended: Ended, what: str) -> None:
        assert ended.end in ("killed", "raised", "ended"), f"{what}: {ended}"
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PATH", "")  # what git says of the code around takes most of an attempt's time
                SCENARIOS[scenario].check(self._place, ended)
        except Exception as error:
            raise AssertionError(f"{what}, {ended}: {type(error).__name__}: {error}") from error


def _states(disk: Disk, trace: Path) -> Iterator[tuple[str, tuple[list[str], object]]]:
    for number, call in enumerate(read_trace(trace)):
        disk.follow(call)
        if call.what == "mark":
            continue
        for name, content in disk.states():
            yield (
                f"power lost after call {number} ({call.what} {Path(call.one).name}): {name}",
                (
                    list(disk.marks),
                    content,
                ),
            )


def every(bench: Bench, scenario: str, fault: Fault, sample: int) -> int:
    """Let a fault happen at every call, or at a sample; returns how many it hit."""
    hit = 0
    for number in bench.points(scenario, fault, sample):
        ended = bench.meet(scenario, fault, number)
        if ended.survived and ended.count < number:
            break
        hit += 1
    return hit
