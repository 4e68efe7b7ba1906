"""A run directory in which something was deleted or overwritten: every verb answers plainly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import COUNT, MY_JOB, PIPELINE

from clew.cli.main import main
from clew.runs import Run, State

pytestmark = pytest.mark.slow

STEP = "checkpoints/step-00000005"
PARTS = [
    "run.json",
    "config.yaml",
    "origins.json",
    "state.json",
    "result.json",
    "journal",
    "journal/1-0.jsonl",
    "inbox",
    "checkpoints",
    STEP,
    f"{STEP}/manifest.json",
    f"{STEP}/value",
    "artifacts",
    "artifacts/number",
    "logs",
    "logs/attempt-1.log",
]
PLAN_PARTS = ["plan.json", "state.json", "tree.json", "pipeline.yaml", "stages.json", "inbox"]

LOOKING = [
    ("ls",),
    ("ls", "--json"),
    ("show", "a"),
    ("logs", "a"),
    ("report", "a"),
    ("diff", "a", "b"),
    ("diff", "b", "a"),
    ("run", "count.yaml", "--from", "a", "--dry-run"),
    ("store", "sync"),
    ("store", "rebuild"),
    ("store", "status"),
    ("query", "select * from runs", "--sync"),
    ("export", "a", "--format", "csv"),
    ("stop", "a"),
    ("checkpoint", "a"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two runs that completed, one that failed, and a pipeline."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "my_job.py").write_text(MY_JOB)
        (folder / "count.yaml").write_text(COUNT)
        (folder / "numbers.yaml").write_text(PIPELINE)
        for words in (["--name", "a", "to=7"], ["--name", "b"], ["--name", "f", "fail_at=7"]):
            main(["run", "count.yaml", *words])
        main(["run", "numbers.yaml"])
        yield folder


@pytest.fixture
def broken(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in which something may be broken; it is the workspace and the current folder."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def break_(path: Path, how: str) -> None:
    assert path.exists(), f"{path} is no part of a run any more"
    if how == "overwritten":
        assert path.is_file()
        path.write_bytes(b'{"\xff\x00')
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def ask(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(list(words))
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert "internal error" not in said, f"{words}: {said}"
    assert "Traceback" not in said, f"{words}: {said}"
    assert code in (0, 1, 2), words
    assert code == 0 or captured.err.startswith("clew: "), f"{words}: {said}"
    return code, said


def test_the_parts_are_all_that_there_are(template: Path) -> None:
    run = template / "runs/a"
    found = {path.relative_to(run).as_posix() for path in run.rglob("*") if not path.name.startswith(".")}
    assert found == set(PARTS) | {path for path in found if path.startswith("report")}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_gone(part: str, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    break_(broken / "runs/a" / part, "deleted")
    for words in LOOKING:
        ask(words, capsys)
    if part != "run.json":  # without it the directory is no run
        assert "a " in ask(("ls",), capsys)[1]
    code, said = ask(("query", "select run from runs where run = 'b'", "--sync", "--format", "csv"), capsys)
    assert (code, said) == (0, "run\nb\n")


@pytest.mark.parametrize("part", [part for part in PARTS if Path(part).suffix in (".json", ".jsonl", ".yaml")])
def test_a_file_that_holds_nonsense(part: str, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    break_(broken / "runs/a" / part, "overwritten")
    for words in LOOKING:
        ask(words, capsys)


@pytest.mark.parametrize("part", [*PARTS[:6], "inbox", "checkpoints", f"{STEP}/manifest.json", "artifacts", "logs"])
def test_a_failed_run_of_which_something_is_gone_goes_on_or_says_why_not(
    part: str, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_(broken / "runs/f" / part, "deleted")
    code, said = ask(("resume", "f"), capsys)
    if part in ("run.json", "config.yaml", "state.json"):
        assert code in (1, 2)
        assert part in said or "there is no run" in said, said
    else:
        assert "ValueError: boom" in said, said  # it went on, to where the job fails
        assert Run(broken / "runs/f").state is State.FAILED


@pytest.mark.parametrize("how", ["deleted", "overwritten"])
@pytest.mark.parametrize("part", PLAN_PARTS)
def test_a_pipeline_of_which_something_is_gone(
    part: str, how: str, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = broken / "plans/numbers" / part
    if path.is_dir() and how == "overwritten":
        path.rmdir()
        path.touch()
    else:
        break_(path, how)
    for verb in ("ls", "show", "report", "graph", "resume", "stop"):
        ask((verb,) if verb == "ls" else (verb, "numbers"), capsys)
    ask(("run", "numbers.yaml"), capsys)
