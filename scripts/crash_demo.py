"""Kill the demo's orchestrator and worker with SIGKILL at random moments, resume each time, and compare what comes out.

``python scripts/crash_demo.py [--kills 10] [--seed 0] [--pipeline FILE] [--workspace DIR]``

The same pipeline runs twice: once undisturbed, once killed. All weights and generations must have the same hash and
every final metric the same value. Exit code 0 when they do, 1 when not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from clew.plans import find_plan, latest_runs
from clew.runs import ACTIVE, Run, State, Workspace
from clew.runs.files import file_digest


def main() -> int:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pipeline", type=Path, default=Path("examples/arithmetic/pipeline.yaml"))
    parser.add_argument("--workspace", type=Path, default=Path("demo/crash"))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.workspace, ignore_errors=True)
    calm = Workspace(arguments.workspace / "calm")
    started = time.monotonic()
    _clew(calm, "run", str(arguments.pipeline)).wait()
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.0f} s", flush=True)

    killed = Workspace(arguments.workspace / "killed")
    moments = random.Random(arguments.seed)
    process = _clew(killed, "run", str(arguments.pipeline))
    # Moments of progress, not of time: every stage has its chance, and a slow machine gets on between the kills.
    stages = len(list(calm.runs.glob("*/run.json")))
    for number, moment in enumerate(sorted(moments.uniform(0, stages) for _ in range(arguments.kills)), start=1):
        while _progress(killed) < moment and process.poll() is None:
            time.sleep(0.02)
        if _ended(process, moments.uniform(0, 2)):
            print(f"the pipeline ended before kill {number}", flush=True)
            break
        print(f"kill {number} at stage {moment:.2f}: {_kill(killed, process)}", flush=True)
        process = _clew(killed, "resume", _plan_name(killed)) if _plan_name(killed) else _again(killed, arguments)
    return _compare(calm, killed) if process.wait() == 0 else 1


def _clew(workspace: Workspace, *words: str) -> subprocess.Popen[bytes]:
    workspace.root.mkdir(parents=True, exist_ok=True)
    with (workspace.root / "orchestrator.log").open("ab") as log:
        command = [sys.executable, "-m", "clew.cli.main", "--workspace", str(workspace.root), *words]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _again(workspace: Workspace, arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    """A kill that came before the plan was stored leaves nothing to resume."""
    return _clew(workspace, "run", str(arguments.pipeline))


def _progress(workspace: Workspace) -> float:
    """Stages that are done, and the part of the one that runs."""
    done = 0.0
    for run in workspace.list_runs():
        if run.state is State.COMPLETED:
            done += 1
            continue
        total = max((event["total"] for event in run.events("horizon")), default=0)
        step = max((event["step"] for event in run.events("metric")), default=0)
        done += min(0.99, step / total) if total else 0
    return done


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(workspace: Workspace, process: subprocess.Popen[bytes]) -> str:
    """Kill the orchestrator and every live worker; say what was running."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    hit = []
    for run in workspace.list_runs():
        now = run.states.read()
        if now.observed(time.time()) in ACTIVE and now.owner is not None:
            os.kill(now.owner.pid, signal.SIGKILL)
            step = max((event["step"] for event in run.events("metric")), default=0)
            hit.append(f"{run.id} at step {step}")
    return ", ".join(hit) or "no worker"


def _plan_name(workspace: Workspace) -> str:
    found = sorted(workspace.plans.glob("*/tree.json"))
    return found[0].parent.name if found else ""


def _compare(calm: Workspace, killed: Workspace) -> int:
    """Compare artifacts and metrics stage by stage."""
    outcomes = []
    for workspace in (calm, killed):
        plan = find_plan(workspace, _plan_name(workspace))
        assert plan is not None
        outcomes.append(latest_runs(plan, workspace))
    same = set(outcomes[0]) == set(outcomes[1])
    for stage in outcomes[0]:
        first, second = outcomes[0][stage].result, outcomes[1][stage].result
        assert first is not None
        assert second is not None
        both = second.status == State.COMPLETED
        weights = _digests(outcomes[0][stage]) == _digests(outcomes[1][stage])
        metrics = first.metrics == second.metrics
        same = same and both and weights and metrics
        print(f"{stage}: attempts {second.attempts}, weights equal {weights}, metrics equal {metrics}", flush=True)
    print("the same weights and metrics" if same else "DIFFERENT", flush=True)
    return 0 if same else 1


def _digests(run: Run) -> dict[str, str]:
    """Hash the weights and generations of a run; an adapter's config names its base by path, which must differ."""
    files = [*run.artifacts.rglob("*.safetensors"), *run.artifacts.rglob("*.jsonl")]
    return {path.relative_to(run.path).as_posix(): file_digest(path) for path in files}


if __name__ == "__main__":
    sys.exit(main())
