from __future__ import annotations

import json

import pytest
from store_content import finish, make_run, metric, write

from clew.cli.main import main


@pytest.fixture
def project(workspace, monkeypatch):
    """A workspace with one run, which is the current folder."""
    run = make_run(workspace)
    write(run, *(metric(step, loss=1 / step) for step in (1, 2, 4)))
    finish(run, exact=0.5)
    monkeypatch.chdir(workspace.root)
    return workspace


@pytest.fixture
def call(project, capsys):
    def call(*words):
        capsys.readouterr()
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_from_nothing_to_an_answer(call, project):
    path = project.root / ".clew" / "store.sqlite"
    journal = (project.runs / "a" / "journal" / "1-0.jsonl").stat().st_size
    assert call("store", "sync") == (0, f"{path}: 1 run with something new, {journal} B of journals taken in\n", "")
    assert call("store", "sync") == (0, f"{path}: 0 runs with something new, 0 B of journals taken in\n", "")
    assert call("store", "rebuild") == (0, f"{path}: made again from 1 run, {journal} B of journals\n", "")
    code, out, _ = call("query", "select name, value from results")
    assert (code, out) == (0, "name   value\nexact  0.5\n")


def test_the_status_says_what_is_new_and_what_is_gone(call, project):
    call("store", "sync")
    code, out, _ = call("store", "status")
    assert code == 0
    assert "metrics      3\n" in out
    assert out.endswith("nothing new in the runs\n")
    make_run(project, "b")
    (project.runs / "a").rename(project.root / "a")
    _, out, _ = call("store", "status")
    assert "something new in 1 run (b): clew store sync takes it in\n" in out
    assert out.endswith("without a directory: 1 run (a); clew store rebuild leaves them out\n")


def test_query_formats(call):
    call("store", "sync")
    question = "select step, value, null as gap, 'a,b' as word, value from metrics order by step"
    assert call("query", question, "--format", "csv")[1].splitlines()[:2] == [
        "step,value,gap,word,value",
        '1,1.0,,"a,b",1.0',
    ]
    rows = json.loads(call("query", question, "--format", "json")[1])
    assert rows[1] == {"step": 2, "value": 0.5, "gap": None, "word": "a,b", "value_2": 0.5}
    assert call("query", "select 1 where 0 = 1", "--format", "json")[1] == "[]\n"
    assert call("query", "select 1 as one where 0 = 1")[1] == "one\n"


def test_a_query_can_take_in_what_is_new_first(call):
    assert call("query", "select count(*) as runs from runs", "--sync")[1] == "runs\n1\n"


def test_a_long_table_is_cut_and_says_so(call):
    call("store", "sync")
    many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000) select i from n"
    _, out, err = call("query", many)
    assert len(out.splitlines()) == 1001
    assert err == "clew: only the first 1000 rows are shown; --format csv gives all\n"
    assert len(call("query", many, "--format", "csv")[1].splitlines()) == 2001


def test_what_can_go_wrong_with_a_query(call, project):
    path = project.root / ".clew" / "store.sqlite"
    missing = f"clew: {path}: there is no store yet\n"
    assert call("query", "select 1") == (
        1,
        "",
        missing + "  clew store rebuild makes it again from the runs; nothing is lost\n",
    )
    call("store", "sync")
    code, _, err = call("query", "delete from runs")
    assert (code, err.splitlines()[0]) == (
        2,
        "clew: a query only reads: this statement was refused, and nothing was changed",
    )
    assert (
        call("query", "select 1", "--timeout", "0")[2] == "clew: query: --timeout takes a number of seconds above 0\n"
    )
    assert call("store", "sync", "--take-over")[2] == "clew: store: --take-over belongs to rebuild\n"
    assert (
        "clew: --store: a store cannot be of the kind 'redis'\n" in call("query", "select 1", "--store", "redis://x")[2]
    )


def test_the_variable_names_the_store_and_the_option_is_stronger(call, project, monkeypatch):
    monkeypatch.setenv("CLEW_STORE", f"sqlite:///{project.root}/variable.sqlite")
    call("store", "sync")
    assert (project.root / "variable.sqlite").is_file()
    call("store", "sync", "--store", f"sqlite:///{project.root}/option.sqlite")
    assert (project.root / "option.sqlite").is_file()
    assert not (project.root / ".clew" / "store.sqlite").exists()


def test_a_password_is_never_printed(call, server):
    url = server.schema()
    for words in (["store", "sync"], ["store", "status"], ["query", "select run from runs"], ["store", "rebuild"]):
        code, out, err = call(*words, "--store", url)
        assert code == 0
        assert server.password not in out + err
    for words in (["query", "select nothing", "--store", url], ["store", "sync", "--store", url + "%3D%20x"]):
        code, out, err = call(*words)
        assert code in (1, 2)
        assert server.password not in out + err


def test_export_takes_in_what_is_new_and_names_its_files(call, project):
    code, out, err = call("export", "a", "--format", "csv")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"a-export/{name}.csv" for name in ("runs", "results", "attempts", "metrics")]
    write(project.find_run("a"), metric(5, loss=0.2))
    call("export", "a", "--format", "json", "-o", "elsewhere")
    assert len(json.loads((project.root / "elsewhere" / "metrics.json").read_text())) == 4


def test_a_run_whose_directory_is_gone_is_exported_from_the_store(call, project):
    call("store", "sync")
    (project.runs / "a").rename(project.root / "moved")
    assert call("export", "a", "--format", "csv")[0] == 0
    code, _, err = call("export", "nobody", "--format", "csv")
    assert code == 2
    assert "there is no run or pipeline 'nobody'" in err


def test_export_needs_a_format_that_there_is(call):
    assert "the following arguments are required: --format" in call("export", "a")[2]
    assert "invalid choice: 'xml'" in call("export", "a", "--format", "xml")[2]
