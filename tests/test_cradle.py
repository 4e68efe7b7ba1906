"""A process that was borne is one like any other, to whoever asked for it and to itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest

from cradle import outside

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

TELL = """
import json, os, random, sys
print(json.dumps({
    "borne": "trl" in sys.modules,
    "words": sys.argv, "folder": os.getcwd(), "mine": os.environ.get("MINE"), "leads": os.getsid(0) == os.getpid(),
    "pid": os.getpid(), "random": random.random(), "open": sorted(int(one) for one in os.listdir("/proc/self/fd"))[:-1],
}))
sys.exit(7)
"""


def told(*words: str, **options) -> dict[str, object]:
    """What a process says of itself."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 7, done.stderr
    return json.loads(done.stdout)


def test_it_has_the_words_the_folder_the_environment_and_the_descriptors_that_were_asked_for(tmp_path):
    (tmp_path / "tell.py").write_text(TELL)
    for words in (["-c", TELL, "a"], ["tell.py", "a"]):
        options = {"cwd": tmp_path, "env": {**os.environ, "MINE": "1"}, "start_new_session": True}
        found = told(*words, **options)
        with outside():
            expected = told(*words, **options)
        assert (found.pop("borne"), expected.pop("borne")) == (True, False)
        for name in ("pid", "random"):
            assert found.pop(name) != expected.pop(name)
        assert found == expected


def test_no_two_draw_the_same_numbers():
    assert told("-c", TELL)["random"] != told("-c", TELL)["random"]


def test_words_to_python_itself_are_followed_by_a_real_one(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['MINE'] = 'custom'")
    found = told("-c", TELL, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (found["borne"], found["mine"]) == (False, "custom")


def test_it_is_waited_for_and_killed_like_any():
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], stdout=-1)
    assert sleeping.stdout is not None
    with sleeping:
        assert sleeping.stdout.readline() == b"1\n"
        assert sleeping.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            sleeping.wait(timeout=0.05)
        os.kill(sleeping.pid, signal.SIGKILL)
        assert sleeping.wait(timeout=30) == -signal.SIGKILL
    assert sleeping.poll() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("raise ValueError('so')", 1, "ValueError: so\n"),
        ("raise SystemExit('that is all')", 1, "that is all\n"),
        ("import atexit, sys; atexit.register(print, 'at last', file=sys.stderr)", 0, "at last\n"),
        ("import threading, time; threading.Timer(0.05, lambda: print('x')).start()", 0, ""),
    ],
)
def test_it_ends_like_any(program, code, said):
    for around in (nullcontext, outside):
        with around():
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == code, around
        assert done.stderr.endswith(said), around
        assert done.stdout == ("x\n" if "Timer" in program else ""), around


def test_its_words_and_complaints_are_in_order_where_nothing_is_buffered():
    program = "import sys; print(1); print(2, file=sys.stderr); print(3); print(4, file=sys.stderr)"
    for value, said in (("1", "1\n2\n3\n4\n"), ("", "2\n4\n1\n3\n")):
        for around in (nullcontext, outside):
            with around():
                together = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
                environment = {**os.environ, "PYTHONUNBUFFERED": value}
                done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, **together)
            assert done.stdout == said, around


def test_a_module_is_the_main_one_and_no_other(tmp_path):
    """Nothing is said of one that is there twice."""
    done = subprocess.run([sys.executable, "-m", "clew.cli.main"], capture_output=True, text=True, check=False)
    assert "RuntimeWarning" not in done.stderr


def test_what_it_starts_is_borne_too():
    program = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {TELL!r}]).returncode)"
    assert told("-c", program)["borne"]
