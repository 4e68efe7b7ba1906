"""A process that has imported what all jobs need, and bears workers: most of a worker's start is imports.

It is asked by a line of JSON, ``{"run", "attempt", "log"}``, and answers with the number of the process. Each is a
session and a process group of its own, as a worker is, and does from the claim of its attempt on what a worker does.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODULES = (
    "clew.worker",
    "clew.followers.starting",
    "clew.train.devices",
    "clew.jobs.corpus",
    "clew.jobs.pretrainer",
    "clew.jobs.policy",
    "clew.live.huggingface",
    "torch._dynamo",
    "datasets",
    "peft",
)
NAMES = {
    "transformers": ("LlamaConfig", "LlamaForCausalLM", "AutoModelForCausalLM", "AutoTokenizer", "Trainer"),
    "trl": ("SFTTrainer", "GRPOTrainer"),
}


def main() -> None:
    """Bear workers until nobody asks any more."""
    for module in MODULES:
        importlib.import_module(module)
    for module, names in NAMES.items():
        for name in names:
            getattr(importlib.import_module(module), name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _be(asked)
        print(child, flush=True)


def _be(asked: Mapping[str, Any]) -> None:
    """Be a worker; never returns."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(Path(asked["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for given, place in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(given, place)
    code = 1
    try:
        from clew.worker import main as work

        code = work([asked["run"], str(asked["attempt"])])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
