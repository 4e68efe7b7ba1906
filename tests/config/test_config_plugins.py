"""Classes by name, from modules, and from the user's own file."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_configs import REGISTRIES, Job, Sums

from clew.config import Registry, config, config_hash, dump, explain, load, template
from clew.errors import ConfigError

TASK = '''
from __future__ import annotations

from sample_configs import Task
from clew.config import InputPath, config


@config
class Mine(Task):
    """My task."""

    size: int = 3
    """How big."""
    file: InputPath = ""
    """What to read."""


class Bare(Task):
    size: int = 3
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_task(ref: str, folder: Path, *overrides: str):
    file = folder / "run/a.yaml"
    file.write_text(f"training: {{steps: 1}}\ntask:\n  type: {ref}\n")
    return load(file, root=Job, registries=REGISTRIES, overrides=overrides)


def test_a_file_is_relative_to_the_file_that_names_it_and_dumps_absolute(folder, monkeypatch):
    loaded = load_task("mine.py:Mine", folder, "task.size=4")
    assert loaded.value.task.size == 4
    assert loaded.plain["task"] == {"type": f"{folder}/run/mine.py:Mine", "size": 4, "file": ""}
    monkeypatch.chdir("/")
    assert load(loaded.plain, root=Job, registries=REGISTRIES).value == loaded.value


def test_attribute_docstrings_of_a_file_are_read(folder):
    assert "How big." in explain(load_task("mine.py:Mine", folder), "task.size")
    text = template(Job, head={"task": {"type": f"{folder}/run/mine.py:Mine"}}, registries=REGISTRIES)
    assert "  # How big.\n  size: 3  # int\n" in text


def test_a_changed_file_is_imported_anew_and_changes_the_hash(folder):
    before = load_task("mine.py:Mine", folder)
    (folder / "run/mine.py").write_text(TASK.replace("= 3", "= 5"))
    after = load_task("mine.py:Mine", folder, "task.size=3")
    assert config_hash(before.value) != config_hash(after.value)
    assert load_task("mine.py:Mine", folder).value.task.size == 5


def test_a_moved_file_keeps_the_hash(folder):
    before = config_hash(load_task("mine.py:Mine", folder).value)
    (folder / "run/mine.py").rename(folder / "run/yours.py")
    assert config_hash(load_task("yours.py:Mine", folder).value) == before


def test_a_class_has_one_name_however_it_was_called(folder):
    one, two = load_task("sums", folder), load_task("sample_configs:Sums", folder)
    assert one.value == two.value
    assert one.plain["task"]["type"] == two.plain["task"]["type"] == "sums"
    assert dump(one.value)["task"]["type"] == "sample_configs:Sums"
    assert config_hash(one.value) == config_hash(two.value)


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("sum", "unknown task 'sum'\n  did you mean 'sums'?"),
        (
            "sample_configs.Sums",
            "unknown task 'sample_configs.Sums'\n  write 'sample_configs:Sums' for a class in a module",
        ),
        ("mine.py", "unknown task 'mine.py'\n  name the class in the file: mine.py:ClassName"),
        ("sample_configs:Sumz", "sample_configs has no 'Sumz'\n  did you mean 'Sums'?"),
        ("nowhere.at:All", "cannot import nowhere.at: ModuleNotFoundError: No module named 'nowhere'"),
        ("no.py:Mine", "the file {folder}/run/no.py does not exist"),
        ("broken.py:Mine", "cannot import {folder}/run/broken.py: ZeroDivisionError: division by zero"),
        ("mine.py:Bare", "'mine.py:Bare' is not a config class\n  decorate the class with @config"),
        ("sample_configs:Training", "'sample_configs:Training' is not a Task\n  derive it from Task"),
    ],
)
def test_what_cannot_be_found_is_told_in_one_line(folder, ref, error):
    (folder / "run/broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError) as caught:
        load_task(ref, folder)
    assert str(caught.value) == f"run/a.yaml:3: {error.format(folder=folder)}"


def test_entry_points_are_offered_and_a_builtin_name_wins():
    registry = Registry("command", {"pytest": "sample_configs:Sums"}, "console_scripts")
    assert "ruff" in registry.names() or len(registry.names()) > 1
    assert registry.resolve("pytest") is Sums


def test_a_class_inside_a_function_cannot_be_named():
    @config
    class Local(Sums):
        """Local."""

    with pytest.raises(ConfigError, match="is defined inside a function, so no config can name it"):
        dump(Job(training={"steps": 1}, task=Local()))
