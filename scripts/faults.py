"""Kill real runs with SIGKILL, hundreds of times, and compare what comes out with a run that nothing disturbed.

``python scripts/faults.py [--kills 500] [--seed 0] [--workspace DIR] [--fresh]``

Whole process groups are killed at random moments: of pretraining in one process and in two, of fine-tuning, and of
reinforcement. Each run is resumed and killed again until it has ended, and then its weights, metrics and journal are
compared. What was done is kept in the workspace, so that the script goes on where it was ended itself. At the end it
writes ``faults.md`` there. Exit code 0 when all runs ended as the undisturbed ones, 1 when not.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))

from kills import CASES, as_json, differences, finish, kill_once, make, upper_bound

from clew.runs import State, Workspace
from clew.runs.files import read_json, write_atomically, write_json

SHARES = {"pretrain": 0.5, "pretrain-2": 0.2, "sft": 0.18, "grpo": 0.12}
"""Which part of the kills each kind of run gets; the quicker one starts, the more."""


def main() -> int:
    """Kill, compare, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path, default=Path("demo/faults"))
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    arguments = parser.parse_args()
    if arguments.fresh:
        shutil.rmtree(arguments.workspace, ignore_errors=True)
    workspace = Workspace(arguments.workspace.resolve())
    workspace.runs.mkdir(parents=True, exist_ok=True)
    known = Progress(workspace.root / "progress.json")
    for case, share in SHARES.items():
        _case(workspace, case, max(1, round(arguments.kills * share)), arguments.seed, known)
    return _report(workspace, known)


class Progress:
    """What was done so far, in a file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.value: dict[str, Any] = read_json(path) if path.exists() else {"kills": [], "runs": [], "seconds": 0.0}

    def kills(self, case: str) -> list[dict[str, Any]]:
        """Return the kills of a case."""
        return [one for one in self.value["kills"] if one["case"] == case]

    def add(self, kind: str, **fields: Any) -> None:
        """Add to ``kills`` or ``runs``, durably."""
        self.value[kind].append(fields)
        write_json(self._path, self.value)

    def spend(self, seconds: float) -> None:
        """Add to the time that it took."""
        self.value["seconds"] += seconds


def _case(workspace: Workspace, case: str, kills: int, seed: int, known: Progress) -> None:
    """Kill runs of one kind so many times; each that ends is compared."""
    whole = make(workspace, case, f"{case}-whole")
    finish(whole)
    while len(known.kills(case)) < kills:
        began, done = time.monotonic(), len(known.kills(case))
        number = sum(one["case"] == case for one in known.value["runs"])
        run = make(workspace, case, f"{case}-{number}")
        found = None
        if run.state is not State.COMPLETED:
            found = kill_once(run, CASES[case], random.Random(f"{seed} {case} {done}"))
        known.spend(time.monotonic() - began)
        if found is not None:
            known.add("kills", case=case, run=run.id, **as_json(found))
            print(
                f"{case}: kill {done + 1} of {kills}, {found.when}, at step {found.step}, {found.lost} lost", flush=True
            )
        if found is None or len(known.kills(case)) >= kills:
            finish(run)
            different = differences(whole, run)
            known.add("runs", case=case, run=run.id, different=different)
            print(f"{run.id}: {', '.join(different) or 'the same weights, metrics and journal'}", flush=True)
            if not different:
                shutil.rmtree(run.checkpoints)


def _report(workspace: Workspace, known: Progress) -> int:
    """Write the report and print it."""
    kills, runs = known.value["kills"], known.value["runs"]
    bad = [one for one in runs if one["different"]]
    lines = [
        "# Killed, and gone on",
        "",
        "| run | kills | runs | interval | most steps lost |",
        "|---|---|---|---|---|",
    ]
    for case in SHARES:
        of_it = known.kills(case)
        most = max((one["lost"] for one in of_it), default=0)
        ended = sum(one["case"] == case for one in runs)
        lines.append(f"| {case} | {len(of_it)} | {ended} | {CASES[case].every} | {most} |")
    late = [one for one in kills if one["lost"] > 2 * CASES[one["case"]].every]
    lines += [
        "",
        f"{len(kills)} kills in {known.value['seconds'] / 60:.0f} minutes; {len(runs)} runs came to their end.",
    ]
    if bad or late:
        lines += [f"{len(bad)} runs ended differently, and {len(late)} kills cost more than is promised."]
        lines += [f"- {one['run']}: {', '.join(one['different'])}" for one in bad]
    else:
        bound = 100 * upper_bound(0, max(1, len(kills)))
        lines += [f"0 of {len(kills)} kills did harm: less than {bound:.2f} % do, at 95 % (Clopper and Pearson)."]
    text = "\n".join(lines) + "\n"
    write_atomically(workspace.root / "faults.md", text)
    print(text, flush=True)
    return 1 if bad or late else 0


if __name__ == "__main__":
    sys.exit(main())
