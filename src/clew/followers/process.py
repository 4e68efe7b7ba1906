"""The process beside the worker in which a run is followed.

``python -m clew.followers.process RUN ATTEMPT NAME JSON`` belongs to one follower and one attempt, so that one which
fails, lags, hangs or crashes holds nobody up. When the run is over, it ends once everything has been handed on, or
nothing gets on any more.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from clew.config import load
from clew.errors import ClewError
from clew.followers.base import FollowingConfig, followers_of
from clew.followers.follow import POLL_SECONDS, Follow, standing_of
from clew.followers.starting import registries
from clew.runs import Run


def main(arguments: Sequence[str]) -> int:
    """Follow one attempt of a run until there is nothing more to do.

    Args:
        arguments: The run's directory, the number of the attempt, the follower's name, and the
            :class:`FollowingConfig` in which it stands, as JSON.
    """
    run, attempt, name = Run(Path(arguments[0])), int(arguments[1]), arguments[2]
    try:
        settings = load(json.loads(arguments[3]), root=FollowingConfig, registries=registries()).value
        config = followers_of(settings)[name]
    except ClewError as error:
        _say(f"clew: {name}: {error.one_line()}")
        return error.exit_code
    supervise(run, attempt, Follow(run, attempt, name, config, say=_say), config.linger)
    return 0


def supervise(run: Run, attempt: int, follow: Follow, linger: float) -> None:
    """Let a follower go, and wait for it as long as it makes sense.

    Args:
        run: The run.
        attempt: The attempt that is followed.
        follow: What to do.
        linger: Seconds without getting on, after the end of the run, until it is given up.
    """
    thread = threading.Thread(target=follow, name=follow.name, daemon=True)
    thread.start()
    ended: float | None = None
    while thread.is_alive():
        thread.join(timeout=POLL_SECONDS)
        if ended is None and standing_of(run, attempt) != "live":
            ended = time.monotonic()
        if ended is not None and time.monotonic() - max(ended, follow.last_progress) > linger and thread.is_alive():
            follow.stop(f"nothing was delivered for {linger:g} s after the end of the run")
            return


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # a library that hangs keeps nobody here
