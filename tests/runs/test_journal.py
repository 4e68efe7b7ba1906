import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.runs import JournalTail, JournalWriter, read_events
from support import wait_until


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def write(folder, attempt, *events):
    journal = JournalWriter(folder, attempt)
    for kind, fields in events:
        journal.write(kind, **fields)
    journal.close()


def steps(folder):
    return [(event["attempt"], event["step"]) for event in read_events(folder, frozenset({"metric"}))]


def test_events_come_back_in_order_with_their_attempt(folder):
    write(folder, 1, ("note", {"text": "a"}), ("note", {"text": "b"}))
    assert [(event["text"], event["attempt"], event["rank"]) for event in read_events(folder)] == [
        ("a", 1, 0),
        ("b", 1, 0),
    ]


def test_a_torn_last_line_is_skipped(folder):
    write(folder, 1, ("note", {"text": "whole"}))
    with (folder / "1-0.jsonl").open("ab") as stream:
        stream.write(b'{"t": 1, "kind": "note", "te')
    assert [event["text"] for event in read_events(folder)] == ["whole"]


@given(st.integers(0, 200))
def test_a_journal_that_was_cut_anywhere_yields_a_prefix(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("journal")
    write(folder, 1, *[("metric", {"step": step, "values": {"loss": 0.5}}) for step in range(1, 4)])
    path = folder / "1-0.jsonl"
    path.write_bytes(path.read_bytes()[:cut])
    found = [step for _, step in steps(folder)]
    assert found == list(range(1, len(found) + 1))


def test_points_that_a_later_attempt_redoes_are_superseded(folder):
    write(folder, 1, ("restore", {"step": 0}), *[("metric", {"step": step, "values": {}}) for step in range(1, 8)])
    write(folder, 2, ("restore", {"step": 5}), *[("metric", {"step": step, "values": {}}) for step in range(6, 9)])
    assert steps(folder) == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 6), (2, 7), (2, 8)]


def test_an_attempt_that_restored_nothing_supersedes_nothing(folder):
    write(folder, 1, ("restore", {"step": 0}), ("metric", {"step": 1, "values": {}}))
    write(folder, 2, ("attempt", {"number": 2}))
    assert steps(folder) == [(1, 1)]


def test_an_attempt_that_fell_back_further_supersedes_two_attempts(folder):
    write(folder, 1, ("restore", {"step": 0}), *[("metric", {"step": step, "values": {}}) for step in range(1, 5)])
    write(folder, 2, ("restore", {"step": 4}), *[("metric", {"step": step, "values": {}}) for step in range(5, 7)])
    write(folder, 3, ("restore", {"step": 2}), ("metric", {"step": 3, "values": {}}))
    assert steps(folder) == [(1, 1), (1, 2), (3, 3)]


def test_events_without_a_step_are_never_superseded(folder):
    write(folder, 1, ("restore", {"step": 0}), ("command", {"id": "x", "at": 9}))
    write(folder, 2, ("restore", {"step": 0}))
    assert [event["id"] for event in read_events(folder, frozenset({"command"}))] == ["x"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_valid_json_and_come_back(folder, number):
    write(folder, 1, ("metric", {"step": 1, "values": {"loss": number}}))

    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    line = (folder / "1-0.jsonl").read_text()
    json.loads(line, parse_constant=refuse)
    value = float(next(read_events(folder))["values"]["loss"])
    assert value == number or (math.isnan(value) and math.isnan(number))


kinds = st.sampled_from(["metric", "restore", "note", "käse", 'a"b', "metric\n"])


@given(st.lists(st.tuples(kinds, kinds, st.integers(0, 9)), max_size=12), st.frozensets(kinds, max_size=3))
def test_asking_for_kinds_gives_what_reading_all_and_choosing_gives(tmp_path_factory, events, wanted):
    """Lines of other kinds are passed over undecoded, whatever their text speaks of."""
    folder = tmp_path_factory.mktemp("journal")
    for attempt in (1, 2):
        write(folder, attempt, *[(kind, {"text": text, "step": step}) for kind, text, step in events[attempt - 1 :: 2]])
    chosen = [event for event in read_events(folder) if event["kind"] in wanted]
    assert list(read_events(folder, wanted)) == chosen


@pytest.mark.parametrize(
    "line",
    [b"", b"\x00\x00\x00", b'{"kind": "a"} {"kind": "b"}', b'["kind"]', b'{"kind": "\xff"}', b'{"kind": "a"'],
    ids=["empty", "zeros", "two at once", "no event", "no text", "torn"],
)
def test_a_damaged_line_is_no_event(folder, line):
    (folder / "1-0.jsonl").write_bytes(line + b'\n  {"kind": "whole"} \r\n')
    assert [event["kind"] for event in read_events(folder)] == ["whole"]


@pytest.mark.parametrize("library", ["orjson", "none"])
@given(
    st.dictionaries(st.text(max_size=5), st.floats() | st.integers(-(2**70), 2**70), max_size=4), st.integers(0, 2**70)
)
def test_metrics_come_back_exactly_whatever_wrote_them(tmp_path_factory, library, values, step):
    folder = tmp_path_factory.mktemp("journal")
    with pytest.MonkeyPatch.context() as patch:
        if library == "none":
            patch.setitem(sys.modules, "orjson", None)
        journal = JournalWriter(folder, 1, clock=lambda: 1.5)
    journal.write_metrics(step, values)
    journal.write("metric", step=step, values=values)
    journal.close()
    quick, usual = read_events(folder)
    assert quick == usual
    assert repr({name: float(value) for name, value in quick["values"].items()}) == repr(
        {name: float(value) for name, value in values.items()}
    )


def test_the_tail_gives_each_whole_line_once(folder):
    tail = JournalTail(folder)
    journal = JournalWriter(folder, 1)
    journal.write("note", text="a")
    journal.flush()
    assert [event["text"] for event in tail.poll()] == ["a"]
    with (folder / "1-0.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "note",')
        stream.flush()
        assert tail.poll() == []
        stream.write(b'"text": "b"}\n')
    assert [event["text"] for event in tail.poll()] == ["b"]
    assert tail.poll() == []
    journal.close()


def test_an_event_reaches_the_file_while_nothing_else_happens(folder):
    journal = JournalWriter(folder, 1, clock=lambda: 100.0)
    journal.write("note", text="alone")
    wait_until(lambda: journal.path.read_text() != "", seconds=30)
    assert [event["t"] for event in read_events(folder)] == [100.0]
    journal.close()


def test_what_a_disk_does_not_take_is_said_at_the_next_write_and_kept_until_it_does(tmp_path, monkeypatch):
    writer = JournalWriter(tmp_path, 1)
    stream = writer._stream

    class Full:
        def write(self, data):
            if len(data) < 5:
                raise OSError(28, "No space left on device")
            return stream.write(data[:5])  # a short write, as real disks do before they are full

        def fileno(self):
            return stream.fileno()

        def close(self):
            stream.close()

    writer._stream = Full()
    writer.write_metrics(1, {"loss": 0.5})
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    with pytest.raises(OSError, match="No space left"):
        writer.write("note", text="a")
    writer._stream = stream
    writer.write("note", text="b")
    writer.close()
    assert [event["kind"] for event in read_events(tmp_path)] == ["metric", "note"]


def test_what_cannot_be_encoded_is_said_at_the_next_write_and_takes_nothing_with_it(tmp_path):
    writer = JournalWriter(tmp_path, 1)
    writer.write("note", text="a")
    writer.write_metrics(1, {("no", "name"): 1.0})
    for _ in range(2):
        with pytest.raises(TypeError, match="keys must be"):
            writer.flush()
    with pytest.raises(TypeError, match="keys must be"):
        writer.close()
    assert [event["text"] for event in read_events(tmp_path)] == ["a"]
