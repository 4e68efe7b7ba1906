"""What is on this machine needs no network: a chain of jobs from nothing to an adapter, and nobody is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

GUARD = """\
import socket, traceback


def refuse(*arguments, **options):
    with open({log!r}, "a") as stream:
        stream.write(f"{{arguments}}\\n{{''.join(traceback.format_stack(limit=60))}}\\n")
    raise OSError("there is no network")


def connect(self, address, plain=socket.socket.connect):
    return plain(self, address) if self.family == socket.AF_UNIX else refuse(address)


socket.socket.connect = socket.socket.connect_ex = connect
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
"""
TASK = {"type": "arithmetic", "max_operand": 9, "train_size": 40, "validation_size": 8, "test_size": 8}
COMMON = {"task": TASK, "runtime": {"device": "cpu", "threads": 1}}
PIPELINE = {
    "pipeline": "chain",
    "stages": {
        "base": {
            "job": "pretrain",
            "model": {"depth": 1},
            "data": {"seq_len": 32},
            "training": {"steps": 2, "batch_size": 4},
            **COMMON,
        },
        "sft": {
            "job": "sft",
            "model": "${base.artifacts.model}",
            "training": {"steps": 2, "batch_size": 2},
            **COMMON,
        },
    },
}


def test_a_chain_of_jobs_asks_nobody(tmp_path: Path) -> None:
    log = tmp_path / "asked"
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(GUARD.format(log=str(log)))
    (tmp_path / "chain.yaml").write_text(json.dumps(PIPELINE))
    kept = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    path = os.pathsep.join([str(tmp_path / "hook"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "clew.cli", "run", "chain.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**kept, "PYTHONPATH": path, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not log.exists(), log.read_text()
    assert done.stdout.count("completed") >= 2


def test_the_guard_would_see_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(GUARD.format(log=str(tmp_path / "asked")))
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False
    )
    assert done.returncode == 1
    assert "127.0.0.1" in (tmp_path / "asked").read_text()
