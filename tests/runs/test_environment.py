import subprocess

import pytest

from clew.runs.environment import environment, git_state


def git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_a_clean_checkout_is_its_commit(repository):
    state = git_state()
    assert len(state["commit"]) == 40
    assert state["diff_sha256"] == ""


def test_what_is_not_committed_changes_the_hash(repository):
    (repository / "a").write_text("2")
    first = git_state()["diff_sha256"]
    (repository / "a").write_text("3")
    assert first != git_state()["diff_sha256"] != ""


def test_outside_of_a_repository_there_is_no_git_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() is None


def test_without_git_there_is_no_git_state(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state() is None


def test_versions_are_reported_without_importing_anything():
    assert environment()["libraries"]["clew"]
    assert environment()["cpus"] >= 1
