"""How much memory a merge takes beside its inputs, in largest tensors of each model; at most 2 are promised.

Each merge runs in a process of its own, in which a thread looks every millisecond at the memory that belongs to no
file. Tensors that are read lie in pages of their files, which the system can take back at any time: the inputs.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from common import Figure
from safetensors.torch import save_file

from clew.live.merging import merge_into
from clew.merging.merge import Merge
from clew.merging.methods import method_registry
from clew.merging.weights import Files, TensorFile
from clew.session.surface import MergeRequest

LARGEST = 64 << 20
"""Bytes of the largest tensor."""
METHODS = ("average", "linear", "fisher", "slerp", "task_arithmetic", "ties", "dare")
MODELS = 3


def main() -> None:
    """Print the worst of all methods, for a merge into a new model and into live weights."""
    with TemporaryDirectory() as folder:
        _write(Path(folder))
        for what, mode in (("a merge to a new model", "new"), ("a merge into live weights", "live")):
            found = {name: _measure(Path(folder), name, mode) for name in METHODS if (name, mode) != ("fisher", "live")}
            worst = max(found, key=lambda name: found[name])
            named = f"{what}, peak memory beside the inputs, worst of {len(found)} methods ({worst})"
            Figure(named, found[worst], "largest tensors a model", 2.0).print()


def _write(folder: Path) -> None:
    torch.manual_seed(0)
    shapes = {"embed": (LARGEST // 4096, 1024), **{f"layer.{number}": (1024, 1024) for number in range(12)}}
    for place in range(MODELS + 1):
        (folder / str(place)).mkdir()
        save_file(
            {name: torch.randn(shape) for name, shape in shapes.items()}, folder / str(place) / "model.safetensors"
        )


def _measure(folder: Path, method: str, mode: str) -> float:
    done = subprocess.run(
        [sys.executable, __file__, str(folder), method, mode], check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout)


def work(folder: Path, name: str, mode: str) -> None:
    """Merge in this process, and print how many largest tensors a model it took."""
    torch.set_num_threads(1)
    method = method_registry().resolve(name)()
    count = 2 if name == "slerp" else MODELS
    places = [folder / str(place) for place in range(count)]
    base = folder / str(MODELS) if method.uses_base else None
    live = {}
    if mode == "live":
        first = Files(places[0])
        live = {tensor: first.read(tensor).clone() for tensor in first.layout}
    with _peak() as peak:
        if mode == "live":
            request = MergeRequest(
                [None, *places[1:]], [str(place) for place in places], {"type": name}, base=base, scratch=folder
            )
            merge_into(live, request, Files)
        else:
            models = [Files(place) for place in places]
            known = models if name == "fisher" else None
            merge = Merge(method, models, [1.0] * count, None if base is None else Files(base), known)
            with TensorFile(folder / "made", merge.layout) as file:
                for tensor, merged in merge:
                    file.write(tensor, merged)
    print(peak[0] / LARGEST / count)


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Give the largest number of bytes, so far, that are taken besides those at the beginning."""
    before, found, done = _anonymous(), [0], threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            found[0] = max(found[0], _anonymous() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _anonymous() -> int:
    """Bytes of this process that are in memory and of no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


if __name__ == "__main__":
    if sys.argv[1:]:
        work(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    else:
        main()
