from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli


def test_the_end_of_a_single_run_is_told_as_the_workspace_says(clew: Cli, project: Path) -> None:
    (project / "clew.yaml").write_text("notify: {file: told.jsonl}\n")
    assert clew("run", "count.yaml", "--name", "good").code == 0
    assert clew("run", "count.yaml", "fail_at=3", "--name", "bad").code == 1
    told = [json.loads(line) for line in (project / "told.jsonl").read_text().splitlines()]
    assert [(item["event"], item["run"], item["state"]) for item in told] == [
        ("completion", "good", "completed"),
        ("failure", "bad", "failed"),
        ("completion", "bad", "failed"),
    ]
    assert told[1]["reason"] == "ValueError: boom"


def test_a_mistake_in_the_workspace_shows_before_anything_runs(
    clew: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "clew.yaml").write_text("notify: {fiel: told.jsonl}\n")
    refused = clew("run", "count.yaml")
    assert (refused.code, refused.err) == (
        2,
        "clew: clew.yaml:1: unknown key 'fiel'\n  did you mean 'file'?\n",
    )
    monkeypatch.delenv("NO_SUCH", raising=False)
    (project / "clew.yaml").write_text("notify: {webhook: {url: 'http://localhost/', secret_env: NO_SUCH}}\n")
    for file in ("count.yaml", "numbers.yaml"):
        refused = clew("run", file)
        assert refused.code == 2
        assert "the environment variable 'NO_SUCH' is not set" in refused.err
    assert not (project / "runs").exists()
