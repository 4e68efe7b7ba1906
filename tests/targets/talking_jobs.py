"""A job that talks, with a secret in everything it says."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import time
import warnings
from pathlib import Path

import clew
from clew.session import Outcome, Session


@clew.config
class TalkConfig(clew.JobConfig):
    """Talk."""

    hook_env: str = "PLAIN_NAME"
    """Name of the environment variable that holds an address."""
    fail: bool = False
    """Raise in the end."""
    child: bool = False
    """Leave a process running that could print."""
    gate: str = ""
    """Wait for this file before the last words."""


@clew.job
def talk(session: Session[TalkConfig]) -> Outcome:
    """Say the secret in many ways."""
    config, secret = session.config, os.environ["SERVICE_TOKEN"]
    print("print", secret, os.environ[config.hook_env])
    print("also", os.environ.get("ALSO", ""))
    os.write(2, b"descriptor " + secret.encode() + b"\n")
    ctypes.CDLL(None).puts(b"library " + secret.encode())
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["sh", "-c", "echo child $SERVICE_TOKEN hf_abcdefghijklmnopqrstuvwxyz0123"], check=True)
    logging.getLogger("somebody").warning("logging %s", secret)
    warnings.warn(f"warning {secret}", stacklevel=2)
    if config.child:
        subprocess.Popen(["sleep", "30"])
    if config.gate:
        session.log(1, loss=1.0)
    while config.gate and not Path(config.gate).exists():
        time.sleep(0.01)
    for _ in range(200 if config.gate else 0):
        print("last words " * 50)
    if config.fail:
        raise ValueError(f"cannot log in with {secret}")
    return Outcome(metrics={"said": 1.0})
