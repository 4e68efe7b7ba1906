from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_line import Spawn

import clew as package
from clew.cli import main as cli
from clew.cli.main import VERBS, main

HEAVY = ("torch", "transformers", "pydantic", "yaml", "rich", "sqlalchemy", "matplotlib", "argparse")


def imported_by(*words: str) -> set[str]:
    """The modules that a command line loads, from a fresh interpreter."""
    code = (
        f"import sys; from clew.cli.main import main; code = main({list(words)!r}); print(*sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    assert not imported_by("--help") & set(HEAVY)


def test_listing_runs_needs_no_config_machinery(tmp_path: Path) -> None:
    assert not imported_by("--workspace", str(tmp_path), "ls") & {"torch", "pydantic", "yaml", "rich", "transformers"}


def test_checking_a_config_does_not_import_torch(project: Path) -> None:
    assert "torch" not in imported_by("check", "numbers.yaml")
    assert "torch" not in imported_by("jobs")
    assert "torch" not in imported_by("tasks")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, clew; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not set(done.stdout.split()) & {*HEAVY, "typing", "re"}


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_help_screen(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    for group, verbs in VERBS.items():
        assert f"{group}:" in out
        assert all(f"  {verb} " in out for verb in verbs)


@pytest.mark.parametrize("verb", [verb for group in VERBS.values() for verb in group])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: clew {verb}")
    assert "--workspace DIR" in out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"clew {package.__version__}\n"
    assert main(["ls", "--version"]) == 0
    assert capsys.readouterr().out == f"clew {package.__version__}\n"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project.get("version", package.__version__) == package.__version__


def test_a_misspelt_verb_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu", "x.yaml"]) == 2
    assert capsys.readouterr().err == "clew: there is no verb 'rnu'\n  did you mean 'run'?\n"


def test_a_misspelt_option_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "x.yaml", "--nmae", "a"]) == 2
    assert capsys.readouterr().err == "clew: run: unexpected argument '--nmae'\n  did you mean '--name'?\n"


def test_an_unknown_option_before_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--worspace", "x", "ls"]) == 2
    assert capsys.readouterr().err.startswith("clew: there is no option '--worspace'\n")
    assert main(["--workspace"]) == 2
    assert capsys.readouterr().err.startswith("clew: --workspace needs a folder\n")


def test_a_missing_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 2
    wanted = "clew: run: the following arguments are required: FILE\n  clew run --help shows what there is\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize("place", ["before", "joined", "after", "variable"])
def test_the_workspace_can_be_said_in_every_place(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLEW_WORKSPACE", str(tmp_path) if place == "variable" else "/nowhere")
    words = {
        "before": ["--workspace", str(tmp_path), "ls"],
        "joined": [f"--workspace={tmp_path}", "ls"],
        "after": ["ls", "--workspace", str(tmp_path)],
        "variable": ["ls"],
    }
    assert main(words[place]) == 0
    assert f"no runs in {tmp_path}" in capsys.readouterr().out


def broken(*_: object) -> int:
    raise LookupError("lost\nand gone")


def test_a_bug_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "_dispatch", broken)
    assert main(["ls"]) == 1
    wanted = "clew: internal error: LookupError: lost and gone (run again with --debug for the traceback)\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize("words", [["--debug", "ls"], ["ls", "--debug"]])
def test_debug_shows_the_traceback(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_dispatch", broken)
    with pytest.raises(LookupError):
        main(words)


def test_ctrl_c_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def pressed(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", pressed)
    assert main(["ls"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_who_leaves_is_no_error(project: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "clew.cli", "--help"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_exit_codes_reach_the_shell(spawn: Spawn) -> None:
    process = spawn("show", "nothing")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "there is no run or pipeline 'nothing'" in out


def test_the_public_names_are_there() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(dir(package)) == set(package.__all__)


def test_config_stays_the_decorator_when_the_package_of_that_name_is_imported() -> None:
    code = (
        "import clew; import clew.config.tree; from clew.config import load; print(clew.config.__name__, load.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "config load\n"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'clew' has no attribute 'nothing'"):
        _ = package.nothing  # type: ignore[attr-defined]
