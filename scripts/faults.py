"""Kill real runs with SIGKILL, hundreds of times, and compare what comes out with a run that nothing disturbed.

``python scripts/faults.py [--kills 500] [--seed 0] [--workspace DIR] [--fresh]``

Whole process groups are killed at random moments: of pretraining in one process and in two, of fine-tuning, and of
reinforcement. Each run is resumed and killed again until it has ended, and then its weights, metrics and journal are
compared. Two runs are killed at the same time, those of two processes alone. Most workers of runs of one process are
borne by a process that has imported everything already, and are process groups of their own all the same. What was
done is kept in the workspace, so that the script goes on where it was ended itself. At the end it writes ``faults.md``
there, together with what ``pytest tests/faults --junitxml`` has counted. Exit code 0 when all runs ended as the
undisturbed ones and no kill cost more steps than it may, 1 when not.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))

from kills import CASES, Killed, Nursery, as_json, differences, finish, kill_once, make
from telling import report

from clew.runs import Workspace
from clew.runs.files import read_json, write_atomically, write_json

SHARES = {
    "sft": 0.2,
    "grpo": 0.16,
    "pretrain": 0.24,
    "pretrain-sync": 0.24,
    "pretrain-2": 0.08,
    "pretrain-2-sync": 0.08,
}
"""Which part of the kills each kind of run gets; the quicker one starts, the more."""
LANES = 2
"""Runs of one process that are killed at the same time."""


@dataclass(frozen=True)
class Strand:
    """Runs of one kind, one after the other, that are killed so many times altogether.

    Attributes:
        case: The kind.
        number: Which strand of that kind; its runs and the moments of its kills depend on it alone.
        kills: How many kills.
    """

    case: str
    number: int
    kills: int

    def is_mine(self, entry: dict[str, Any]) -> bool:
        """Whether an entry of the progress is of this strand."""
        return bool(entry["case"] == self.case and entry["strand"] == self.number)


class Progress:
    """What was done so far, in a file; and how much time it took, apart from that in which nobody did anything.

    Args:
        path: The file.
        total: Kills that there will be.
    """

    def __init__(self, path: Path, total: int) -> None:
        self._path, self._total = path, total
        self._lock = threading.Lock()
        self._active, self._since = 0, 0.0
        self.value: dict[str, Any] = read_json(path) if path.exists() else {"kills": [], "runs": [], "seconds": 0.0}

    def of(self, kind: str, strand: Strand) -> list[dict[str, Any]]:
        """Return the ``kills`` or ``runs`` of a strand."""
        with self._lock:
            return [one for one in self.value[kind] if strand.is_mine(one)]

    def add(self, kind: str, strand: Strand, **fields: Any) -> None:
        """Add to ``kills`` or ``runs``, durably."""
        with self._lock:
            self.value[kind].append({"case": strand.case, "strand": strand.number, **fields})
            self._settle()
            write_json(self._path, self.value)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Surround work: its time counts, once however many work at the same time."""
        with self._lock:
            self._settle()
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._settle()
                self._active -= 1

    def _settle(self) -> None:
        now = time.monotonic()
        if self._active:
            self.value["seconds"] += now - self._since
        self._since = now

    def text(self, strands: Sequence[Strand]) -> str:
        """Say how far it is, and how long the rest will take."""
        with self._lock:
            done = list(self.value["kills"])
        seconds = {case: [one["seconds"] for one in done if one["case"] == case] for case in SHARES}
        of_all = [one["seconds"] for one in done]
        left = 0.0
        for strand in strands:
            known = seconds[strand.case] or of_all
            missing = strand.kills - sum(strand.is_mine(one) for one in done)
            left += missing * sum(known) / len(known) / (LANES if CASES[strand.case].ranks == 1 else 1)
        return f"{len(done)} of {self._total} kills, about {left / 60:.0f} minutes left"


class Campaign:
    """Kills runs, in several strands.

    Args:
        workspace: Where.
        kills: How many times.
        seed: Of the moments.
        between: Called before each kill; it may take its time, which does not count.
    """

    def __init__(self, workspace: Workspace, kills: int, seed: int, between: Callable[[], None]) -> None:
        self._workspace, self._seed, self._between = workspace, seed, between
        self.strands = [strand for case, share in SHARES.items() for strand in _strands(case, round(kills * share))]
        self.progress = Progress(workspace.root / "progress.json", sum(strand.kills for strand in self.strands))
        self._over = threading.Event()
        self._nursery: Nursery | None = None

    def carry_out(self) -> None:
        """Carry everything out that has not been done yet."""
        with Nursery() as self._nursery:
            self._carry_out()

    def _carry_out(self) -> None:
        for lanes, ranks in ((LANES, 1), (1, 2)):
            cases = [case for case in SHARES if CASES[case].ranks == ranks]
            for case in cases:  # one after the other: several would make the same model
                make(self._workspace, case, f"{case}-whole")
            self._at_once(lanes, [lambda case=case: self._whole(case) for case in cases])
            strands = [strand for strand in self.strands if strand.case in cases]
            self._at_once(lanes, [lambda strand=strand: self._follow(strand) for strand in strands])

    def _at_once(self, lanes: int, works: Sequence[Callable[[], None]]) -> None:
        """Do all of it, so many at the same time; what goes wrong ends the others between two kills."""
        with ThreadPoolExecutor(lanes) as pool:
            futures: list[Future[None]] = [pool.submit(work) for work in works]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._over.set()
                for future in futures:
                    future.cancel()
                raise

    def _whole(self, case: str) -> None:
        if not self._over.is_set():
            self._between()
            with self.progress.working():
                finish(make(self._workspace, case, f"{case}-whole"))

    def _follow(self, strand: Strand) -> None:
        """Kill runs of one strand; each that ends is compared."""
        while not self._over.is_set() and not self._is_done(strand):
            self._between()
            with self.progress.working():
                self._once(strand)

    def _is_done(self, strand: Strand) -> bool:
        kills = self.progress.of("kills", strand)
        compared = {one["run"] for one in self.progress.of("runs", strand)}
        return len(kills) >= strand.kills and kills[-1]["run"] in compared

    def _once(self, strand: Strand) -> None:
        """Kill a run once more; it is compared when it has ended, or when it was the last time."""
        known = self.progress
        done, began = len(known.of("kills", strand)), time.monotonic()
        run = make(self._workspace, strand.case, f"{strand.case}-{strand.number}-{len(known.of('runs', strand))}")
        found = None
        if done < strand.kills:
            moments = random.Random(f"{self._seed} {strand.case} {strand.number} {done}")
            found = kill_once(run, CASES[strand.case], moments, self._nursery)
        if found is not None:
            done += 1
            known.add("kills", strand, run=run.id, seconds=time.monotonic() - began, **as_json(found))
            print(f"{run.id}: {_said(found, CASES[strand.case].every)}; {known.text(self.strands)}", flush=True)
        if found is None or found.problems or done >= strand.kills:
            self._compare(strand, run.id, found)

    def _compare(self, strand: Strand, name: str, found: Killed | None) -> None:
        """Let a run come to its end, and note how it differs; what is broken already is left as it is."""
        run = self._workspace.find_run(name)
        different = list(found.problems) if found else []
        if not different:
            try:
                finish(run)
                different = differences(self._workspace.find_run(f"{strand.case}-whole"), run)
            except AssertionError as error:
                different = [f"it does not come to its end: {error}"]
        self.progress.add("runs", strand, run=run.id, different=different)
        print(f"{run.id}: {', '.join(different) or 'the same weights, metrics and journal'}", flush=True)
        if not different:
            shutil.rmtree(run.checkpoints)


def _strands(case: str, kills: int) -> list[Strand]:
    """Cut the kills of a kind, so that as many runs are at work as there are lanes."""
    lanes = LANES if CASES[case].ranks == 1 else 1
    return [Strand(case, number, max(1, kills // lanes + (number < kills % lanes))) for number in range(lanes)]


def _said(found: Killed, most: int) -> str:
    if found.problems:
        return "; ".join(found.problems)
    if found.when == "starting":
        return "killed while it started"
    return f"killed after step {found.step}, {found.lost} lost of {most} that may be"


def main(between: Callable[[], None] = lambda: None) -> int:
    """Kill, compare, and say how it went.

    Args:
        between: Called before each kill, for who wants to hold the script up for a while.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path, default=Path("demo/faults"))
    parser.add_argument("--counted", type=Path, default=Path("demo/faults.xml"), help="what pytest has written")
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    arguments = parser.parse_args()
    if arguments.fresh:
        shutil.rmtree(arguments.workspace, ignore_errors=True)
    workspace = Workspace(arguments.workspace.resolve())
    workspace.runs.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(workspace, arguments.kills, arguments.seed, between)
    campaign.carry_out()
    text, is_well = report(campaign.progress.value, arguments.counted)
    write_atomically(workspace.root / "faults.md", text)
    print(text, flush=True)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
