from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from clew.errors import ConfigError, DataError
from clew.tasks import Example, MissingSplit
from clew.tasks.dataset import DatasetTask

ROWS = [{"prompt": f"p{number}", "completion": f"c{number}"} for number in range(40)]


@pytest.fixture
def write(tmp_path):
    def write(text, name="train.jsonl"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_rows_become_examples(write):
    task = DatasetTask(train=write(jsonl([{"id": "x", "prompt": "a", "completion": "b", "level": 3}])))
    (example,) = task.examples("train")
    assert (example.id, example.prompt, example.completion) == ("x", "a", "b")
    assert example.fields["level"] == 3


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.ndjson", "d.csv", "d.tsv", "d.parquet"])
def test_every_format_gives_the_same_examples(name, write, tmp_path):
    rows = [{"prompt": 'a, "b"\tc\nd', "completion": "é"}, {"prompt": "x", "completion": "y"}]
    if name.endswith("parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    elif name.endswith("sv"):
        import csv

        with (tmp_path / name).open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, ["prompt", "completion"], delimiter="," if "csv" in name else "\t")
            table.writeheader()
            table.writerows(rows)
    else:
        write(json.dumps(rows) if name == "d.json" else jsonl(rows), name)
    examples = DatasetTask(train=str(tmp_path / name)).examples("train")
    assert [(one.prompt, one.completion) for one in examples] == [tuple(row.values()) for row in rows]


def test_column_names_can_be_set(write):
    task = DatasetTask(train=write(jsonl([{"q": "a", "a": 7, "n": 0}])), prompt="q", completion="a", id="n")
    assert (task.examples("train")[0].id, task.examples("train")[0].completion) == ("0", "7")


def test_a_byte_order_mark_and_blank_lines_do_not_matter(write):
    text = b"\xef\xbb\xbf" + b'{"prompt": "a", "completion": "b"}\r\n\r\n  \n{"prompt": "c", "completion": "d"}'
    assert len(DatasetTask(train=write(text)).examples("train")) == 2


GOOD = '{"prompt": "a", "completion": "b"}\n'


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ('{"prompt": "a" "completion": "b"}', "not valid JSON: Expecting ',' delimiter (column 16)"),
        ('["a", "b"]', "a row must be an object, this is a list"),
        ("null", "a row must be an object, this is nothing"),
        (
            '{"prompt": "a", "completoin": "b"}',
            "no column 'completion'\n  did you mean 'completoin'? (task.completion sets it)",
        ),
        (
            '{"question": "a", "completion": "b"}',
            "no column 'prompt'\n  known: completion, question (task.prompt sets it)",
        ),
        ('{"prompt": "a", "completion": null}', "column 'completion' holds nothing, not text"),
        ('{"prompt": "a", "completion": ["b"]}', "column 'completion' holds a list, not text"),
        ('{"prompt": "a", "completion": true}', "column 'completion' holds a truth value, not text"),
        ('{"prompt": " ", "completion": "b"}', "column 'prompt' is empty"),
        ('{"messages": "hi"}', "the messages are not a list of turns"),
        ('{"messages": []}', "the messages are not a list of turns"),
        ('{"messages": [{"role": "user"}]}', "turn 1 needs a role and a content"),
        (
            '{"messages": [{"role": "human", "content": "a"}]}',
            "turn 1 has the unknown role 'human'\n  known: system, user, assistant, tool",
        ),
        ('{"messages": [{"role": "user", "content": 1}]}', "turn 1: the content is not text"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "the last turn is of the user, not of the assistant"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "the conversation has no prompt"),
    ],
)
def test_a_bad_row_is_an_error_with_its_line(bad, text, write):
    task = DatasetTask(train=write(GOOD * 16 + bad + "\n" + GOOD))
    with pytest.raises(DataError) as caught:
        task.examples("train")
    assert str(caught.value) == f"train.jsonl:17: {text}"


def test_bytes_that_are_no_utf8_are_an_error_with_their_line(write):
    with pytest.raises(DataError, match=r"^train\.jsonl:2: byte 13 of this line is not UTF-8$"):
        DatasetTask(train=write(GOOD.encode() + b'{"prompt": "\xff"}\n')).examples("train")


def test_a_csv_row_with_too_many_cells_is_an_error_with_its_line(write):
    text = 'prompt,completion\n"two\nlines",b\na,b,c\n'
    with pytest.raises(DataError, match=r"^d\.csv:4: 3 cells, but there are 2 columns$"):
        DatasetTask(train=write(text, "d.csv")).examples("train")


def test_a_csv_quote_that_never_ends_is_an_error(write):
    with pytest.raises(DataError, match=r"^d\.csv:2: not valid CSV: unexpected end of data$"):
        DatasetTask(train=write('prompt,completion\n"a,b\n', "d.csv")).examples("train")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("d.jsonl", "", "d.jsonl: the file has no rows"),
        ("d.json", "", "d.json: the file has no rows"),
        ("d.json", "[]", "d.json: the file has no rows"),
        ("d.csv", "prompt,completion\n", "d.csv: the file has no rows"),
        ("d.json", "{}", "d.json: this is an object, not a list of rows\n  one row a line? name it .jsonl"),
        ("d.json", "[\n1", "d.json: not valid JSON: Expecting ',' delimiter (line 2, column 2)"),
        ("d.json", "[{}, 3]", "d.json: row 1: no column 'prompt'"),
        ("d.parquet", "nonsense", "d.parquet: not a Parquet file"),
        ("d.xlsx", "x", "d.xlsx: unknown data format '.xlsx'\n  known: .csv, .json"),
    ],
)
def test_a_bad_file_is_an_error_with_its_name(name, content, text, write):
    with pytest.raises(DataError) as caught:
        DatasetTask(train=write(content, name)).examples("train")
    assert str(caught.value).startswith(text)


def test_a_missing_file_suggests_its_neighbour(write, tmp_path):
    write(GOOD, "train.jsonl")
    with pytest.raises(DataError, match=r"there is no such file\n  did you mean 'train.jsonl'\?"):
        DatasetTask(train=str(tmp_path / "trian.jsonl")).examples("train")
    with pytest.raises(DataError, match=r"the folder .*nowhere does not exist either"):
        DatasetTask(train=str(tmp_path / "nowhere" / "train.jsonl")).examples("train")


def test_rows_are_read_one_by_one(write):
    task = DatasetTask(train=write('{"text": "first"}\nbroken\n'))
    documents = task.documents("train")
    assert next(iter(documents)) == "first"


def test_documents_come_from_the_text_column_or_the_lines_of_a_text_file(write):
    assert list(DatasetTask(train=write("one\n\ntwo\n", "d.txt")).documents("train")) == ["one", "two"]
    assert list(DatasetTask(train=write('{"body": "x"}\n'), text="body").documents("train")) == ["x"]


def test_a_split_that_is_not_there_has_no_documents_and_its_examples_are_an_error(write):
    task = DatasetTask(train=write(jsonl(ROWS)))
    assert list(task.documents("validation")) == []
    with pytest.raises(MissingSplit) as caught:
        task.examples("validation")
    assert str(caught.value) == (
        "train.jsonl: the data set has no validation split\n"
        "  set task.validation to a file, or task.validation_fraction to a share of the training rows"
    )


def test_fractions_cut_the_training_file_without_overlap_or_loss(write):
    task = DatasetTask(train=write(jsonl(ROWS)), validation_fraction=0.3, test_fraction=0.3)
    prompts = [{one.prompt for one in task.examples(split)} for split in ("train", "validation", "test")]
    assert set.union(*prompts) == {row["prompt"] for row in ROWS}
    assert sum(map(len, prompts)) == len(ROWS)
    assert all(prompts)


def test_equal_prompts_never_land_on_both_sides(write):
    rows = [{"prompt": row["prompt"], "completion": str(number)} for row in ROWS for number in range(3)]
    task = DatasetTask(train=write(jsonl(rows)), test_fraction=0.5)
    assert not {one.prompt for one in task.examples("train")} & {one.prompt for one in task.examples("test")}


def test_a_split_with_its_own_file_is_not_cut(write):
    task = DatasetTask(train=write(jsonl(ROWS)), test=write(GOOD, "test.jsonl"), validation_fraction=0.4)
    assert len(task.examples("test")) == 1
    assert len(task.examples("train")) + len(task.examples("validation")) == len(ROWS)


def test_ids_are_unique_and_do_not_depend_on_the_order_of_rows(write):
    rows = [*ROWS, ROWS[0], {"id": "x", **ROWS[1]}, {"id": "x", **ROWS[2]}, {"id": "x#2", **ROWS[3]}]
    ids = [one.id for one in DatasetTask(train=write(jsonl(rows))).examples("train")]
    assert len(set(ids)) == len(rows)
    assert ids[-3:] == ["x", "x#2", "x#2#2"]
    backwards = DatasetTask(train=write(jsonl(ROWS[::-1]), "back.jsonl")).examples("train")
    assert [one.id for one in backwards][::-1] == ids[: len(ROWS)]


def test_the_last_answer_of_a_conversation_is_the_completion(write):
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "weight": 1},
    ]
    (example,) = DatasetTask(train=write(jsonl([{"messages": turns}])), system="Be brief.").examples("train")
    assert example.prompt == [{"role": "system", "content": "Be brief."}, *turns[:3]]
    assert example.completion == "d"


OWN_REWARD = "def short(example, completion):\n    return 1.0 if len(completion) < example.fields['most'] else None\n"


def test_an_own_reward_is_loaded_from_a_file_and_needs_no_completions(write):
    rows = write(jsonl([{"prompt": "a", "most": 3}]))
    task = DatasetTask(train=rows, reward_file=write(OWN_REWARD, "mine.py"), reward_function="short", reward_weight=2.0)
    (example,) = task.prompts("train")
    assert example.completion is None
    assert [(one.name, one.weight) for one in task.rewards()] == [("exact", 1.0), ("short", 2.0)]
    assert task.metrics(example, "ab") == {"short": 1.0}
    assert task.metrics(example, "abcd") == {}
    with pytest.raises(DataError, match="no column 'completion'"):
        task.examples("train")


def test_an_own_reward_that_is_not_in_its_file_is_said(write):
    task = DatasetTask(train=write(GOOD), reward_file=write(OWN_REWARD, "mine.py"))
    with pytest.raises(ConfigError, match=r"mine.py has no 'reward'"):
        task.rewards()


def test_metrics_and_rewards(write):
    task = DatasetTask(train=write(GOOD), format=r"\d{4}-\d\d-\d\d", format_weight=0.1)
    example = Example(id="1", prompt="?", completion="2021-03-03")
    assert [(one.name, one.weight) for one in task.rewards()] == [("exact", 1.0), ("format", 0.1)]
    assert task.metrics(example, " 2021-03-03\n") == {"exact": 1.0, "format": 1.0, "contains": 1.0}
    assert task.metrics(example, "It is 2021-03-03.") == {"exact": 0.0, "format": 0.0, "contains": 1.0}
    assert task.metrics(example, "2021-03-04") == {"exact": 0.0, "format": 1.0, "contains": 0.0}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "validation_fraction and test_fraction"),
        ({"validation": "x", "validation_fraction": 0.5}, "validation and validation_fraction: give one"),
        ({"test": "x", "test_fraction": 0.5}, "test and test_fraction: give one"),
        ({"format": "("}, "format: not a regular expression"),
    ],
)
def test_options_that_contradict_are_refused(options, text):
    with pytest.raises(ValidationError, match=text):
        DatasetTask(train="x", **options)


BAD = '{"prompt": "a"}\n'
NO_COMPLETION = "train.jsonl:2: no column 'completion'\n  known: prompt (task.completion sets it)"


def test_bad_rows_are_skipped_and_counted_when_asked_for(write):
    task = DatasetTask(train=write(GOOD + BAD + "oops\n" + '{"prompt": "c", "completion": "d"}\n'), on_bad_row="skip")
    assert [one.prompt for one in task.examples("train")] == ["a", "c"]
    assert [str(error) for error in task.skipped("examples", "train")] == [
        NO_COMPLETION,
        "train.jsonl:3: not valid JSON: Expecting value (column 1)",
    ]


def test_a_bad_row_is_an_error_unless_asked_for_and_nothing_is_counted_as_skipped(write):
    task = DatasetTask(train=write(GOOD + BAD))
    with pytest.raises(DataError) as caught:
        task.examples("train")
    assert str(caught.value) == NO_COMPLETION
    assert task.skipped("examples", "train") == ()


def test_what_is_bad_depends_on_the_part(write):
    options = {"on_bad_row": "skip", "reward_file": write(OWN_REWARD, "mine.py"), "reward_function": "short"}
    task = DatasetTask(train=write('{"prompt": "a"}\n{"text": "b"}\n'), **options)
    counts = {part: len(task.skipped(part, "train")) for part in ("documents", "examples", "prompts", "problems")}
    assert counts == {"documents": 1, "examples": 2, "prompts": 1, "problems": 1}
    assert list(task.documents("train")) == ["b"]


def test_the_bad_rows_of_a_split_are_those_of_its_file(write):
    options = {"on_bad_row": "skip", "test": write(BAD + GOOD, "test.jsonl")}
    task = DatasetTask(train=write(GOOD), **options)
    assert [error.where for error in task.skipped("examples", "test")] == ["test.jsonl:1"]
    assert not task.skipped("examples", "train")
    assert not task.skipped("examples", "validation")


def test_a_file_of_which_every_row_is_bad_is_an_error_that_shows_the_first(write):
    with pytest.raises(DataError) as caught:
        DatasetTask(train=write(BAD + BAD), on_bad_row="skip").examples("train")
    assert str(caught.value) == (
        "train.jsonl: no row is left in the train split; 2 bad rows were skipped\n"
        "  the first: train.jsonl:1: no column 'completion'\n"
        "  known: prompt (task.completion sets it)"
    )


def test_a_file_that_cannot_be_read_at_all_is_an_error_all_the_same(write):
    with pytest.raises(DataError, match=r"^d\.json: not valid JSON"):
        DatasetTask(train=write("[", "d.json"), on_bad_row="skip").examples("train")


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("d.jsonl", b'{"prompt": "\xff"}\n' + GOOD.encode() + b"[]\n" + b'{"a": ' * 100_000,
         ["d.jsonl:1", "d.jsonl:3", "d.jsonl:4"]),
        ("d.json", b'[{"prompt": "a", "completion": "b"}, 3, null]', ["d.json: row 2", "d.json: row 3"]),
        ("d.csv", b'prompt,completion\na,b\n\xff,b\na,b,c\nc,"d"x\ne,f\n', ["d.csv:3", "d.csv:4", "d.csv:5"]),
        ("d.csv", b'prompt,completion\na,b\nc,\n"d,e\n', ["d.csv:3", "d.csv:4"]),
    ],
)  # fmt: skip
def test_every_bad_row_of_every_format_is_found_and_the_others_are_read(name, text, places, write):
    task = DatasetTask(train=write(text, name), on_bad_row="skip")
    assert [error.where for error in task.skipped("examples", "train")] == places
    assert task.examples("train")[0].prompt == "a"


@pytest.mark.parametrize("text", [b"prompt,\xff\na,b\n", b'"prompt"x,completion\na,b\n'])
def test_a_csv_header_that_cannot_be_read_is_an_error_of_the_file(text, write):
    with pytest.raises(DataError, match=r"^d\.csv:1: "):
        DatasetTask(train=write(text, "d.csv"), on_bad_row="skip").examples("train")


def test_training_examples_can_be_put_in_an_order(write):
    rows = [{"prompt": "p" * size, "completion": "c" * more} for size, more in ((3, 3), (1, 1), (2, 2), (1, 1))]
    path = write(jsonl(rows))
    lengths = {
        order: [len(one.prompt) for one in DatasetTask(train=path, test=path, order=order).examples("train")]
        for order in ("as_is", "shortest_first", "longest_first")
    }
    assert lengths == {"as_is": [3, 1, 2, 1], "shortest_first": [1, 1, 2, 3], "longest_first": [3, 2, 1, 1]}
    ordered = DatasetTask(train=path, test=path, order="shortest_first")
    assert [len(one.prompt) for one in ordered.examples("test")] == [3, 1, 2, 1]
    assert ordered.keeps_order() and not DatasetTask(train=path).keeps_order()


def test_an_order_keeps_the_ids(write):
    path = write(jsonl([{"prompt": "x" * size, "completion": "y"} for size in (3, 1, 2)]))
    ids = {order: {one.id for one in DatasetTask(train=path, order=order).examples("train")}
           for order in ("as_is", "longest_first")}  # fmt: skip
    assert ids["as_is"] == ids["longest_first"]


@pytest.mark.parametrize(("options", "allowed"), [({"on_bad_row": "warn"}, "error"), ({"order": "hard"}, "as_is")])
def test_an_unknown_choice_is_refused(options, allowed):
    with pytest.raises(ValidationError, match=allowed):
        DatasetTask(train="x", **options)
