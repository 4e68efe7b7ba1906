"""Data that cannot be used is told before a run exists, by every job that reads some."""

from __future__ import annotations

from pathlib import Path

import pytest

from clew.cli.main import main

ROW = '{"prompt": "a", "completion": "b", "text": "ab"}\n'
FILES = {
    "empty": ("", "data.jsonl: the file has no rows"),
    "blank": ("\n\n", "data.jsonl: the file has no rows"),
    "no JSON": ("not json\n" + ROW, "data.jsonl:1: not valid JSON: Expecting value (column 1)"),
}


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)

    def call(job: str, data: str, task: str = "dataset") -> tuple[int, str]:
        (tmp_path / "data.jsonl").write_text(data)
        files = "train: data.jsonl, test: data.jsonl" if task == "dataset" else ""
        model = "" if job == "pretrain" else "model: m\n"
        (tmp_path / "x.yaml").write_text(f"job: {job}\n{model}task: {{type: {task}, {files}}}\n")
        (tmp_path / "m").mkdir(exist_ok=True)
        (tmp_path / "m/config.json").write_text("{}")
        code = main(["run", "x.yaml"])
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("job", ["pretrain", "sft", "grpo", "eval"])
def test_a_file_that_cannot_be_used_is_named_before_a_run_exists(job, kind, check, tmp_path):
    data, wanted = FILES[kind]
    code, said = check(job, data)
    assert (code, said.splitlines()[0]) == (2, f"clew: {wanted}")
    assert not list(tmp_path.glob("runs/*/run.json"))


OWN = """\
import clew


@clew.config
class Silent(clew.Task):
    \"\"\"A task without anything.\"\"\"
"""


@pytest.mark.parametrize(
    ("job", "part"), [("pretrain", "documents"), ("sft", "examples"), ("grpo", "prompts"), ("eval", "problems")]
)
def test_a_missing_part_of_a_task_is_named_before_a_run_exists(job, part, check, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    code, said = check(job, ROW, task="own.py:Silent")
    assert code == 2
    assert f"no {part}" in said
    assert "Silent" in said
    assert not list(tmp_path.glob("runs/*/run.json"))
