"""How much is said, in which form, and by which option."""

import json
import logging
import os
import subprocess
import sys

import pytest

from clew.cli.main import main
from clew.cli.progress import Quiet
from clew.errors import UserError
from clew.logs.formats import ForFile, ForPrograms, ForTerminal
from clew.logs.logger import Logger
from clew.logs.settings import LogSettings
from clew.logs.setup import configure_worker, present
from support import TINY

SECRET = "v9-q7-zz-secret-2"


@pytest.fixture
def record(caplog):
    """Says something and gives back the record."""

    def say(message, *, error=None, **fields):
        Logger("clew.session", run="sft-1").error(message, error=error, **fields)
        return caplog.records[-1]

    return say


def test_a_line_of_a_log(record, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    said = record("it is done", step=10, loss=0.123456789, name="two words", empty="", quoted='a"b')
    said.created = 1_767_182_400.0
    line = ForFile().format(said).partition(" ERROR ")[2]
    assert line == 'clew.session: it is done run=sft-1 step=10 loss=0.123457 name="two words" empty="" quoted="a\\"b"'


def test_a_line_for_the_terminal(record):
    assert ForTerminal().format(record("it is done", step=10)) == "clew: it is done"
    assert ForTerminal(fields=True).format(record("it is done", step=10)) == "clew: it is done run=sft-1 step=10"
    error = UserError("no such thing", where="a.yaml:3", hint="write it")
    assert ForTerminal(fields=True).format(record(error)) == "clew: a.yaml:3: no such thing run=sft-1\n  write it"


def test_a_line_for_programs(record):
    said = json.loads(ForPrograms().format(record("done", step=10, loss=float("nan"), names=("a",), level="mine")))
    assert said.pop("t") > 1e9
    assert said == {
        "level": "error",
        "logger": "clew.session",
        "message": "done",
        "run": "sft-1",
        "step": 10,
        "loss": "nan",
        "names": ["a"],
    }
    error = json.loads(ForPrograms().format(record(UserError("no such thing", where="a.yaml:3", hint="write it"))))
    assert (error["message"], error["where"], error["hint"]) == ("no such thing", "a.yaml:3", "write it")


@pytest.mark.parametrize("form", [ForFile(), ForTerminal(fields=True), ForPrograms()])
def test_no_form_tells_a_secret(form, record, monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    try:
        raise ValueError(f"broken {SECRET}")
    except ValueError as error:
        line = form.format(record(f"it was {SECRET}", error=error, key=f"<{SECRET}>", deep={"x": [SECRET]}))
    assert SECRET not in line
    assert "it was [redacted]" in line
    assert "ValueError: broken [redacted]" in line


def test_libraries_and_warnings_join_the_log_of_a_worker(capsys, monkeypatch):
    monkeypatch.setattr("warnings.showwarning", None)
    configure_worker(LogSettings())
    import warnings

    logging.getLogger("somebody").warning("look")
    logging.getLogger("somebody").info("not this")
    warnings.showwarning("old", DeprecationWarning, "x.py", 7)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(maxsplit=2)[2] for line in said] == [
        "WARNING somebody: look",
        "WARNING py.warnings: DeprecationWarning: old where=x.py:7",
    ]


@pytest.mark.slow
def test_libraries_that_print_by_themselves_join_as_well():
    code = (
        "from clew.logs.setup import *; configure_worker(LogSettings())\n"
        "import transformers; transformers.utils.logging.get_logger('transformers.x').warning('look')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert [line.split(maxsplit=2)[2] for line in done.stderr.splitlines()] == ["WARNING transformers.x: look"]


# The command line.


@pytest.mark.slow
def test_quiet_leaves_the_result_and_takes_the_display(tmp_path, capsys):
    words = ["--workspace", str(tmp_path), "run", write(tmp_path), "until=2"]
    assert main([*words, "--name", "loud"]) == 0
    loud = capsys.readouterr().out
    assert main(["-q", *words, "--name", "calm"]) == 0
    calm = capsys.readouterr().out
    assert loud.startswith("loud: started, attempt 1")
    assert [line.partition(" ")[0] for line in calm.splitlines()] == ["metrics:", "walk.txt:"]
    assert (tmp_path / "runs/calm/logs/attempt-1.log").read_text() == ""


@pytest.mark.slow
def test_quiet_still_says_why_a_run_failed(tmp_path, capsys):
    assert main(["--workspace", str(tmp_path), "run", write(tmp_path), "fail_at=1", "--name", "a", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "clew: a failed: ValueError: the job went wrong; go on with: clew resume a\n"


def test_quiet_gives_way_to_a_question(capsys):
    display = Quiet()
    display.note("first: skipped")
    display.note("second has failed and waits for an answer")
    assert capsys.readouterr().out == ""
    display.hold()
    display.note("  resume    go on")
    assert capsys.readouterr().out == "second has failed and waits for an answer\n  resume    go on\n"


@pytest.mark.slow
def test_verbose_tells_how_a_worker_was_started(tmp_path, capsys):
    assert main(["-v", "--workspace", str(tmp_path), "run", write(tmp_path), "until=1", "--name", "a"]) == 0
    assert capsys.readouterr().err.startswith("clew: worker started run=a attempt=1 pid=")
    assert "DEBUG clew.worker: job loaded run=a attempt=1" in (tmp_path / "runs/a/logs/attempt-1.log").read_text()


@pytest.mark.parametrize("words", [["--log-format=json", "show", "x"], ["show", "x", "--log-format", "json"]])
def test_errors_can_be_read_by_programs(words, tmp_path, capsys):
    assert main(["--workspace", str(tmp_path), *words]) == 2
    said = json.loads(capsys.readouterr().err)
    assert (said["level"], said["message"]) == ("error", "there is no run or pipeline 'x'")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [([], "normal"), (["-q"], "quiet"), (["--quiet"], "quiet"), (["-v"], "verbose"), (["--verbose"], "verbose")],
)
def test_levels_can_be_asked_for_before_and_after_the_verb(words, wanted, tmp_path):
    for order in (["--workspace", str(tmp_path), *words, "ls"], ["--workspace", str(tmp_path), "ls", *words]):
        assert main(order) == 0
        assert present() == LogSettings(wanted, "text")


def test_an_option_wins_over_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEW_LOG", "quiet")
    monkeypatch.setenv("CLEW_LOG_FORMAT", "json")
    assert main(["--workspace", str(tmp_path), "ls", "-v"]) == 0
    assert present() == LogSettings("verbose", "json")
    assert present().environment() == {"CLEW_LOG": "verbose", "CLEW_LOG_FORMAT": "json"}


def test_what_cannot_be_meant_is_refused(tmp_path, monkeypatch, capsys):
    assert main(["--log-format", "xml", "ls"]) == 2
    assert capsys.readouterr().err.startswith("clew: --log-format needs text or json\n")
    assert main(["ls", "-q", "-v"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err
    monkeypatch.setenv("CLEW_LOG", "loud")
    assert main(["ls"]) == 2
    wanted = "the environment variable CLEW_LOG is 'loud'\n  choose one of: quiet, normal, verbose\n"
    assert capsys.readouterr().err == f"clew: {wanted}"


def test_errors_tell_no_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    assert main(["--workspace", str(tmp_path), "show", SECRET]) == 2
    assert "there is no run or pipeline '[redacted]'\n" in capsys.readouterr().err


def test_nor_does_a_traceback(tmp_path):
    words = ["--debug", "--workspace", str(tmp_path), "show", SECRET]
    done = subprocess.run(
        [sys.executable, "-m", "clew.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SERVICE_TOKEN": SECRET},
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "there is no run or pipeline '[redacted]'" in done.stderr
    assert SECRET not in done.stderr


def write(folder):
    path = folder / "count.yaml"
    path.write_text(f"job: {TINY}\n")
    return str(path)
