"""What counts in a journal whose run went back to an earlier checkpoint on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.runs import JournalWriter, read_events
from clew.runs.journal import Beginning, beginnings, journal_files, step_limits


def write(folder: Path, attempt: int, *events: dict[str, object]) -> None:
    folder.mkdir(exist_ok=True)
    journal = JournalWriter(folder, attempt)
    for event in events:
        journal.write(**event)
    journal.close()


def command(name: str, at: int) -> dict[str, object]:
    return {"kind": "command", "id": name, "at": at}


def ids(folder: Path, until: int | None = None) -> list[str]:
    return [event["id"] for event in read_events(folder, frozenset({"command"}), until=until)]


def steps(folder: Path, until: int | None = None) -> list[int]:
    return [event["step"] for event in read_events(folder, frozenset({"metric"}), until=until)]


def metrics(*numbers: int) -> list[dict[str, object]]:
    return [{"kind": "metric", "step": number, "values": {}} for number in numbers]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(
        tmp_path / "j",
        1,
        {"kind": "restore", "step": 0},
        *metrics(1, 2, 3, 4, 5, 6),
        *(command(name, at) for name, at in [("early", 2), ("inside", 4), ("after", 4), ("late", 5)]),
        {"kind": "paused", "at": 6},
    )
    return tmp_path / "j"


def test_a_plain_resume_keeps_commands_and_going_back_leaves_the_later_ones_out(folder: Path) -> None:
    assert ids(folder) == ["early", "inside", "after", "late"]
    write(folder, 2, {"kind": "restore", "step": 4}, *metrics(5), command("again", 5))
    assert ids(folder) == ["early", "inside", "after", "late", "again"]
    write(folder, 3, {"kind": "went_back", "to": 4, "contained": ["inside"]}, {"kind": "restore", "step": 4})
    write(folder, 4, {"kind": "restore", "step": 4}, *metrics(5), command("new", 5))
    assert ids(folder) == ["early", "inside", "new"]
    assert steps(folder) == [1, 2, 3, 4, 5]
    assert beginnings(journal_files(folder))[3] == Beginning(4, 4, frozenset({"inside"}))
    assert [event["at"] for event in read_events(folder, frozenset({"paused"}))] == [6], "what was, was"


def test_steps_count_no_longer_as_soon_as_it_went_back_though_nothing_is_restored_yet(folder: Path) -> None:
    write(folder, 2, {"kind": "went_back", "to": 3, "contained": []})
    assert steps(folder) == [1, 2, 3]
    assert ids(folder) == ["early"]
    assert step_limits(journal_files(folder)) == {1: 3, 2: float("inf")}


def test_what_counted_before_can_still_be_read(folder: Path) -> None:
    write(folder, 2, {"kind": "went_back", "to": 3, "contained": []}, {"kind": "restore", "step": 3}, *metrics(4))
    assert (steps(folder), ids(folder)) == ([1, 2, 3, 4], ["early"])
    assert (steps(folder, 1), ids(folder, 1)) == ([1, 2, 3, 4, 5, 6], ["early", "inside", "after", "late"])


@given(
    at=st.integers(0, 9),
    to=st.integers(0, 9),
    inside=st.booleans(),
    kind=st.sampled_from(["command", "paused", "metric"]),
)
def test_a_command_counts_up_to_where_the_run_went_back(at: int, to: int, inside: bool, kind: str) -> None:
    back = Beginning(to, to, frozenset({"x"} if inside else ()))
    counts = kind != "command" or at < to or (at == to and inside)
    assert back.undoes({"kind": kind, "id": "x", "at": at}) is not counts
    assert not Beginning(to).undoes({"kind": kind, "id": "x", "at": at})


@pytest.mark.parametrize(
    "event", [{"kind": "command"}, {"kind": "command", "at": "7"}, {"kind": "command", "at": None}]
)
def test_a_damaged_command_does_not_break_the_reading(event: dict[str, object]) -> None:
    assert not Beginning(1, 1).undoes(event)
