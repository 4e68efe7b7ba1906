"""Every YAML file of the examples, and every one that a page shows, is what the editor's schema says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from test_documentation import PAGES, ROOT, blocks

from clew.cli.schemas import job_schema, pipeline_schema, schema_of
from clew.config import load_tree, plain
from clew.config.source import read_file
from clew.jobs import job_registry, resolve_job

EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


def problems(file: Path, schema, *, whole: bool) -> list[str]:
    """What a validator says of a file; of a part that others extend, it does not matter what is missing."""
    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(schema)))
    found = validator.iter_errors(plain(read_file(file)))
    return [error.message for error in found if whole or error.validator != "required"]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.relative_to(ROOT / "examples")))
def test_an_example_is_valid(file):
    said = plain(load_tree(file))
    if "stages" in said:
        assert problems(file, pipeline_schema(), whole=True) == []
    elif "job" in said:
        assert problems(file, schema_of(str(file)), whole=False) == []
    else:  # a part that stages of several jobs extend
        schemas = [job_schema(name, resolve_job(name), {}) for name in job_registry().names()]
        assert [] in [problems(file, schema, whole=False) for schema in schemas]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_configs_of_a_page_are_valid(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [block for block in blocks(page) if block.file]
    for block in files:
        Path(block.file).write_text(block.text)
    for name in (block.file for block in files if block.language == "yaml"):
        said = plain(load_tree(Path(name)))
        if "stages" in said or "job" in said:
            assert problems(Path(name), schema_of(name), whole=True) == [], name
