"""How fast journals go into a PostgreSQL on this machine: measured, and nothing promised.

The server is started as the store's tests start theirs: on loopback, as somebody who is not root, without ``fsync``.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

from common import Figure
from store_ingest import SHAPES, measure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "store"))
from store_content import Server, program

POINTS = 200_000


def main() -> None:
    """Print the rate for each shape of journal; nothing where there is no PostgreSQL."""
    if not program("initdb") or (os.geteuid() == 0 and "postgres" not in {one.pw_name for one in pwd.getpwall()}):
        print("there is no PostgreSQL here, or nobody to run it as", file=sys.stderr)
        return
    server = Server()
    try:
        server.start()
        for width in SHAPES:
            found = measure(POINTS, width, server.schema())
            what = f"store ingest into PostgreSQL on loopback, without fsync, {width} metrics an event"
            Figure(what, found["rows_per_second"], "rows/s").print()
    finally:
        server.remove()


if __name__ == "__main__":
    main()
