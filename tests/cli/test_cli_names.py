"""A name that cannot be is refused in words, with the place where it was said; nobody is shown a regular expression."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Cli

import clew as package
from clew.config import describe
from clew.jobs.loading import registries, resolve_job
from clew.jobs.registry import job_registry

WORDS = "letters, digits, '.', '_' and '-', the first a letter or a digit"


@pytest.mark.parametrize("name", ["a/b", "-x", "../up", "two words", ".hidden", "é"])
@pytest.mark.parametrize("file", ["count.yaml", "numbers.yaml"])
def test_a_bad_name_on_the_command_line(file: str, name: str, clew: Cli, project: Path) -> None:
    refused = clew("run", file, f"--name={name}")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"clew: --name: {name!r} cannot be a name\n  a name is made of {WORDS}\n"
    assert not (project / "runs").exists()


def test_a_bad_name_in_a_file_is_told_with_its_line(clew: Cli, project: Path) -> None:
    (project / "count.yaml").write_text("job: my_job.py:count\nname: a/b\n")
    wanted = f"clew: count.yaml:2: 'name' must be str made of {WORDS}, not 'a/b'\n"
    assert clew("run", "count.yaml").err == clew("check", "count.yaml").err == wanted
    assert clew("run", "count.yaml", "name=c d").err == wanted.replace("count.yaml:2", "command line").replace(
        "a/b", "c d"
    )


def test_a_bad_name_of_a_merge_a_fork_and_a_replay(clew: Cli) -> None:
    assert clew("merge", "x", "y", "--new", "a/b").err.startswith("clew: --new: 'a/b' cannot be a name\n")
    clew("run", "count.yaml", "--name", "a")
    for verb in ("fork", "replay"):
        refused = clew(verb, "a", "--name", "../b")
        assert (refused.code, refused.err.splitlines()[0]) == (2, "clew: --name: '../b' cannot be a name")


def test_a_child_may_have_a_name_that_looks_like_a_number(clew: Cli) -> None:
    clew("run", "count.yaml", "--name", "a")
    forked = clew("fork", "a", "--name", "1e3", "--hold")
    assert forked.out.startswith("1e3: forked from a at step 10\n"), forked.err


def test_a_bad_name_in_python(project: Path) -> None:
    with pytest.raises(package.ConfigError, match="the given config: 'name' must be str made of letters"):
        package.run({"job": "my_job.py:count", "name": "a/b"})
    with (
        pytest.raises(package.UserError, match="the session's name: 'a/b' cannot be a name"),
        package.session(name="a/b"),
    ):
        pass


def test_explain_says_in_words_what_a_name_is(clew: Cli) -> None:
    assert f"  str made of {WORDS}\n" in clew("explain", "count.yaml", "name").out


def plugins() -> Iterator[type]:
    """The classes of all plug-ins that ship."""
    for registry in registries().values():
        yield from (registry.resolve(name) for name in registry.names())


@pytest.mark.parametrize("job", job_registry().names())
def test_no_key_of_a_job_is_explained_by_a_regular_expression(job: str) -> None:
    keys = [resolve_job(job).config, *plugins()]
    told = [one.key for cls in keys for one in describe(cls) if "matching" in one.constraint]
    assert told == []
