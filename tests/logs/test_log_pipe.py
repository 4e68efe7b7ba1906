"""The filter process between what prints and the log, with real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from clew.logs.piping import Printed, log_pipe, wait_for_end
from support import wait_until

SECRET = "correct-horse-battery"
ENVIRONMENT = {**os.environ, "DB_PASSWORD": SECRET}


@pytest.fixture
def log(tmp_path):
    return tmp_path / "attempt-1.log"


def start(log, *command, environment=ENVIRONMENT):
    """A process that prints into a pipe to a log; returns it with the filter."""
    with log_pipe(log, environment) as pipe:
        command = [word.format(answers=pipe.answers) for word in command]
        return (
            subprocess.Popen(
                command, stdout=pipe.into, stderr=subprocess.STDOUT, pass_fds=(pipe.answers,), env=environment
            ),
            pipe.filter,
        )


def run(log, *command, seconds=20):
    process, keeper = start(log, *command)
    with process, keeper:
        return process.wait(seconds), keeper.wait(seconds)


def python(text):
    return sys.executable, "-c", text.replace("{", "{{").replace("}", "}}").replace("{{answers}}", "{answers}")


def test_what_a_process_and_its_children_print_is_redacted_whoever_prints_it(log):
    text = (
        "import ctypes, os, subprocess; p = os.environ['DB_PASSWORD']\n"
        "print('python', p, flush=True)\n"
        "ctypes.CDLL(None).puts(b'library ' + p.encode()); ctypes.CDLL(None).fflush(None)\n"
        "subprocess.run(['sh', '-c', 'echo child $DB_PASSWORD; printf %s $DB_PASSWORD >&2'])\n"
        "raise SystemExit(p)\n"
    )
    assert run(log, *python(text)) == (1, 0)
    assert log.read_text() == "python [redacted]\nlibrary [redacted]\nchild [redacted]\n[redacted]\n"


def test_the_last_words_of_a_killed_process_are_in_the_log(log):
    text = "import os, signal; os.write(1, b'line\\nhalf a line'); os.kill(os.getpid(), signal.SIGKILL)"
    assert run(log, *python(text)) == (-signal.SIGKILL, 0)
    assert log.read_text() == "line\nhalf a line"


def test_much_output_gets_through_without_anybody_waiting_for_a_lock(log):
    line = b"x" * 99 + b"\n"
    text = "import ctypes\nfor _ in range(300): ctypes.PyDLL(None).write(1, (b'x' * 99 + b'\\n') * 400, 40000)"
    assert run(log, *python(text)) == (0, 0)  # PyDLL keeps the interpreter's lock while it writes
    assert log.read_bytes() == line * 120_000


def test_a_line_that_does_not_end_is_seen_after_a_while(log):
    process, keeper = start(log, "sh", "-c", "printf 'is anybody there? yes'; exec sleep 60")
    with keeper, process:
        wait_until(lambda: log.read_text() == "is anybody there?", 20)
        process.kill()
    assert log.read_text() == "is anybody there? yes"


def test_who_wants_to_read_the_log_can_wait_for_what_was_printed(log):
    text = (
        "import subprocess, sys; from clew.logs.piping import Printed; printed = Printed({answers})\n"
        f"path = {str(log)!r}\n"
        "for number in range(20):\n"
        "    print(number); subprocess.run(['sh', '-c', 'echo child'])\n"
        "    assert printed.wait(20)\n"
        "    assert open(path).read().endswith(f'{number}\\nchild\\n'), open(path).read()\n"
    )
    assert run(log, *python(text)) == (0, 0)
    assert "clew-mark" not in log.read_text()


def test_without_a_filter_nobody_waits():
    assert Printed().wait() is True


def test_a_process_survives_the_end_of_the_filter(log):
    text = (
        "import os, subprocess, sys, time; from clew.logs.piping import Printed; from clew.logs.streams import *\n"
        "outlast_readers(); printed = Printed({answers}); print('before'); assert printed.wait(20); sys.stdin.read()\n"
        "start = time.monotonic(); assert not printed.wait(20); assert time.monotonic() - start < 10\n"
        "for _ in range(1000): print('x' * 1000); print('y' * 1000, file=sys.stderr)\n"
        "os.write(1, b'from below')\n"
        "subprocess.run(['sh', '-c', 'echo child && exit 7']).returncode == 7 or sys.exit(9)\n"
    )
    with log_pipe(log, ENVIRONMENT) as pipe:
        command = [word.format(answers=pipe.answers) for word in python(text)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=pipe.into, stderr=pipe.into, pass_fds=(pipe.answers,)
        )
    with process, pipe.filter:
        wait_until(lambda: log.read_text() == "before\n")
        pipe.filter.kill()
        pipe.filter.wait(20)
        process.stdin.close()
        assert process.wait(30) == 0
    assert log.read_text() == "before\n"


def test_a_full_disk_holds_nobody_up(tmp_path):
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    assert run(full, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo 1234567890; i=$((i+1)); done") == (0, 0)


def test_the_filter_is_not_ended_by_what_asks_the_worker_to_end(log):
    process, keeper = start(log, "sh", "-c", "echo one; exec sleep 20")
    with keeper, process:
        wait_until(lambda: log.read_text() == "one\n")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            keeper.send_signal(number)
        process.terminate()
    assert log.read_text() == "one\n"
    assert keeper.returncode == 0


def test_a_process_that_was_left_running_keeps_its_log_but_not_those_who_wait(log, tmp_path):
    gate = tmp_path / "gate"
    script = f"(while [ ! -e {gate} ]; do sleep 0.05; done; echo late $DB_PASSWORD) & echo early"
    process, keeper = start(log, "sh", "-c", script)
    with keeper, process:
        assert process.wait(20) == 0
        wait_until(lambda: log.read_text() == "early\n")
        began = time.monotonic()
        assert wait_for_end(log, 0.2) is False
        assert time.monotonic() - began < 5
        gate.touch()
        assert wait_for_end(log, 20) is True
    assert log.read_text() == "early\nlate [redacted]\n"
    assert wait_for_end(tmp_path / "no such log") is True
