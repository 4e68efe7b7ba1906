from __future__ import annotations

import csv
import json

import pytest
from pyarrow import parquet
from store_content import finish, line, make_run, metric, write

from clew.errors import MissingLibrary, UserError
from clew.store.export import export_run
from clew.store.ingest import sync


@pytest.fixture
def filled(any_store, workspace):
    run = make_run(workspace)
    write(run, *(metric(step, loss=step / 4) for step in (2, 1)), metric(3, loss="nan"))
    write(run, line("rollout", step=1, prompt='a "quoted"\nline', completion="é", rewards={"exact": "nan"}, reward=0.5))
    finish(run, exact=1.0)
    write(make_run(workspace, "other"), metric(1, loss=9.0))
    sync(any_store, workspace)
    return any_store


def exported(store, form, folder):
    return {path.name: path for path in export_run(store, "a", form, folder)}


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_each_table_that_holds_something_of_the_run_is_a_file(filled, tmp_path, form):
    files = exported(filled, form, tmp_path / "out")
    assert list(files) == [f"{table}.{form}" for table in ("runs", "results", "attempts", "metrics", "rollouts")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(files)


def test_csv(filled, tmp_path):
    with exported(filled, "csv", tmp_path)["metrics.csv"].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["run"], row["step"], row["value"], row["not_finite"]) for row in rows] == [
        ("a", "1", "0.25", ""),
        ("a", "2", "0.5", ""),
        ("a", "3", "", "nan"),
    ]


def test_json_says_nested_values_as_such(filled, tmp_path):
    files = exported(filled, "json", tmp_path)
    (rollout,) = json.loads(files["rollouts.json"].read_text())
    assert (rollout["prompt"], rollout["rewards"]) == ('a "quoted"\nline', {"exact": "nan"})
    (run,) = json.loads(files["runs.json"].read_text())
    assert run["config"]["seed"] == 3
    assert run["result"]["metrics"] == {"exact": 1.0}


def test_parquet_has_types(filled, tmp_path):
    table = parquet.read_table(exported(filled, "parquet", tmp_path)["metrics.parquet"])
    assert [str(field.type) for field in table.schema] == [
        *["string", "int64", "int64", "int64", "double", "string", "double", "string"]
    ]
    assert table.column("value").to_pylist() == [0.25, 0.5, None]


def test_both_databases_export_the_same_bytes(workspace, server, tmp_path):
    from store_content import open_at

    write(make_run(workspace), *(metric(step, loss=1 / (step + 1), z=2.0) for step in range(50)))
    found = []
    for number, url in enumerate([None, server.schema()]):
        store = open_at(workspace, url)
        sync(store, workspace)
        files = exported(store, "csv", tmp_path / str(number))
        found.append({name: path.read_bytes() for name, path in files.items()})
    assert found[0] == found[1]


def test_an_earlier_export_is_replaced_and_nothing_else(filled, tmp_path):
    for name in ("metrics.csv", "failures.csv", "mine.csv"):
        (tmp_path / name).write_text("old")
    exported(filled, "csv", tmp_path)
    assert (tmp_path / "metrics.csv").read_text() != "old"
    assert not (tmp_path / "failures.csv").exists()
    assert (tmp_path / "mine.csv").read_text() == "old"


def test_a_run_that_the_store_does_not_have(filled, tmp_path):
    with pytest.raises(UserError) as caught:
        export_run(filled, "nobody", "csv", tmp_path)
    assert caught.value.what == "the store has no run 'nobody'"


def test_a_folder_that_cannot_be_written(filled, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write there: "):
        export_run(filled, "a", "csv", tmp_path / "file")


def test_parquet_without_its_library(filled, tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingLibrary) as caught:
        export_run(filled, "a", "parquet", tmp_path)
    assert str(caught.value) == "the library 'pyarrow' is not installed\n  pip install 'clew[data]'"
