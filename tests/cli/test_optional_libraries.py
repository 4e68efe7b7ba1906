"""Without the optional libraries everything that does not need them works, and what does says which one is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = {"markdown-it-py": "markdown_it", "mlflow-skinny": "mlflow"}
HOOK = """\
import sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])


sys.meta_path.insert(0, Missing())
"""


def optional() -> list[str]:
    """The libraries of all extras that people install, by their import names."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    words = [word for name, extra in extras.items() if name not in ("dev", "bench", "all") for word in extra]
    names = {word.partition("[")[0].partition(">")[0].partition("=")[0].strip() for word in words} - {"clew"}
    return sorted(NAMES.get(name, name) for name in names)


@pytest.fixture
def without(project: Path, tmp_path_factory: pytest.TempPathFactory):
    """The command line in a process, and in its workers, in which some libraries cannot be imported."""

    def call(blocked: list[str], *words: str) -> subprocess.CompletedProcess[str]:
        hook = tmp_path_factory.mktemp("hook")
        (hook / "sitecustomize.py").write_text(HOOK.format(blocked=set(blocked)))
        path = os.pathsep.join([str(hook), str(ROOT / "src")])
        return subprocess.run(
            [sys.executable, "-m", "clew.cli", *words],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": path},
        )

    return call


def test_the_extras_are_known() -> None:
    assert {"torch", "trl", "peft", "matplotlib", "sqlalchemy", "wandb", "mlflow", "fsspec", "orjson"} <= set(
        optional()
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("jobs",),
        ("tasks",),
        ("ls",),
        ("config", "new", "sft"),
        ("config", "schema", "sft"),
        ("check", "numbers.yaml"),
        ("run", "numbers.yaml"),
    ],
    ids=" ".join,
)
def test_what_needs_none_of_them_works_without_all_of_them(words: tuple[str, ...], without) -> None:
    done = without(optional(), *words)
    assert done.returncode == 0, done.stderr
    if words == ("jobs",):
        assert all(f"{job} " in done.stdout for job in ("pretrain", "sft", "grpo", "eval", "merge", "export"))
        assert done.stdout == without([], "jobs").stdout


@pytest.mark.parametrize(
    ("library", "extra", "words"),
    [
        ("sqlalchemy", "store", ("store", "sync")),
        ("trl", "tune", ("run", "sft.yaml")),
        ("peft", "tune", ("run", "sft.yaml")),
        ("torch", "train", ("run", "pretrain.yaml")),
        ("transformers", "train", ("run", "pretrain.yaml")),
        ("fsspec", "remote", ("pull", "s3://bucket/run")),
    ],
)
def test_what_needs_one_says_how_to_get_it(library: str, extra: str, words: tuple[str, ...], without, project) -> None:
    (project / "m").mkdir()
    (project / "m/config.json").write_text("{}")
    for job, model in (("sft", "model: m\n"), ("pretrain", "")):
        (project / f"{job}.yaml").write_text(f"job: {job}\n{model}task: {{type: arithmetic}}\n")
    done = without([library], *words)
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2), said
    assert f"the library {library!r} is not installed" in said
    assert f"pip install 'clew[{extra}]'" in said
    assert "Traceback" not in said
