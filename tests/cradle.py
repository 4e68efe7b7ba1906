"""Processes that have imported everything before they are asked for: most of a short job's time is imports.

Within the fixture ``borne``, ``subprocess.Popen`` has each ``python -m clew...``, ``python -c ...`` and ``python FILE``
made by a fork of one process that has imported what jobs need, and these have what they start made so, too. The rest
is as ever: such a process has the arguments, folder, environment, descriptors and session that were asked for, prints
and ends as any, and is waited for and killed like any. What has other words for Python or for the libraries in its
environment than that process (``PYTHONPATH``, say), and what is started otherwise, is started for real.

All processes of one cradle order their sets of words alike (the seed of ``hash`` is one): a test for which that matters
starts one of those that it compares ``with outside():``.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, TextIO

MODULES = (
    "clew.cli.main",
    "clew.cli.detach",
    "clew.worker",
    "clew.followers.process",
    "clew.followers.starting",
    "clew.train.devices",
    "clew.train.meshed",
    "clew.sharding.parallel",
    "clew.session.leading",
    "clew.session.helping",
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
PLACE = "CLEW_TEST_CRADLE"
_READ_AT_IMPORT = ("PYTHON", "HF_", "TRANSFORMERS_", "TORCH", "OMP_", "MKL_", "LD_", "CUDA_")
_WORKERS_OWN = {"HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}
_NO_MATTER = {*_WORKERS_OWN, "PYTHONUNBUFFERED"}
_MOST = 1 << 17
"""Bytes of a request: an environment, above all."""
_SECONDS = 60.0
_Real = subprocess.Popen


class Borne(_Real):
    """A process that is borne if it can be, and started for real otherwise."""

    _line: socket.socket | None = None

    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(super()._execute_child).bind(*given).arguments
        if not _can_be_borne(asked):
            super()._execute_child(*given)
            return
        ends = [(asked["p2cread"], 0), (asked["c2pwrite"], 1), (asked["errwrite"], 2)]
        places = [(own if own != -1 else place, place) for own, place in ends]
        places += [(own, own) for own in asked["pass_fds"]]
        words = {
            "words": [os.fspath(word) for word in asked["args"]],
            "cwd": os.fspath(asked["cwd"] or Path.cwd()),
            "environment": dict(os.environ if asked["env"] is None else asked["env"]),
            "session": asked["start_new_session"],
            "places": [place for _, place in places],
        }
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.connect(os.environ[PLACE])
        socket.send_fds(self._line, [json.dumps(words).encode()], [own for own, _ in places])
        said = self._line.recv(64)
        assert said, "the process that bears others is gone"
        self.pid = int(said)
        self._child_created = True
        self._close_pipe_fds(*(asked[name] for name in _PIPES))

    def _internal_poll(self, *given: Any, **more: Any) -> int | None:
        if self._line is None or self.returncode is not None:
            return super()._internal_poll(*given, **more)
        return None if more else self._ended(0.0)  # more is said when nobody has it any more

    def _wait(self, timeout: float | None) -> int:
        if self._line is None:
            return super()._wait(timeout)
        if self.returncode is None and self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def _ended(self, seconds: float | None) -> int | None:
        """Its exit code, if it has ended within so many seconds; more than one thread may ask."""
        with self._waitpid_lock:
            line = self._line
            if self.returncode is None and line is not None and select.select([line], [], [], seconds)[0]:
                said = line.recv(64)
                assert said, "the process that bears others is gone"
                self.returncode = os.waitstatus_to_exitcode(int(said))
                line.close()
        return self.returncode


_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def _can_be_borne(asked: Mapping[str, Any]) -> bool:
    words = asked["args"]
    if PLACE not in os.environ or isinstance(words, str | bytes) or asked["preexec_fn"] or asked["shell"]:
        return False
    words = [os.fspath(word) for word in words]
    is_ours = len(words) > 2 and words[1] == "-m" and words[2].startswith("clew.")
    is_ours |= len(words) > 2 and words[1] == "-c"
    is_ours |= len(words) > 1 and words[1].endswith(".py")
    environment = os.environ if asked["env"] is None else asked["env"]
    return words[0] == sys.executable and is_ours and _said(environment) == json.loads(os.environ[f"{PLACE}_SAID"])


def _said(environment: Mapping[str, str]) -> dict[str, str]:
    """What an environment says to Python and to libraries while they are imported."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(_READ_AT_IMPORT) and name not in _NO_MATTER
    }


class Cradle:
    """The process that bears others, from the first time that it is needed; close it at the end."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="cradle-")
        self._place = str(Path(self._folder.name) / "s")
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Bear processes instead of starting them; see the head of this file."""
        said = json.dumps(_said(os.environ))
        if self._process is None:
            self._process = self._started({PLACE: self._place, f"{PLACE}_SAID": said})
        os.environ.update({PLACE: self._place, f"{PLACE}_SAID": said})
        subprocess.Popen = Borne
        try:
            yield
        finally:
            subprocess.Popen = _Real
            del os.environ[PLACE], os.environ[f"{PLACE}_SAID"]

    def _started(self, words: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(self._place)
            listening.listen(64)
            return _Real(
                [sys.executable, __file__, str(listening.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=(listening.fileno(),),
                env={**os.environ, **_WORKERS_OWN, **words},
                start_new_session=True,
            )

    def close(self) -> None:
        """Ask for nothing more; who was borne is on their own."""
        if self._process is not None:
            self._process.communicate(timeout=_SECONDS)
        self._folder.cleanup()


@contextmanager
def outside() -> Iterator[None]:
    """Start processes for real for a while."""
    kept, subprocess.Popen = subprocess.Popen, _Real
    try:
        yield
    finally:
        subprocess.Popen = kept


def main(descriptor: int) -> None:
    """Bear processes until nobody asks any more; each of them comes out of here too, and does what it was asked for."""
    for module in MODULES:
        importlib.import_module(module)
    for module, names in NAMES.items():
        for name in names:
            getattr(importlib.import_module(module), name)
    gc.collect()
    gc.freeze()
    subprocess.Popen = Borne
    asked = _bear(socket.socket(fileno=descriptor))
    if asked is not None:
        code = _be(asked)
        # What is left of the end of an interpreter, without giving back thousands of modules one by one.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _bear(listening: socket.socket) -> dict[str, Any] | None:
    """Return in a process that was borne what it is asked for, and in this one None at the end."""
    woken, waking = socket.socketpair()
    waking.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    lines: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([sys.stdin, woken, listening], [], [])
        if woken in ready:
            woken.recv(4096)
            _tell_ends(lines)
        if listening in ready:
            line, _ = listening.accept()
            words, owned, _, _ = socket.recv_fds(line, _MOST, 253)
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (woken, waking, listening, line, *lines.values()):
                    one.close()
                return {**json.loads(words), "owned": owned}
            for own in owned:
                os.close(own)
            line.send(str(child).encode())
            lines[child] = line
        elif sys.stdin in ready:
            return None


def _tell_ends(lines: dict[int, socket.socket]) -> None:
    while lines:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        line = lines.pop(child)
        with suppress(OSError), line:  # whoever asked for it may be gone
            line.send(str(status).encode())


def _be(asked: Mapping[str, Any]) -> int:
    """Be the process that was asked for, and return its exit code."""
    if asked["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    _take(asked["owned"], asked["places"])
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # as a process of its own has it; `random` sees to itself
    try:
        _do(asked["words"])
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 255
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _take(owned: list[int], places: list[int]) -> None:
    """Put descriptors where they were with whoever asked, and print there."""
    beyond = max([*places, *owned]) + 1
    for count, own in enumerate(owned):
        os.dup2(own, beyond + count)
        os.close(own)
    for count, place in enumerate(places):
        os.dup2(beyond + count, place)
        os.close(beyond + count)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = _stream(1, "strict")
    sys.stderr = sys.__stderr__ = _stream(2, "backslashreplace")


def _stream(descriptor: int, errors: str) -> TextIO:
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    raw = os.fdopen(descriptor, "wb", 0 if at_once else -1, closefd=False)
    return io.TextIOWrapper(raw, errors=errors, write_through=at_once, line_buffering=descriptor == 2)


def _do(words: list[str]) -> None:
    how, sys.orig_argv = words[1], words
    if how == "-m":
        sys.argv, sys.path[0] = words[2:], str(Path.cwd())
        sys.modules.pop(words[2], None)  # Python knows it as its main module only
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv, sys.path[0] = ["-c", *words[3:]], ""
        program = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(words[2], "<string>", "exec"), vars(program))
    else:
        sys.argv, sys.path[0] = words[1:], str(Path(how).resolve().parent)
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    main(int(sys.argv[1]))
