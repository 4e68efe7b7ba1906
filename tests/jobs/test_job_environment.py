from pathlib import Path

import pytest

from clew.errors import ConfigError
from clew.runs import Workspace
from clew.sources import read
from support import TINY

GOOD = f"environment:\n  sft: {{runtime: {{device: cpu}}}}\n  {TINY}: {{until: 4}}\nnotify: {{file: told.jsonl}}\n"
BAD = "enviroment:\n  sft: {seed: 1}\nenvironment:\n  sftt: {seed: 1}\n"


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)


@pytest.mark.parametrize("source", [{"job": TINY}, {"stages": {"a": {"job": TINY}}}])
def test_what_the_workspace_misspells_is_told_and_not_dropped(space, source):
    Path("clew.yaml").write_text(BAD)
    with pytest.raises(ConfigError) as caught:
        read(source, workspace=space)
    assert str(caught.value) == (
        "2 problems in the workspace's file:\n"
        "  clew.yaml:1: unknown key 'enviroment'; did you mean 'environment'?\n"
        "  clew.yaml:4: unknown job 'sftt' in 'environment'; did you mean 'sft'?"
    )


def test_known_words_are_in_order(space):
    Path("clew.yaml").write_text(GOOD)
    assert read({"job": TINY}, workspace=space).config.until == 4
